"""What answers and orders of the administration of people and money look like, for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.api.examples import CREATED, REQUEST_ID, TASK_ID

Json = dict[str, Any]

_ACCOUNT: Json = {
    "object": "account",
    "id": "acct_12",
    "email": "ada@example.com",
    "name": "Ada",
    "state": "active",
    "is_admin": False,
    "credits": 875,
    "held": 125,
    "in_flight": 1,
    "max_in_flight": 20,
    "created_at": CREATED,
}
_KEY: Json = {
    "object": "key",
    "id": "key_7",
    "account": "acct_12",
    "email": "ada@example.com",
    "name": "laptop",
    "last4": "x7Qz",
    "state": "live",
    "scopes": ["images:write", "videos:write", "tasks:read", "files:read", "account:read"],
    "models": None,
    "cidrs": [],
    "replaces": None,
    "budget": 500,
    "period": "month",
    "spent": 125,
    "held": 0,
    "in_flight": 0,
    "max_in_flight": None,
    "rpm": None,
    "created_at": CREATED,
    "expires_at": None,
    "revoked_at": None,
    "last_used_at": CREATED + 60,
}
_SECRET: Json = {"secret": "sk-mg_" + "0" * 46}
_CODE: Json = {
    "object": "redeem_code",
    "id": "code_7",
    "batch": "batch_01m86qbw0aeger83gk8kat0d3w",
    "last4": "4KQZ",
    "state": "redeemed",
    "kind": "grant",
    "amount": 100,
    "note": "Spring fair",
    "created_by": "root@example.com (key_1)",
    "created_at": CREATED,
    "expires_at": None,
    "revoked_at": None,
    "redeemed_at": CREATED + 3600,
    "account": "acct_12",
    "email": "ada@example.com",
}
_OUTCOMES: Json = {
    "group": "film-1",
    "ended": 120,
    "succeeded": 117,
    "failed": 2,
    "cancelled": 1,
    "success_rate": 0.983,
    "p50_s": 41.2,
    "p95_s": 88.0,
}

ANSWERS: Mapping[str, Json] = {
    "AdminAccount": _ACCOUNT,
    "AdminAccountList": {"object": "list", "data": [_ACCOUNT], "last_id": "acct_12", "has_more": False},
    "SignedOut": {"object": "sign_out", "account": "acct_12", "sessions": 3},
    "SignInLink": {
        "object": "sign_in_link",
        "account": "acct_12",
        "email": "ada@example.com",
        "purpose": "reset",
        "url": "https://media.example.com/console/join/Zm94LWluLXRoZS1zbm93LWZveC1pbi10aGUtc25vdy0",
        "expires_at": CREATED + 3600,
    },
    "AdminKey": _KEY,
    "AdminKeyWithSecret": _KEY | _SECRET,
    "AdminKeyList": {"object": "list", "data": [_KEY], "last_id": "key_7", "has_more": False},
    "CreditsPosted": {
        "object": "ledger_entry",
        "id": 93,
        "account": "acct_12",
        "seq": 4,
        "kind": "topup",
        "amount": 1000,
        "balance": 1875,
        "reference": "invoice-4711",
        "replayed": False,
    },
    "AdminLedger": {
        "object": "list",
        "data": [
            {
                "seq": 2,
                "kind": "capture",
                "amount": -125,
                "balance": 875,
                "task_id": TASK_ID,
                "model": "film-1",
                "type": "video.generation",
                "key_id": "key_7",
                "reference": None,
                "note": None,
                "created_at": CREATED + 48,
                "actor": "system",
            }
        ],
        "last_id": 2,
        "has_more": True,
    },
    "DailyUsageReply": {
        "object": "list",
        "by": "model",
        "data": [{"day": "2026-11-24", "group": "film-1", "tasks": 1, "credits": 125}],
        "credits": 125,
    },
    "AdminCode": _CODE,
    "AdminCodeList": {"object": "list", "data": [_CODE], "last_id": "code_7", "has_more": False},
    "CodeBatch": {
        "object": "redeem_code.batch",
        "id": _CODE["batch"],
        "amount": 100,
        "codes": ["7W2KD-0Q9ZX-M3T5B-H84KQ"],
    },
    "BatchRevoked": {"object": "redeem_code.batch", "id": _CODE["batch"], "revoked": 41},
    "RedeemReply": {
        "object": "redeemed_code",
        "credits": 100,
        "balance": 975,
        "reference": "redeem:7",
        "replayed": False,
    },
    "AuditReply": {
        "object": "list",
        "data": [
            {
                "id": 311,
                "at": CREATED,
                "actor": "root@example.com (key_1)",
                "action": "credits.adjust",
                "target": "account:12",
                "reason": "Charged twice by mistake.",
                "before": {"balance": 850},
                "after": {
                    "balance": 875,
                    "amount": 25,
                    "reference": "ticket-4711",
                    "note": "Charged twice by mistake.",
                },
                "request_id": REQUEST_ID,
            }
        ],
        "last_id": 311,
        "has_more": True,
    },
    "Statistics": {
        "object": "statistics",
        "period": "24h",
        "minutes": [{"at": CREATED, "succeeded": 3, "failed": 0, "cancelled": 0}],
        "models": [_OUTCOMES],
        "upstreams": [_OUTCOMES | {"group": "main-account"}],
        "pools": [
            {"pool": "main-account/film-1", "queued": 2, "running": 8, "oldest_queued_s": 3.5, "held": 1250},
        ],
        "oldest_due_s": 0.0,
        "webhooks_pending": 0,
        "top_accounts": [{"account": "acct_12", "email": "ada@example.com", "tasks": 40, "credits": 5000}],
    },
    "MoneyStatistics": {
        "object": "statistics.money",
        "data": [
            {
                "day": "2026-11-24",
                "sold": 1000,
                "granted": 100,
                "captured": 625,
                "refunded": 2,
                "expired": 0,
                "adjusted": 25,
                "costs": {"USD": 1250000},
            }
        ],
        "posted": 98000,
        "held": 1250,
    },
    "StorageStatistics": {
        "object": "statistics.storage",
        "data": [{"role": "result", "state": "ready", "files": 812, "bytes": 991234567}],
        "expiry": [{"day": "2026-12-01", "files": 120, "bytes": 141234567}],
        "disk_free_bytes": 51234567890,
        "disk_total_bytes": 101234567890,
        "keep_free_bytes": 5061728394,
        "result_ttl_s": 604800,
        "input_ttl_s": 86400,
        "link_ttl_s": 86400,
    },
    "SettingList": {
        "object": "list",
        "data": [
            {"name": "MEDIAGATE_PORT", "value": "8000", "source": "default", "is_secret": False},
            {"name": "MEDIAGATE_KEY_PEPPER", "value": "set", "source": "secrets.json", "is_secret": True},
        ],
    },
}
ORDERS: Mapping[str, Json] = {
    "create_account": {"email": "ada@example.com", "name": "Ada"},
    "update_account": {"max_in_flight": 50},
    "suspend_account": {"reason": "The invoice is overdue."},
    "resume_account": {"reason": "The invoice is paid."},
    "close_account": {"reason": "The customer left."},
    "create_sign_in_link": {"purpose": "reset", "reason": "She forgot it."},
    "sign_out_account": {"reason": "Her laptop was stolen."},
    "create_key": {"name": "laptop", "budget": 500, "period": "month"},
    "rotate_key": {"overlap_hours": 24},
    "revoke_key": {"reason": "The laptop was stolen."},
    "set_key_limits": {"budget": 500, "period": "month", "rpm": 60},
    "post_credits": {"kind": "adjust", "amount": 25, "reason": "Charged twice by mistake.", "reference": "ticket-4711"},
    "create_codes": {"count": 50, "amount": 100, "note": "Spring fair"},
    "revoke_code": {"reason": "Sent to the wrong address."},
    "revoke_batch": {"reason": "The fair is over."},
    "redeem_code": {"code": "7W2KD-0Q9ZX-M3T5B-H84KQ"},
}
