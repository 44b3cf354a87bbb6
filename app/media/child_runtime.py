"""The inside of a limited child process: it limits itself, reads calls as JSON lines and answers each with one line.

It imports next to nothing, so that a cold child answers quickly; operations import what they need when they run.
"""

from __future__ import annotations

import ctypes
import errno
import json
import math
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

Operation = Callable[..., dict[str, Any]]

OPEN_FILES = 64
_PR_SET_PDEATHSIG = 1
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def serve(operations: Mapping[str, Operation]) -> NoReturn:
    """Answer calls until stdin ends. Started by ``processes.ChildPool`` only: argv[1] holds the limits as JSON.

    A failed operation answers ``{"failed": reason, "detail": ...}`` and the child goes on; after a lack of memory it
    ends, because nobody knows what state its libraries are in.
    """
    limits = json.loads(sys.argv[1])
    _die_with(limits["parent"])
    _limit("RLIMIT_CORE", 0)
    _limit("RLIMIT_NOFILE", OPEN_FILES)
    _limit("RLIMIT_FSIZE", limits["file_bytes"])
    if limits["memory_bytes"] is not None:
        _limit("RLIMIT_AS", limits["memory_bytes"])

    # What a library prints goes to stderr: only answers travel on the pipe.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        call = json.loads(line)
        if limits["cpu_s"] is not None:
            _allow_cpu(limits["cpu_s"])
        answer = _run(operations, call["op"], call["args"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if answer.get("failed") == "memory":
            break
    sys.exit(0)


def _run(operations: Mapping[str, Operation], op: str, args: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"done": operations[op](**args)}
    except MemoryError:
        return {"failed": "memory", "detail": op}
    except OSError as error:
        where = "".join(traceback.format_exception(error))[-2000:]
        return {"failed": "room" if error.errno in _NO_ROOM else "error", "detail": where}
    except Exception as error:  # noqa: BLE001 - the parent raises it, with this traceback
        where = "".join(traceback.format_exception(error))[-2000:]
        return {"failed": "error", "detail": where}


def _die_with(parent: int) -> None:
    """Ask the kernel to kill us when the parent dies, however it dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before we asked
        sys.exit(0)


def _limit(name: str, value: int) -> None:
    which = getattr(resource, name)
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def _allow_cpu(seconds: int) -> None:
    """Grant this call ``seconds`` of CPU on top of what the process has used; beyond that the kernel kills it."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
