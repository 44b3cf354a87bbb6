"""The drawing child: ``python -m app.providers.demo.child``. It draws only while it holds one of the slots."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from app.media.child_runtime import serve
from app.providers.demo.jobs import Job, Slot

NICENESS = 5  # the gateway's own processes go first


class _Cancelled(Exception):
    """Somebody cancelled the job we are rendering."""


def image(job: str, slots: str, slot_count: int) -> dict[str, Any]:
    """Make ``result.<format>`` of a job, unless it is there."""
    from app.providers.demo import stills

    work = Job(Path(job))
    with work.lock(wait=True):
        if not work.is_done:
            work.count("renders")
            request = work.request()
            name = f"result.{request['format']}"
            with Slot(Path(slots), slot_count, urgent=True):
                stills.write(stills.draw(work.path, request), work.path / f"{name}.part", request)
            (work.path / f"{name}.part").replace(work.path / name)
            work.finish()
    return {}


def partial(job: str, out: str, index: int, slots: str, slot_count: int) -> dict[str, Any]:
    """Write an interim image to ``out``."""
    from app.providers.demo import stills

    work = Job(Path(job))
    request = work.request()
    with Slot(Path(slots), slot_count, urgent=True):
        stills.write(stills.draw_partial(work.path, request, index=index), Path(out), request)
    return {}


def film(job: str, slots: str, slot_count: int) -> dict[str, Any]:
    """Make the files of a video job, unless another process is at it, or it is done, or cancelled."""
    work = Job(Path(job))
    with work.lock(wait=False) as is_ours:
        if not is_ours or work.is_done or work.is_cancelled:
            return {}
        work.count("renders")
        with Slot(Path(slots), slot_count, urgent=False) as slot:
            from app.providers.demo import films  # here: loading the codecs is work, too

            def heartbeat(percent: int) -> None:
                if work.is_cancelled:
                    raise _Cancelled
                work.set_progress(percent)
                slot.give_way()

            try:
                films.render(work.path, work.request(), heartbeat)
            except _Cancelled:
                (work.path / "result.mp4.part").unlink(missing_ok=True)
                return {}
        work.finish()
    return {}


if __name__ == "__main__":
    os.nice(NICENESS)
    serve({"image": image, "partial": partial, "film": film})
