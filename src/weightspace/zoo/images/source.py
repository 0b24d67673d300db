"""Where an image set comes from: its files with their official addresses and checksums, and how they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class ImageFile:
    """A file of an image set.

    Attributes:
        name: within the set's folder.
        md5: of its content (for gzip: of what is inside); None if there is no official one.
        url: its official address, if it has one.
        url_md5: of the file at `url`, where that is not `md5`.
    """

    name: str
    md5: str | None = None
    url: str | None = None
    url_md5: str | None = None


Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Training images (n, channels, height, width) and labels (n,), test images and labels."""


@dataclass(frozen=True)
class ImageSource:
    """How one image set is found and read; `form` describes its files to people who must make or place them."""

    folder: str
    files: tuple[ImageFile, ...]
    shape: tuple[int, int, int]
    classes: int
    note: str
    form: str
    read: Callable[[ImageSource, tuple[Path, ...]], Arrays]


def cache_folder() -> Path:
    """The user's cache: a folder for each image set, of what was downloaded and of what took long to decode."""
    import pooch

    return Path(pooch.os_cache("weightspace"))
