"""OpenAI's Images API, OpenAI's Videos protocol, and any server that speaks them.

Options, of the account in upstreams.yaml or of a route (the route's win; ``models: {UPSTREAM-MODEL: {...}}`` of the
account stands between the two). What decides whether a request can be served at all (marked +) belongs into the
account: it is asked before a route's options are known.

``profile``: ``openai`` (default), ``compatible`` (a relay, LiteLLM), ``sd.cpp``, ``sglang``: defaults for what follows.
``headers``: more headers, such as ``OpenAI-Organization``. ``timeout_s``: how long an image may take (600).
``refusal_statuses``: statuses of 5xx that this server gives only before it accepts: they may then be tried elsewhere.
``prices``: ``{currency: USD, text_input, image_input, output}`` per million tokens, ``image``, ``second`` of video.

Images:
    ``fields``: which of quality, background, moderation, output_format, output_compression, style, input_fidelity,
        safety_identifier, user this server takes. ``input_fidelity`` never goes to gpt-image-2.
    ``quality``: the upstream's own quality, a word or ``{standard: low, hd: medium, uhd: high}`` (auto).
    ``send_response_format``: ``never`` (default), ``b64_json``, ``url``; gpt-image models never get it.
    ``size_style``: ``pixels`` or ``ratio``: ``size: "16:9"`` with ``resolution`` by ``resolutions`` (1k, 2k, 4k).
    ``auto_size``: ``pass`` or ``resolve``: what becomes of ``auto``.
    ``sizes`` +, ``ratios`` +, ``max_edge`` +, ``max_pixels`` +: what this server can make; a larger one is refused,
        not made smaller.
    ``reference_style`` +: ``multipart`` (to /images/edits), or ``image``, ``images``, ``image_urls``: that field of the
        JSON body, to ``reference_path`` (/images/generations). ``reference_data``: ``inline``, or ``url`` (ours).
    ``mask_field`` +: the mask's field beside JSON references; without it a mask is refused. ``max_images`` + (16).
    ``stream``: whether it can send interim images. ``strip_prompt_tags``: remove ``<sd_cpp_extra_args>`` from prompts.
    ``extra``: more fields, as they are. ``mode``: ``sync``; what answers with a task has its own provider.

Videos:
    ``video_body``: ``multipart`` or ``json``. ``video_size_style``: ``pixels``, or ``ratio``: aspect_ratio, resolution.
    ``video_sizes`` +, ``video_seconds`` +: what it can make (sora-2's own for sora-2*, else anything);
        ``nearest_seconds`` +: take the nearest length instead of a refusal.
    ``video_reference_field`` (input_reference) and ``max_video_images`` + (1): plural names take lists of a JSON body.
    ``video_fields`` +: ``{public name: its name there}`` for seed, watermark, generate_audio and other parameters.
    ``video_result``: ``auto`` (a URL in the object, else its content), ``content``. ``remix`` +: whether it has it.
    ``video_extra``: more fields, as they are.
"""

from __future__ import annotations

from app.upstreams.protocols import Provider


def provider() -> Provider:
    """Return the provider; found by walking the package ``app.providers``."""
    from app.providers.openai.adapter import OpenAIProvider

    return OpenAIProvider()
