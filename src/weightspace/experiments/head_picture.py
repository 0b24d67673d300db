"""A picture of a model's heads, layer by head: what is read from weights beside what running the model measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from weightspace.files.atomic import write_atomically

CELL, GAP, TOP, LEFT = 12, 26, 44, 30


def write_grid(read: Mapping[str, np.ndarray], measured: Mapping[str, np.ndarray], path: Path) -> None:
    """Write an SVG of two grids for each behaviour, on white so that it reads in dark mode too.

    Args:
        read, measured: (layers, heads) from 0 to 1, by behaviour.
    """
    names = list(read)
    layers, heads = read[names[0]].shape
    wide, high = heads * CELL, layers * CELL
    width = LEFT + len(names) * (2 * wide + CELL + GAP)
    height = TOP + high + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11" fill="#1b1f24">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for layer in range(0, layers, 5):
        parts.append(f'<text x="2" y="{TOP + high - layer * CELL - 2}">{layer}</text>')
    for place, name in enumerate(names):
        left = LEFT + place * (2 * wide + CELL + GAP)
        parts.append(f'<text x="{left}" y="16" font-weight="bold">{name}</text>')
        for grid, (title, scores) in enumerate((("read", read[name]), ("measured", measured[name]))):
            start = left + grid * (wide + CELL)
            parts.append(f'<text x="{start}" y="34">{title}</text>')
            parts += _cells(scores, start, TOP + high)
    parts.append("</svg>")
    write_atomically(path, "\n".join(parts).encode())


def _cells(scores: np.ndarray, left: int, bottom: int) -> Sequence[str]:
    """A square a head, darker for higher scores; layer 0 is at the bottom."""
    return [
        f'<rect x="{left + head * CELL}" y="{bottom - (layer + 1) * CELL}" width="{CELL - 1}" height="{CELL - 1}" '
        f'fill="{_colour(float(score))}"/>'
        for (layer, head), score in np.ndenumerate(scores)
    ]


def _colour(share: float) -> str:
    """From nearly white to dark blue."""
    low, high = np.array((238, 242, 246)), np.array((0, 70, 120))
    red, green, blue = (low + (high - low) * min(max(share, 0.0), 1.0)).astype(int).tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"
