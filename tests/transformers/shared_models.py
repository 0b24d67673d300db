"""The GPT-2s that the authors of a paper trained and shared, where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared_models() -> Path:
    """Their folder, beside the repository or below WEIGHTSPACE_DATA; the test is skipped where there is none."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("WEIGHTSPACE_DATA", beside)) / "trained_gpt2"
    if not (folder / "index.json").is_file():
        pytest.skip(f"no trained models in {folder}: set WEIGHTSPACE_DATA to a folder that holds trained_gpt2")
    return folder
