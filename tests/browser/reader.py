"""Somebody at a browser: a window, and whatever its console and network complained of."""

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page, Request, Response

LEFT = "net::ERR_ABORTED"  # what was under way when the reader went to another page, and every download


class Reader:
    """A window of its own, with one page; `look` for the rest of Playwright."""

    def __init__(self, context: BrowserContext, has_scripts: bool = True) -> None:
        self.context = context
        self.has_scripts = has_scripts
        self.console: list[str] = []
        self._failures: list[str] = []
        self._expected: list[re.Pattern[str]] = []
        context.on("console", self._heard)
        context.on("weberror", lambda error: self._failures.append(f"script: {error.error}"))
        context.on("requestfailed", self._not_loaded)
        context.on("response", self._answered)
        self.page: Page = context.new_page()

    def expects(self, complaint: str) -> None:
        """Complaints with this pattern in them are what the test is about."""
        self._expected.append(re.compile(complaint))

    def complaints(self) -> list[str]:
        return [one for one in self._failures if not any(expected.search(one) for expected in self._expected)]

    def open(self, path: str) -> Response:
        """Go there; what the server answered. Curves are drawn by then, or it says why there are none."""
        answer = self.page.goto(path, wait_until="load")
        assert answer is not None
        if self.has_scripts and self.page.locator("#curves").count():
            self.page.locator("#curves:not(:empty)").wait_for()
        return answer

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def button(self, name: str | re.Pattern[str]) -> Locator:
        return self.page.get_by_role("button", name=name)

    def link(self, name: str | re.Pattern[str]) -> Locator:
        return self.page.get_by_role("link", name=name)

    def width_beyond_the_screen(self) -> int:
        """How many pixels the page can be scrolled sideways."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def focused(self) -> dict[str, Any]:
        """What has the focus: its element, text and how it is outlined."""
        return self.page.evaluate(FOCUSED)

    def leave_traces(self, folder: Path, name: str) -> None:
        (folder / f"{name}.txt").write_text("\n".join([*self.console, *self._failures]))
        for number, page in enumerate(self.context.pages):
            page.screenshot(path=folder / f"{name}-{number}.png", full_page=True)

    def _heard(self, message: ConsoleMessage) -> None:
        self.console.append(f"{message.type}: {message.text}")
        if message.type in ("error", "warning"):
            self._failures.append(f"console: {message.text}")

    def _not_loaded(self, request: Request) -> None:
        if request.failure != LEFT:
            self._failures.append(f"not loaded: {request.method} {request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self._failures.append(f"answered {response.status}: {response.request.method} {response.url}")


FOCUSED = """() => {
  const one = document.activeElement;
  const style = getComputedStyle(one);
  const box = one.getBoundingClientRect();
  const place = [...document.querySelectorAll("*")].indexOf(one);
  return {
    place, tag: one.tagName.toLowerCase(), id: one.id, name: one.getAttribute("name"),
    text: (one.innerText || one.value || one.getAttribute("aria-label") || "").trim(),
    outline: style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth),
    is_on_screen: box.width > 0 && box.height > 0 && box.right > 0 && box.bottom > 0 && box.left < innerWidth && box.top < innerHeight,
  };
}"""
