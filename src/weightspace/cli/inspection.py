"""The verb that says what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path

from weightspace.cli.arguments import Positional
from weightspace.cli.output import say, say_json


def inspect(files: Positional[tuple[Path, ...]], json: bool = False) -> int:
    """Say what checkpoints hold, without a verdict: kind, hash, arrays, metadata, and how they could be connected.

    Nothing in a file is executed. Exit status 0, or 3 if a file could not be read or was refused; 2 is wrong usage.

    Args:
        files: checkpoints of any kind that is read.
        json: print JSON: an object for each file, with every array.

    Examples:
        weightspace inspect model.safetensors
        weightspace inspect one.pt two.onnx --json
    """
    from weightspace.weights.inspection import described
    from weightspace.weights.inspection import inspect as look

    if not files:
        raise ValueError("nothing to look at: name at least one file")
    found = [look(file) for file in files]
    say_json([one.to_json() for one in found]) if json else say("\n\n".join(map(described, found)))
    return 3 if any(one.problem for one in found) else 0
