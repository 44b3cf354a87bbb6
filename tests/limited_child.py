"""A child for the tests of the pool: it echoes, waits, eats and crashes on demand."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from app.media.child_runtime import serve


def echo(**args: Any) -> dict[str, Any]:
    print("noise on stdout is not an answer")  # noqa: T201
    return args | {"pid": os.getpid()}


def wait(seconds: float) -> dict[str, Any]:
    time.sleep(seconds)
    return {}


def spin() -> dict[str, Any]:
    while True:
        pass


def eat(size_bytes: int) -> dict[str, Any]:
    return {"length": len(b"x" * size_bytes)}


def write(path: str, size_bytes: int) -> dict[str, Any]:
    with open(path, "wb") as file:
        file.write(b"x" * size_bytes)
    return {}


def crash() -> dict[str, Any]:
    os.write(2, b"famous last words")
    os.kill(os.getpid(), signal.SIGSEGV)
    return {}


def blunder() -> dict[str, Any]:
    raise KeyError("our mistake")


if __name__ == "__main__":
    serve({"echo": echo, "wait": wait, "spin": spin, "eat": eat, "write": write, "crash": crash, "blunder": blunder})
