"""Pools of limited child processes for work on bytes we do not trust, and for work that would block the event loop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from typing import IO, Any

MIB = 1024 * 1024
CALLS_PER_CHILD = 200  # then it is replaced: what a library leaked goes with it
ANSWER_BYTES = 4 * MIB
STDERR_BYTES = 2000
CLOSE_WAIT_S = 2.0


class ChildFailed(Exception):
    """A call that a child did not answer well.

    ``reason`` is ``timeout`` (wall time), ``cpu``, ``memory``, ``crashed`` (it died by itself or was killed by
    somebody else), ``room`` (the disk is full), ``error`` (the operation raised: our mistake) or ``closed`` (the pool
    was closed meanwhile).
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class ChildPool:
    """At most ``size`` children running ``python -m <module>``, each working on one call at a time.

    A child starts when it is first needed and stays. It dies with this process, however that dies; it is killed when
    a call takes too long or its caller is cancelled, and replaced at the next call. ``memory_bytes`` limits its
    address space, ``cpu_s`` the CPU time of one call, ``file_bytes`` each file it writes.

    Belongs to one event loop.
    """

    def __init__(
        self,
        module: str,
        *,
        size: int,
        memory_bytes: int | None,
        cpu_s: int | None,
        file_bytes: int = 512 * MIB,
    ) -> None:
        self._module = module
        self._limits = {"memory_bytes": memory_bytes, "cpu_s": cpu_s, "file_bytes": file_bytes}
        self._room = asyncio.Semaphore(size)
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def call(self, op: str, *, timeout_s: float, **args: Any) -> dict[str, Any]:
        """Run one operation of the module; ``timeout_s`` is wall time from when a child is free.

        Raises: ChildFailed.
        """
        async with self._room:
            child = await self._take()
            self._busy.add(child)
            try:
                async with asyncio.timeout(timeout_s):
                    answer = await child.ask(op, args)
                if answer is None:
                    raise await self._explain(child, op)
            except TimeoutError:
                self._kill(child)
                raise ChildFailed("timeout", f"{op} took more than {timeout_s:g} s") from None
            except BaseException:  # above all a cancelled caller: a half-read child must not serve the next one
                self._kill(child)
                raise
            finally:
                self._busy.discard(child)
            if self._closed or child.calls >= CALLS_PER_CHILD or "failed" in answer:
                self._retire(child)
            else:
                self._idle.append(child)
        if "failed" in answer:
            raise ChildFailed(answer["failed"], answer["detail"])
        done: dict[str, Any] = answer["done"]
        return done

    def pids(self) -> list[int]:
        """The children alive now, for diagnosis."""
        return [child.process.pid for child in (*self._idle, *self._busy) if child.process.returncode is None]

    async def close(self) -> None:
        """End every child; calls in flight raise ChildFailed("closed"). May be called twice."""
        self._closed = True
        for child in self._busy:
            self._kill(child)  # whoever waits for it sees the end of its answers
        while self._idle:
            self._retire(self._idle.pop())
        if self._ending:
            await asyncio.wait(self._ending)

    async def _take(self) -> _Child:
        while self._idle and not self._closed:
            child = self._idle.pop()  # the one used last: its libraries are loaded
            if child.process.returncode is None:
                return child
            self._retire(child)
        if not self._closed:
            child = await _Child.start(self._module, self._limits)
            if not self._closed:
                return child
            self._kill(child)
        raise ChildFailed("closed")

    async def _explain(self, child: _Child, op: str) -> ChildFailed:
        """Name the reason of a child that went away instead of answering."""
        code = await child.process.wait()
        if self._closed:
            return ChildFailed("closed", op)
        if code == -signal.SIGXCPU:
            return ChildFailed("cpu", op)
        return ChildFailed("crashed", f"{op}: the child ended with {code}. {child.last_words()}".strip())

    def _kill(self, child: _Child) -> None:
        if child.process.returncode is None:
            child.process.kill()
        self._retire(child)

    def _retire(self, child: _Child) -> None:
        """Let a child end by closing its stdin; it is waited for in the background, and by ``close``."""
        if child.is_ending:
            return
        child.is_ending = True
        task = asyncio.create_task(child.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class _Child:
    """One process and its pipes."""

    def __init__(self, process: Process, stderr: IO[bytes]) -> None:
        self.process = process
        # Pipes, because start() asks for them.
        self._stdin: asyncio.StreamWriter = process.stdin  # type: ignore[assignment]
        self._stdout: asyncio.StreamReader = process.stdout  # type: ignore[assignment]
        self.calls = 0
        self.is_ending = False
        self._reading = asyncio.Lock()
        self._stderr = stderr

    @classmethod
    async def start(cls, module: str, limits: dict[str, int | None]) -> _Child:
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                json.dumps(limits | {"parent": os.getpid()}),
                stdin=PIPE,
                stdout=PIPE,
                stderr=stderr,
                limit=ANSWER_BYTES,
                start_new_session=True,  # a Ctrl-C in the terminal is for us, not for them
            )
        except BaseException:
            stderr.close()
            raise
        return cls(process, stderr)

    async def ask(self, op: str, args: dict[str, Any]) -> dict[str, Any] | None:
        """Send one call and read its answer; None when the child went away."""
        self.calls += 1
        try:
            self._stdin.write(json.dumps({"op": op, "args": args}).encode() + b"\n")
            await self._stdin.drain()
            async with self._reading:
                line = await self._stdout.readline()
        except ConnectionError:
            return None
        if not line.endswith(b"\n"):
            return None
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def end(self) -> None:
        """Wait until the child has left and its pipes are closed, helping it after two seconds."""
        self._stdin.close()
        try:
            async with asyncio.timeout(CLOSE_WAIT_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        finally:
            self._stderr.close()
        async with self._reading:
            await self._stdout.read()

    def last_words(self) -> str:
        if self._stderr.closed:
            return ""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - STDERR_BYTES))
        return self._stderr.read().decode(errors="replace").strip()
