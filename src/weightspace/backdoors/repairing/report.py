"""The report of a repair as one HTML page, with the trigger that was found as a picture."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from weightspace import __version__
from weightspace.backdoors.repairing.file_repair import FileRepair, Outcome
from weightspace.files.atomic import write_atomically
from weightspace.pages.page import render_page

SIDE = 192
"""Pixels of a picture's longer side, about."""
KIND = {"patch": "a patch", "blend": "a picture over the whole image"}
"""Kinds of triggers in words."""


def write_report(outcome: Outcome, path: Path) -> None:
    """Write the page, whole or not at all. It loads nothing, as its own policy forbids it."""
    write_atomically(path, page(outcome).encode())


def write_json(found: FileRepair, path: Path) -> None:
    """Write the same facts for programs, whole or not at all."""
    write_atomically(path, json.dumps(found.to_json(), indent=1, allow_nan=False).encode())


def page(outcome: Outcome) -> str:
    """The text of the page."""
    found = outcome.found
    rows = [
        (name, number, [found.sizes[kind][number] for kind in found.sizes]) for number, name in enumerate(found.classes)
    ]
    largest = [max(sizes) or 1.0 for sizes in found.sizes.values()]
    return render_page(
        "weightspace.backdoors",
        "repair.html",
        found=found,
        kind=KIND[found.kind],
        kinds=list(found.sizes),
        rows=rows,
        largest=largest,
        pictures=pictures(outcome),
        version=__version__,
    )


def pictures(outcome: Outcome) -> list[tuple[str, str]]:
    """What each picture shows, and the picture as a `data:` address of a PNG."""
    trigger, example = outcome.trigger, outcome.example[None]
    which = torch.zeros(1, dtype=torch.long)
    grey = torch.zeros_like(example)  # the mean colour
    shown = {
        "the trigger, over the mean colour": outcome.classifier.pixels(trigger.on(grey, which))[0],
        "its opacity, from black for none to white for all": trigger.opacity[0].expand(3, -1, -1),
        "an image as it is": outcome.classifier.pixels(example)[0],
        "the same image with the trigger": outcome.classifier.pixels(trigger.on(example, which))[0],
    }
    return [(text, address(pixels)) for text, pixels in shown.items()]


def address(pixels: Tensor) -> str:
    """Pixels (channels, height, width) from 0 to 1 as a `data:` address of a PNG, each of them a square."""
    array = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    array = np.repeat(array, 3, 0) if len(array) == 1 else array
    factor = max(1, SIDE // max(array.shape[1:]))
    image = Image.fromarray(np.ascontiguousarray(np.moveaxis(array, 0, 2)))
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    content = io.BytesIO()
    image.save(content, "PNG")
    return f"data:image/png;base64,{b64encode(content.getvalue()).decode()}"
