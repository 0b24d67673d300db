"""A browser for the tests of pages, and a decompilation to look at in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pages import chromium


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The system's Chromium, headless; a test that asks for it is skipped, with the reason, where there is none."""
    reason = chromium.missing()
    if reason:
        pytest.skip(reason)
    with chromium.browser() as running:
        yield running


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pages of a session stand."""
    return tmp_path_factory.mktemp("pages")
