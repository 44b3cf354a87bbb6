"""``mediagate tour``: three files, their costs, and the ledger that agrees."""

from __future__ import annotations

import re

import psutil
import pytest
from PIL import Image

from tests.embedded.gateways import free_port, mediagate, started

LINE = r"^(tour/\S+) .* (\d+)$"


def check(folder, output: str) -> None:
    costs = dict(re.findall(LINE, output, re.MULTILINE))
    assert list(costs) == ["tour/image.png", "tour/edit.png", "tour/video.mp4"]
    for name in ("image.png", "edit.png"):
        with Image.open(folder / "tour" / name) as image:
            assert image.size == (1024, 1024)
    assert (folder / "tour" / "video.mp4").read_bytes()[4:8] == b"ftyp"
    total = sum(map(int, costs.values()))
    assert f"{10_000 - total} credits are left, 0 are held." in output


@pytest.mark.timeout(240)
def test_it_starts_a_gateway_where_none_runs_and_stops_it_again(tmp_path):
    port = free_port()

    done = mediagate("tour", "--port", str(port), "--data", tmp_path / "data", cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    check(tmp_path, done.stdout)
    assert not (tmp_path / "data" / "instance.json").exists()
    left = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert not any(str(tmp_path) in word for words in left for word in words)


@pytest.mark.timeout(240)
def test_it_uses_the_gateway_that_runs(tmp_path):
    with started(tmp_path) as gateway:
        done = mediagate("tour", cwd=tmp_path, MEDIAGATE_DATA=str(gateway.data))

        assert done.returncode == 0, done.stdout + done.stderr
        assert f"Using the gateway at http://127.0.0.1:{gateway.port}" in done.stdout
        check(tmp_path, done.stdout)
        assert gateway.status("/readyz") == 200


def test_a_gateway_that_cannot_start_is_reported_in_its_own_words(tmp_path):
    (tmp_path / "file").write_text("")

    done = mediagate("tour", "--port", str(free_port()), "--data", tmp_path / "file" / "data", cwd=tmp_path)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "cannot be used" in done.stderr
