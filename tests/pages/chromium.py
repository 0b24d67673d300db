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


@contextmanager
def opened(running: Any, file: Path, *, width: int = 1280, scheme: str = "light", fragment: str = "") -> Iterator[Any]:
    """A page in a window of its own; `page.faults` gathers errors, refusals of its policy and whatever it asks for.

    Args:
        scheme: `light` or `dark`.
        fragment: what stands behind the # of its address.
    """
    context = running.new_context(
        viewport={"width": width, "height": WIDTHS[width]}, color_scheme=scheme, has_touch=width < 600
    )
    page = context.new_page()
    page.faults = []
    page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    address = file.resolve().as_uri()

    def asked(request: Any) -> None:
        if not request.url.startswith((address, "data:")):
            page.faults.append(f"it asks for {request.url}")

    page.on("request", asked)
    page.goto(f"{address}#{fragment}" if fragment else address)
    yield page
    context.close()


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
