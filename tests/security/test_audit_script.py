"""`.ci/audit` tells "nothing known" from "nobody was asked", and can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FINE = {"name": "aiohttp", "version": "3.14.5", "vulns": []}
WEAK = {"name": "pillow", "version": "13.0", "vulns": [{"id": "CVE-2026-1", "fix_versions": ["13.1"]}]}
UNKNOWN = {"name": "yarl", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "errors", "code", "said"),
    [
        ([FINE], "", 0, "1 packages, no known weakness"),
        ([FINE, WEAK], "", 1, "pillow 13.0: CVE-2026-1, fixed in 13.1"),
        ([UNKNOWN, WEAK], "", 1, "pillow 13.0: CVE-2026-1, fixed in 13.1"),
        ([UNKNOWN], "No known vulnerabilities found", 0, "not audited: the advisory service cannot be reached"),
        ([FINE, UNKNOWN], "", 1, "not audited, as the advisory service does not know them: yarl"),
        (
            None,
            "requests.exceptions.ConnectionError: no route",
            0,
            "not audited: the advisory service cannot be reached",
        ),
        (None, "error: bad option", 2, "pip-audit failed with 3: error: bad option"),
    ],
)
def test_each_outcome_has_its_exit_code(
    tmp_path: Path, packages: list[object] | None, errors: str, code: int, said: str
) -> None:
    answer = "" if packages is None else json.dumps({"dependencies": packages})
    exit_code = 3 if packages is None else int(WEAK in packages)
    fake = tmp_path / "pip-audit"
    fake.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"print({answer!r})\nprint({errors!r}, file=sys.stderr)\nsys.exit({exit_code})\n"
    )
    fake.chmod(0o755)

    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "audit"), str(fake), "requirements.lock"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done
