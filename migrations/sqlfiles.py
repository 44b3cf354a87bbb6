"""Runs the readable SQL files of ``migrations/sql/`` inside a revision's transaction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

FOLDER = Path(__file__).parent / "sql"


def run(*names: str) -> None:
    """Run whole files, each of many statements: only the driver's own connection takes those."""
    connection = op.get_bind()
    connection.exec_driver_sql("SELECT 1")  # opens the transaction the files then run in
    for name in names:
        script = (FOLDER / name).read_text()

        async def execute(driver: Any, script: str = script) -> None:
            await driver.execute(script)

        connection.connection.dbapi_connection.run_async(execute)  # type: ignore[union-attr]
