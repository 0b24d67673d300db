"""A browser for the tests of pages, and a decompilation to look at in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages import chromium


@pytest.fixture(scope="session")
def browser() -> Iterator[chromium.Windows]:
    """The system's Chromium, headless; a test that asks for it is skipped, with the reason, where there is none."""
    reason = chromium.missing()
    if reason:
        pytest.skip(reason)
    with chromium.browser() as running:
        yield chromium.Windows(running)


@pytest.fixture
def windows(browser: chromium.Windows) -> Iterator[chromium.Windows]:
    """Windows in which no page may have an error, be refused something by its policy, or ask for anything."""
    browser.faults.clear()
    yield browser
    assert not browser.faults


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pages of a session stand."""
    return tmp_path_factory.mktemp("pages")
