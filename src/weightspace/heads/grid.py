"""Every head of a model as one letter, layer by head: what it does, as read from weights and as measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weightspace.heads.behaviour import THRESHOLDS, Behaviour, HeadBehaviour
from weightspace.heads.reading import HeadReading

LETTERS: dict[Behaviour, str] = {
    "previous": "P",
    "induction": "I",
    "duplicate": "D",
    "current": "C",
    "local": "L",
    "sink": "S",
}
"""Where a head attends to; what it does with what it reads there is another question."""
NONE = "."
Grid = tuple[str, ...]
"""A text of letters for each layer, the first layer first."""


def grid_read(found: HeadReading) -> Grid:
    """What the reader says."""
    heads = len(found.heads) // found.layers
    letters = [_letter(head.scores, dict.fromkeys(LETTERS, 0.5)) for head in found.heads]
    return tuple("".join(letters[layer * heads : (layer + 1) * heads]) for layer in range(found.layers))


def grid_measured(found: HeadBehaviour) -> Grid:
    """What running the model has shown."""
    layers, heads, _ = found.scores.shape
    scores = {name: found.of(name).tolist() for name in LETTERS}
    return tuple(
        "".join(
            _letter({name: table[layer][head] for name, table in scores.items()}, THRESHOLDS) for head in range(heads)
        )
        for layer in range(layers)
    )


def agreeing(one: Grid, other: Grid) -> int:
    """Heads with the same letter."""
    return sum(a == b for ours, theirs in zip(one, other, strict=True) for a, b in zip(ours, theirs, strict=True))


def grid_text(read: Grid, measured: Grid) -> str:
    """Both side by side, the last layer on top, with what the letters mean and how many agree."""
    wide = max(len("read"), 2 * len(read[0]) - 1)
    lines = [f"layer   {'read':<{wide}}   measured"]
    for layer in reversed(range(len(read))):
        lines.append(f"{layer:>5}   {' '.join(read[layer]):<{wide}}   {' '.join(measured[layer])}")
    heads = sum(map(len, read))
    meaning = ", ".join(f"{letter} {name}" for name, letter in LETTERS.items())
    return "\n".join([*lines, "", f"{meaning}, {NONE} none", f"{agreeing(read, measured)} of {heads} heads agree"])


def _letter(scores: Mapping[Any, float], thresholds: Mapping[Any, float]) -> str:
    """Of the behaviour that lies highest above its threshold; none where no score reaches its own."""
    above: dict[Behaviour, float] = {name: scores[name] / thresholds[name] for name in LETTERS if name in scores}
    best = max(above, key=lambda name: above[name])
    return LETTERS[best] if above[best] >= 1 else NONE
