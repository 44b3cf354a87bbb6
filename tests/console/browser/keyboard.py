"""A page as somebody uses it who has no mouse: with Tab from one control to the next, and the focus seen on each."""

from __future__ import annotations

from typing import Any

from playwright.async_api import Locator, Page, expect

MOST = 90
"""Stops on the way to a control: more than any page has."""
FOCUSED = """() => {
  const at = document.activeElement
  const seen = at.matches('.sr, .segmented input') ? at.labels[0] : at
  const style = getComputedStyle(seen)
  const box = seen.getBoundingClientRect()
  const over = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2)
  return {
    name: `${at.tagName}#${at.id}.${at.className} ${at.getAttribute('aria-label') ?? at.textContent}`.slice(0, 120),
    place: [box.x, box.y, box.width, box.height].map(Math.round).join(' '),
    below: over?.outerHTML.slice(0, 80),
    isNone: at === document.body || at === document.documentElement,
    isShown: parseFloat(style.outlineWidth) >= 2 && style.outlineStyle !== 'none',
    isInWindow: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
    isOnTop: over !== null && (seen.contains(over) || over.contains(seen)),
  }
}"""


async def focused(page: Page) -> dict[str, Any]:
    """Return what has the focus, and whether one sees that it has it."""
    found: dict[str, Any] = await page.evaluate(FOCUSED)
    return found


async def stop(page: Page, key: str = "Tab") -> dict[str, Any]:
    """Go one control on; whatever has the focus then shows it, in the window and under nothing else."""
    await page.keyboard.press(key)
    found = await focused(page)
    assert found["isNone"] or (found["isShown"] and found["isInWindow"] and found["isOnTop"]), f"{page.url}: {found}"
    return found


async def tab_to(page: Page, target: Locator, key: str = "Tab") -> None:
    """Go on until the target has the focus."""
    passed = []
    for _ in range(MOST):
        passed.append((await stop(page, key))["name"])
        if await target.evaluate("(element) => element === document.activeElement"):
            return
    raise AssertionError(f"{target} is not reached on {page.url}:\n" + "\n".join(passed))


async def press(page: Page, target: Locator, key: str = "Enter") -> None:
    """Go to a control, and use it."""
    await tab_to(page, target)
    await page.keyboard.press(key)


async def assert_holds_focus(page: Page, dialog: Locator) -> None:
    """Go round a dialog, and back: nothing behind it is reached but the browser's own bar, and nothing is a trap."""
    await expect(dialog).to_be_visible()
    controls = await dialog.locator("a, button, input, select, textarea, summary, [tabindex='0']").count()
    names = set()
    for key in ("Tab", "Shift+Tab"):
        for _ in range(controls + 2):
            found = await stop(page, key)
            inside = await dialog.evaluate("(element) => element.contains(document.activeElement)")
            assert inside or found["isNone"], f"outside of the dialog: {found}"
            names.add(found["name"])
    assert len(names) > 1
