"""A headless Chromium that the tests of pages drive: the system's own, by Playwright; and what is wrong with a page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL = "install your system's chromium (apt-get install chromium), or name one in WEIGHTSPACE_CHROMIUM"
WIDTHS = {1280: 900, 390: 844}
"""Width of the window to its height: a desk, and a telephone."""


def missing() -> str:
    """Why no browser can be driven here; empty if one can."""
    try:
        import axe_playwright_python  # noqa: F401
        import playwright  # noqa: F401
    except ImportError as error:
        return f"{error}: pip install playwright axe-playwright-python"
    return "" if executable() else f"there is no Chromium: {INSTALL}"


def executable() -> str | None:
    """The browser that the system has."""
    named = os.environ.get("WEIGHTSPACE_CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Any]:
    """A running browser, closed afterwards."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # Without a sandbox, as containers of CI have none to offer; it opens our own pages only
        running = driver.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        yield running
        running.close()


class Windows:
    """Two windows of a running browser, of a desk and of a telephone, in which one page after the other is opened.

    Attributes:
        faults: errors, refusals of a page's policy, and whatever a page asks for beside itself, of all pages so far.
    """

    def __init__(self, running: Any) -> None:
        self.faults: list[str] = []
        self._running, self._windows, self._address = running, {}, ""

    def open(self, file: Path, *, width: int = 1280, scheme: str = "light", fragment: str = "", ready: str = "") -> Any:
        """A page, freshly loaded.

        Args:
            scheme: `light` or `dark`.
            fragment: what stands behind the # of its address.
            ready: a selector that is waited for.
        """
        touch = width < 600
        if touch not in self._windows:
            self._windows[touch] = self._running.new_page(has_touch=touch)
            self._listen(self._windows[touch])
        page = self._windows[touch]
        page.goto("about:blank")  # else another fragment would not load the page again
        page.set_viewport_size({"width": width, "height": WIDTHS[width]})
        page.emulate_media(color_scheme=scheme)
        self._address = file.resolve().as_uri()
        page.goto(f"{self._address}#{fragment}" if fragment else self._address)
        if ready:
            page.wait_for_selector(ready)
        return page

    def _listen(self, page: Any) -> None:
        def asked(request: Any) -> None:
            if not request.url.startswith((self._address, "data:", "about:")):
                self.faults.append(f"it asks for {request.url}")

        page.on("console", lambda message: self.faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", asked)
        page.set_default_timeout(120_000)  # a busy machine is no fault


def violations(page: Any) -> list[str]:
    """What axe-core finds wrong with a page, a line each: the rule, and the first element that breaks it."""
    from axe_playwright_python.base import AXE_FILE_PATH

    # A debugger's evaluation is not held to the page's policy, so that it need not be loosened for the test
    page.evaluate(AXE_FILE_PATH.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}" for one in found["violations"]]


def overflow(page: Any) -> int:
    """CSS pixels by which a page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
