"""axe-core on a page: WCAG 2.0 to 2.2, levels A and AA, and best practice. Its file is vendored; nothing is fetched."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

from playwright.async_api import Page

SCRIPT = Path(__file__).parents[1] / "vendor" / "axe.min.js"
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
"""Targets of at least 24 by 24 pixels are of the last level, landmarks and the order of headings of best practice."""
SHOWN_NODES = 5
RUN = """async (levels) => {
  const found = await axe.run(document, { runOnly: { type: 'tag', values: levels }, resultTypes: ['violations'] })
  return found.violations.map(({ id, impact, help, nodes }) => ({
    id, impact, help, nodes: nodes.map((node) => [node.target.join(' '), node.html.slice(0, 200), node.failureSummary])
  }))
}"""


@cache
def _script() -> str:
    return SCRIPT.read_text()


async def violations(page: Page, but: Collection[str] = ()) -> list[str]:
    """Return one text for each rule (not of ``but``) that the page breaks, with the elements that break it."""
    if not await page.evaluate("() => 'axe' in window"):
        await page.evaluate(_script())
    return [_told(rule) for rule in await page.evaluate(RUN, LEVELS) if rule["id"] not in but]


def _told(rule: dict[str, Any]) -> str:
    lines = [f"{rule['id']} ({rule['impact']}): {rule['help']}, {len(rule['nodes'])} times"]
    for target, html, summary in rule["nodes"][:SHOWN_NODES]:
        lines += [f"  {target}", f"    {html}", *(f"    {line.strip()}" for line in summary.splitlines()[1:])]
    return "\n".join(lines)
