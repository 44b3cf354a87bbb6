"""What each setting is for, in the reader's language; `docs/settings.md` says more."""

from __future__ import annotations

from collections.abc import Mapping

from app.console.wording import _

GROUPS: Mapping[str, Mapping[str, str]] = {
    _("The gateway"): {
        "MEDIAGATE_ENV": _("production refuses sample secrets and demands servers, public URL and secrets of its own"),
        "MEDIAGATE_HOST": _("Address the API listens on"),
        "MEDIAGATE_PORT": _("Port the API listens on"),
        "MEDIAGATE_PUBLIC_URL": _("Where clients reach the API: the start of every URL in an answer"),
        "MEDIAGATE_DATA": _("Folder of the stored files"),
        "MEDIAGATE_CONFIG_DIR": _("Folder of models.yaml and upstreams.yaml"),
        "MEDIAGATE_DATABASE_URL": _("The PostgreSQL server"),
        "MEDIAGATE_REDIS_URL": _("The Valkey or Redis server"),
        "MEDIAGATE_DATABASE_POOL": _("Connections of each process to the database"),
        "MEDIAGATE_DATABASE_WAIT_S": _("How long a request waits for a connection before it gets 503"),
        "MEDIAGATE_OVERLOAD_DELAY_S": _("Paid requests get 503 while others take longer than this to their hold"),
        "MEDIAGATE_OVERLOAD_BURST": _("Paid requests on their way to their hold at once, in one process"),
        "MEDIAGATE_FAIL": _("For tests only: where this process breaks"),
        "MEDIAGATE_LOG_FORMAT": _("console or json; not set: JSON in production"),
        "MEDIAGATE_LOG_LEVEL": _("The least important messages that are written"),
    },
    _("Secrets"): {
        "MEDIAGATE_KEY_PEPPER": _("API keys are stored under it: losing it makes every key invalid"),
        "MEDIAGATE_LINK_SECRET": _(
            "Signs result links, sessions and sign-in links: changing it ends those that are out"
        ),
        "MEDIAGATE_SECRETS_KEY": _("Seals the secrets of upstream accounts"),
        "MEDIAGATE_METRICS_TOKEN": _("What your monitoring sends to read /metrics"),
        "MEDIAGATE_STATISTICS_CACHE_S": _("How old the figures of the dashboard may be"),
        "MEDIAGATE_KEY_CACHE_S": _("How long a process trusts a key it has checked"),
    },
    _("Signing in"): {
        "MEDIAGATE_SESSION_IDLE_S": _("A session that was not used for this long has ended"),
        "MEDIAGATE_SESSION_MAX_S": _("Every session has ended after this"),
        "MEDIAGATE_PASSWORD_MEMORY_KIB": _("Memory for the hash of one password, in KiB"),
        "MEDIAGATE_PASSWORD_ROUNDS": _("How often the hash goes through that memory"),
        "MEDIAGATE_REGISTRATION": _("Whether people may make an account by themselves"),
        "MEDIAGATE_REGISTRATION_CREDITS": _("What such an account starts with"),
        "MEDIAGATE_PUBLIC_MODELS": _("Whether models and prices are shown to people who have not signed in"),
        "MEDIAGATE_OIDC_ISSUER": _("Address of an OpenID provider for signing in"),
        "MEDIAGATE_OIDC_CLIENT_ID": _("Our name at the OpenID provider"),
        "MEDIAGATE_OIDC_CLIENT_SECRET": _("Our secret at the OpenID provider"),
        "MEDIAGATE_OIDC_NAME": _("What the sign-in button says"),
        "MEDIAGATE_OIDC_AUTO_CREATE": _("Whether people the provider knows, and we do not, get an account"),
    },
    _("How long things stay"): {
        "MEDIAGATE_RESULT_TTL_S": _("How long results are kept"),
        "MEDIAGATE_INPUT_TTL_S": _("How long uploads are kept"),
        "MEDIAGATE_LINK_TTL_S": _("How long a signed link works"),
    },
    _("Tasks"): {
        "MEDIAGATE_SYNC_WAIT_MAX_S": _("An image request waits this long, then answers 504; its task goes on"),
        "MEDIAGATE_RETRY_JOIN": _(
            "Whether a retry without an idempotency key gets the task whose answer never arrived"
        ),
        "MEDIAGATE_QUEUE_WAIT_IMAGE_S": _("An image that no upstream accepted by then fails, and costs nothing"),
        "MEDIAGATE_QUEUE_WAIT_VIDEO_S": _("A video that no upstream accepted by then fails, and costs nothing"),
        "MEDIAGATE_DEADLINE_IMAGE_S": _("An accepted image that is not finished by then fails, and costs nothing"),
        "MEDIAGATE_DEADLINE_VIDEO_S": _("An accepted video that is not finished by then fails, and costs nothing"),
        "MEDIAGATE_POLL_MIN_S": _("How often an upstream is asked for a video at first"),
        "MEDIAGATE_POLL_MAX_S": _("And how often at the longest"),
        "MEDIAGATE_LEASE_S": _("A step of a process that died is taken over after this"),
        "MEDIAGATE_HEARTBEAT_S": _("How often a process says that it still works at a step"),
        "MEDIAGATE_SWEEP_S": _("How often a worker looks for due tasks"),
        "MEDIAGATE_SUBMIT_ABSENT_S": _(
            "A lost submit counts as never made when the upstream does not list it this long after"
        ),
        "MEDIAGATE_AUDIT_EVERY_S": _("How often a worker checks the books; 0: never"),
        "MEDIAGATE_WORKER_JOBS": _("Steps a worker takes at the same time"),
        "MEDIAGATE_SHUTDOWN_WAIT_S": _("How long a stopping process waits for what runs"),
        "MEDIAGATE_SHUTDOWN_DELAY_S": _("How long a stopping API still accepts connections, for load balancers"),
    },
    _("Limits"): {
        "MEDIAGATE_KEY_RPM": _("Requests a minute of a key without a limit of its own"),
        "MEDIAGATE_WRONG_KEYS_PER_MINUTE": _(
            "Wrong API keys a minute from one address, above which it is refused; 0: no limit"
        ),
        "MEDIAGATE_TRUSTED_PROXIES": _("Networks of your proxies, whose X-Forwarded-For is believed"),
        "MEDIAGATE_UPLOADS": _("Large bodies a process reads at once"),
        "MEDIAGATE_UPLOADS_PER_KEY": _("Of these, from one key"),
        "MEDIAGATE_UPLOAD_WAIT_S": _("How long a body waits for its turn before it is refused"),
        "MEDIAGATE_SPOOL_BYTES": _("What uploads that are not stored yet may fill, in each process"),
        "MEDIAGATE_PREVIEW_BYTES": _("What the small pictures of the console may fill"),
        "MEDIAGATE_DISK_FREE_BYTES": _("With less free disk no new work is taken"),
        "MEDIAGATE_DISK_FREE_PERCENT": _("The same as a share of the disk, in percent; the larger of the two counts"),
    },
    _("Request bodies"): {
        "MEDIAGATE_HEADER_BYTES": _("Largest URL and headers of a request"),
        "MEDIAGATE_JSON_BODY_BYTES": _("Largest JSON body"),
        "MEDIAGATE_DATA_URL_BYTES": _("Largest data: URL in it, decoded"),
        "MEDIAGATE_UPLOAD_FILE_BYTES": _("Largest file of a form"),
        "MEDIAGATE_UPLOAD_TOTAL_BYTES": _("Largest form"),
        "MEDIAGATE_UPLOAD_TEXT_BYTES": _("Largest text field of a form"),
        "MEDIAGATE_UPLOAD_FIELDS": _("Most fields of a form, or files in a JSON body"),
        "MEDIAGATE_MASK_BYTES": _("Largest mask"),
        "MEDIAGATE_BODY_GAP_S": _("A body that sends nothing for this long is given up"),
        "MEDIAGATE_BODY_TOTAL_S": _("A body must have arrived by then"),
    },
    _("Reference URLs"): {
        "MEDIAGATE_FETCH_IMAGE_BYTES": _("Largest image that is fetched"),
        "MEDIAGATE_FETCH_VIDEO_BYTES": _("Largest video that is fetched"),
        "MEDIAGATE_FETCH_AUDIO_BYTES": _("Largest sound that is fetched"),
        "MEDIAGATE_FETCH_ALLOW_HTTP": _("Whether plain http:// is allowed"),
        "MEDIAGATE_FETCH_PORTS": _("Ports that may be reached"),
        "MEDIAGATE_FETCH_ALLOW_HOSTS": _("Private host:port pairs that may be reached"),
        "MEDIAGATE_FETCH_REFUSE_NETWORKS": _("Further networks that must not be reached"),
    },
    _("Webhooks"): {
        "MEDIAGATE_LOW_CREDITS": _("Threshold of credits.low for an account that has set none"),
    },
}
"""Group -> variable -> what it is for."""

MEANINGS: Mapping[str, str] = {name: text for group in GROUPS.values() for name, text in group.items()}
