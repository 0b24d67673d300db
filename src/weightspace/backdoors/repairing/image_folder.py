"""Clean images from a folder: one folder a class, or all in one place where their classes are not known."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from weightspace.errors import WeightspaceError, printable

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
"""Names of files that are taken for images."""
LEAST = 10
"""Images without which nothing can be repaired."""
MOST_PIXELS = 2**22
"""Pixels of the largest image that is opened."""
SHOWN = 4


class ImagesError(WeightspaceError):
    """A folder of images that cannot be used."""


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Images as they lie in a folder.

    Attributes:
        pixels: (n, channels, height, width) float32 from 0 to 1.
        labels: (n,) int64, the place of each image's folder among all; None where the images lie in one place.
        classes: names of the folders, in the order of the classes; empty where there are none.
    """

    pixels: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)


def read_image_folder(folder: str | Path) -> ImageFolder:
    """The images below a folder: those of each folder in it are a class. Folders that are all numbers are in the
    order of these, others in that of their names, as torchvision has them. Hidden files and files that are no images by
    their names are passed over.

    Raises:
        ImagesError: if there is no image or hardly any, one cannot be read, or two differ in size or channels.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is not there"
        raise ImagesError(f"--images {folder} {what}: name a folder of images")
    names = _ordered(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    loose = _files(folder)
    filled = {name: _files(folder / name) for name in names}
    filled = {name: files for name, files in filled.items() if files}
    if loose and filled:
        raise ImagesError(
            f"{folder} holds images beside folders of images: put each image into the folder of its class, or all of "
            "them into one folder"
        )
    files = loose or [file for inside in filled.values() for file in inside]
    if len(files) < LEAST:
        found = f"only {len(files)} image{'s' * (len(files) != 1)}" if files else "no image"
        raise ImagesError(f"{folder} holds {found}: give {LEAST} or more ({', '.join(SUFFIXES[:3])}), or no --images")
    labels = None if loose else np.repeat(np.arange(len(filled)), [len(inside) for inside in filled.values()])
    return ImageFolder(_stacked(files), labels, () if loose else tuple(filled))


def _ordered(names: Iterable[str]) -> list[str]:
    known = list(names)
    return sorted(known, key=int) if all(name.isdecimal() for name in known) else sorted(known)


def _files(folder: Path) -> list[Path]:
    inside = {p.name: p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")}
    return [inside[name] for name in sorted(inside) if inside[name].is_file()]


def _stacked(files: list[Path]) -> np.ndarray:
    """(n, channels, height, width) of files that are all alike."""
    read = []
    for file in files:
        image = _read(file)
        if read and image.shape != read[0].shape:
            sizes = " and ".join(f"{x.shape[1]}x{x.shape[2]} with {x.shape[0]} channels" for x in (read[0], image))
            raise ImagesError(f"{files[0]} and {file} differ: {sizes}; give images of one size")
        read.append(image)
    return np.stack(read).astype(np.float32) / 255


def _read(file: Path) -> np.ndarray:
    """(channels, height, width) uint8."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                if opened.width * opened.height > MOST_PIXELS:
                    raise ImagesError(
                        f"{file} has {opened.width}x{opened.height} pixels, more than any network here takes"
                    )
                grey = opened.mode in ("1", "L", "LA")
                pixels = np.asarray(opened.convert("L" if grey else "RGB"), np.uint8)
    except ImagesError:
        raise
    except Exception as error:  # Pillow raises whatever its decoders do
        why = printable(" ".join(str(error).split())[:100])
        raise ImagesError(f"{file} cannot be read as an image ({type(error).__name__}: {why})") from None
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
