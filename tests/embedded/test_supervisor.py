"""Children are kept alive, their lines merged, and stopped in order."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from contextlib import suppress

import pytest

from app.embedded.process import Server, ServerFailed, is_running, spawn
from app.embedded.supervisor import Backoff, LogStream, Program, Supervisor
from tests.embedded.owners import all_end, eventually, owner_of

FOREVER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)

PARENT = f"""
import sys, time
from app.embedded.supervisor import Program
child = Program("child", [sys.executable, "-c", {FOREVER!r}], env={{}}, stop_s=1)
child.start()
print(child.pid, flush=True)
time.sleep(600)
"""


def program(name: str = "child", code: str = FOREVER, *, stop_s: float = 10, **more: object) -> Program:
    return Program(name, [sys.executable, "-c", code], env={}, stop_s=stop_s, **more)


class Said(list[str]):
    """What the supervisor said."""

    def __call__(self, line: str) -> None:
        self.append(line)


def test_the_delay_doubles_to_its_cap_and_is_forgotten_after_a_healthy_run():
    backoff = Backoff()

    delays = [backoff.after(ran_s=1) for _ in range(7)]

    assert delays == [0.5, 1, 2, 4, 8, 10, 10]
    assert backoff.after(ran_s=30) == 0.5
    assert backoff.after(ran_s=29.9) == 1


def test_a_killed_child_is_started_again_and_both_are_said():
    said = Said()
    with Supervisor(say=said) as supervisor:
        child = program("api")
        supervisor.start(child)
        first = child.pid

        os.kill(first, signal.SIGKILL)
        supervisor.watch(until=lambda: child.is_alive and child.pid != first)

        assert is_running(child.pid)
        assert said[:2] == [
            "api was ended by SIGKILL. Starting it again in 0.5 s.",
            f"api runs again (process {child.pid}).",
        ]
    assert not is_running(child.pid)


def test_a_server_that_cannot_start_again_is_tried_later():
    class Flaky(Server):
        title = "flaky"
        starts = 0

        def start(self) -> None:
            self.starts += 1
            if self.starts == 2:
                raise ServerFailed("flaky did not start: no reason")
            self._spawn([sys.executable, "-c", FOREVER])

    said = Said()
    with Supervisor(say=said) as supervisor:
        server = Flaky()
        supervisor.start(server)
        os.kill(server.pid, signal.SIGKILL)

        supervisor.watch(until=lambda: server.starts == 3)

    assert "flaky did not start: no reason" in said
    assert any("in 1.0 s" in line for line in said)


def test_children_stop_in_the_reverse_order_of_their_start():
    said = Said()
    with Supervisor(say=said) as supervisor:
        for name in ("postgres", "valkey", "worker", "api"):
            supervisor.start(program(name))

    assert said == [f"Stopping {name} ..." for name in ("api", "worker", "valkey", "postgres")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_watch_and_the_handlers_are_put_back(number):
    before = signal.getsignal(number)
    with Supervisor(say=Said()) as supervisor:
        child = program()
        supervisor.start(child)

        os.kill(os.getpid(), number)
        supervisor.watch()

        assert supervisor.must_stop
    assert not is_running(child.pid)
    assert signal.getsignal(number) == before


def test_a_second_signal_does_not_wait_for_unfinished_work():
    child = program(code=STUBBORN, stop_s=600, sink=(lines := Said()))
    with Supervisor(say=Said()) as supervisor:
        supervisor.start(child)
        eventually(lambda: "up" in lines)

        os.kill(os.getpid(), signal.SIGTERM)
        supervisor.watch()
        os.kill(os.getpid(), signal.SIGTERM)

    assert child.exit_status == -signal.SIGKILL


def test_a_child_that_does_not_obey_is_killed():
    child = program(code=STUBBORN, stop_s=0.2, sink=(lines := Said()))
    child.start()
    eventually(lambda: "up" in lines)

    child.stop()

    assert child.exit_status == -signal.SIGKILL


def test_what_dies_before_it_ever_worked_is_not_restarted():
    with Supervisor(say=Said()) as supervisor:
        supervisor.start(program("api", "raise SystemExit(3)"))

        with pytest.raises(ServerFailed, match=r"^api ended with status 3\.$"):
            supervisor.wait_until(lambda: False, timeout_s=30)


def test_what_never_gets_ready_is_given_up():
    with Supervisor(say=Said()) as supervisor:
        supervisor.start(program("api"))

        with pytest.raises(ServerFailed, match="was not ready within 0 s"):
            supervisor.wait_until(lambda: False, timeout_s=0.1)


def test_a_child_dies_with_its_killed_parent(tmp_path):
    with owner_of(tmp_path, PARENT) as (owner, pids):
        assert is_running(pids[0])

        owner.kill()

        assert all_end(pids, timeout_s=10)


def test_children_are_started_from_the_main_thread_only():
    failures: list[BaseException] = []

    def start() -> None:
        try:
            spawn([sys.executable, "-c", ""])
        except RuntimeError as error:
            failures.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()

    assert "main thread" in str(failures[0])


def test_every_line_carries_the_name_of_its_writer():
    text = io.StringIO()
    stream = LogStream(text)

    for name in ("api", "worker"):
        child = program(name, "print('one'); print('two')", sink=stream.sink(name))
        child.start()
        eventually(lambda child=child: not child.is_alive)
        child.stop()

    assert text.getvalue().splitlines() == ["api      | one", "api      | two", "worker   | one", "worker   | two"]


def test_a_reader_that_went_away_does_not_block_the_children():
    reader, writer = os.pipe()
    os.close(reader)
    pipe = os.fdopen(writer, "w")
    stream = LogStream(pipe)
    child = program(code="for _ in range(100_000): print('a line')", sink=stream.sink("api"))

    child.start()
    eventually(lambda: not child.is_alive)

    assert child.exit_status == 0
    assert stream.is_broken
    child.stop()
    with suppress(BrokenPipeError):  # it still holds the line nobody read
        pipe.close()
