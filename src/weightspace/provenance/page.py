"""What a network was trained on, as a person reads it: lines in a terminal, and one HTML file by itself."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from pathlib import Path

import numpy as np

from weightspace import __version__
from weightspace.files.atomic import write_atomically
from weightspace.pages.page import render_page
from weightspace.provenance.answer import STRANGE, Provenance

BLUE, ORANGE, PAPER = (np.array(colour, float) for colour in ((0, 114, 178), (213, 94, 0), (246, 247, 249)))
"""Of pixels that lower an answer, that raise it, and that do neither."""


def provenance_text(found: Provenance) -> str:
    """What was found, in lines."""
    lines = [f"{found.network}: {verdict(found)}"]
    for one in found.classes:
        bar = "#" * round(20 * one.value)
        lines.append(f"  {one.name:<12} {100 * one.value:5.1f}%  {bar}")
    lines.append(f"  outputs      {', '.join(found.outputs)} (in their order, the likeliest)")
    lines.append(f"  typicality   {_typical(found)}")
    lines.append(f"  compared     with {found.compared}")
    return "\n".join([*lines, *(f"  note         {note}" for note in found.notes)])


def verdict(found: Provenance) -> str:
    """One sentence."""
    if not found.typical:
        return "unlike the networks that the reader knows, so what follows means little"
    if found.question == "proportions":
        first = ", ".join(one.name for one in found.classes[:3])
        return f"trained on {found.images}, most of it {first}"
    likely = [one.name for one in found.classes if one.value >= 0.5]
    return f"trained on {', '.join(likely) or 'no class that can be told'} of {found.images}"


def _typical(found: Provenance) -> str:
    word = (
        "like its training networks" if found.typical else f"below {STRANGE:g}: an untrained network, or a foreign one"
    )
    return f"p = {found.p_value:.3f} ({word})"


def write_page(found: Provenance, path: Path) -> None:
    """One HTML file with the answer, and a picture for each output."""
    pictures = [
        (number, name, _picture(template))
        for number, (name, template) in enumerate(zip(found.outputs, found.templates, strict=True), 1)
    ]
    text = render_page(
        "weightspace.provenance",
        "page.html",
        found=found,
        verdict=verdict(found),
        typical=_typical(found),
        pictures=pictures,
        version=__version__,
    )
    write_atomically(path, text.encode())


def _picture(template: np.ndarray, scale: int = 8) -> str:
    """A template as a data URI: orange brightens the answer, blue darkens it."""
    from PIL import Image

    largest = float(np.abs(template).max()) or 1.0
    share = np.clip(template / largest, -1, 1)[..., None]
    colours = PAPER + np.where(share > 0, share * (ORANGE - PAPER), -share * (BLUE - PAPER))
    image = Image.fromarray(np.round(colours).astype(np.uint8)).resize(
        (scale * template.shape[1], scale * template.shape[0]), Image.Resampling.NEAREST
    )
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + b64encode(buffer.getvalue()).decode()
