"""The golden files, which are no part of the repository: programs and weights of real Tracr, found or skipped."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "WEIGHTSPACE_GOLDEN"


def golden_path(name: str) -> Path:
    """Where a golden file lies; the test is skipped where there is none."""
    folder = Path(os.environ.get(VARIABLE) or Path(__file__).parents[2] / "shared" / "golden")
    if not (folder / name).is_file():
        pytest.skip(f"no golden file {name}: {VARIABLE} is unset and ../shared/golden has none")
    return folder / name


def golden(name: str) -> list[dict[str, Any]]:
    """The records of a golden file, such as `tracr_random.json`; the test is skipped where there is none."""
    return json.loads(_text(golden_path(name)))


@cache
def _text(path: Path) -> str:
    return path.read_text()
