"""Adapters (LoRA): changes to a network's weights, known by the names of their arrays; no network by themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from weightspace.errors import UnreadableError, printable
from weightspace.files.json_text import json_object
from weightspace.files.kinds import open_regular

_LORA = re.compile(r"(^|[._])(lora_(A|B|up|down|embedding_A|embedding_B)|lora_[AB]\.\w+)([._]|$)")
LARGEST_CONFIG = 2**20
"""Bytes of the longest adapter_config.json that is read."""


def adapter_note(path: Path, names: Iterable[str]) -> str | None:
    """What is said of a file whose arrays are an adapter's, with the network that it is for; None of any other."""
    if not any("lora_" in name and _LORA.search(name) for name in names):
        return None
    base = _base(path.with_name("adapter_config.json"))
    return (
        f"It is an adapter (LoRA){f' of {base}' if base else ''}: changes to the weights of another network, "
        "and no network by itself."
    )


def _base(config: Path) -> str | None:
    """The name of the network that an adapter is for, as its configuration says."""
    try:
        with open_regular(config) as file:
            said = json_object(file.read(LARGEST_CONFIG)).get("base_model_name_or_path")
    except (UnreadableError, ValueError, OSError):
        return None
    if not isinstance(said, str) or not said:
        return None
    return printable(said[:100])
