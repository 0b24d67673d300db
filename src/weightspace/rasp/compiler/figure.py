"""Figures: the colours and letters of every picture of a program, and the files that they are written to."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

from weightspace.errors import RaspError
from weightspace.files.atomic import write_atomically

FORMATS = ("png", "svg")
# Blue and orange of Okabe and Ito's palette, as in the reports: told apart with every kind of colour blindness.
COLOURS = {
    "ink": "#1b1f24",
    "muted": "#59636e",
    "line": "#aab2bb",
    "accent": "#0072b2",
    "second": "#d55e00",
    "input": "#dcebf5",
    "selector": "#fbe6d8",
    "paper": "#ffffff",
}
FONT = "DejaVu Sans Mono"
"""It comes with matplotlib; all its letters are equally wide, so that boxes can be made to fit."""
LETTER = 0.602 / 72
"""Width of a letter in inches, for each point of its size."""
MOST_PIXELS = 20_000
"""On the longer side of a PNG; larger pictures are drawn with fewer dots an inch."""


def write_text(axes: Any, x: float | int, y: float, text: str, size: float | int, **style: Any) -> None:
    """Write into axes, centred unless `style` says otherwise, above all that is drawn there."""
    usual = {"ha": "center", "va": "center_baseline", "color": COLOURS["ink"], "family": FONT}
    # a dollar sign in a token is no mathematics
    axes.text(x, y, text, fontsize=size, parse_math=False, zorder=3, **(usual | style))


def picture_format(path: Path) -> str:
    """The format of a picture by the name of its file.

    Raises:
        RaspError: if it is none of `FORMATS`.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise RaspError(f"a picture is a .png or .svg file, not {path.name!r}: call it {path.stem or 'picture'}.png")
    return suffix


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG or SVG, by the name of the file; the same figure gives the same bytes.

    Raises:
        RaspError: if the name is of no such format.
    """
    from matplotlib import rc_context

    kind, out = picture_format(path), io.BytesIO()
    silent = {"Software": None} if kind == "png" else {"Date": None, "Creator": None, "Format": None, "Type": None}
    # texts stay texts, so that a picture can be searched
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "weightspace"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a letter that the font lacks is drawn as a box
        figure.savefig(out, format=kind, dpi=min(150.0, MOST_PIXELS / max(figure.get_size_inches())), metadata=silent)
    write_atomically(path, out.getvalue())
