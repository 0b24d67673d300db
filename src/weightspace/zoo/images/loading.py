"""Image sets loaded by name: found, read, checked, and kept in memory for the next call."""

from __future__ import annotations

import difflib
from functools import lru_cache
from pathlib import Path

import numpy as np

from weightspace.zoo.images.catalogue import IMAGE_SETS, SOURCES
from weightspace.zoo.images.image_set import ImageError, ImageSet
from weightspace.zoo.images.location import locate


def load_images(name: str, path: str | Path | None = None) -> ImageSet:
    """The image set `name`, one of `IMAGE_SETS`.

    It is looked for at `path`, else below the folder in the environment variable `WEIGHTSPACE_DATA`, else in the
    user's cache (`pooch.os_cache("weightspace")`), into which it is downloaded if need be. Official files are held
    against their published checksums wherever they come from; `note` says what the others are. The last few sets
    stay in memory, so asking again is cheap.

    `digits` comes with scikit-learn: 1,797 pictures of 8x8 (UCI ML hand-written digits, its test part), their grey
    values 0 to 16 scaled to `round(255 / 16 * value)`, in one fixed random order of which the last 360 are for
    testing. `cifar10` is the official 60,000 pictures and nothing less; `cifar10-jpeg` is a lossy copy of all of
    them, `cifar10-subset` an exact copy of some. `gtsrb` files are sorted by class, so its pictures are put into a
    fixed random order.

    Args:
        name: one of `IMAGE_SETS`.
        path: the set's own folder, a folder laid out like `WEIGHTSPACE_DATA`, or the file where the set is a single
            one. Not for `digits`.
    Raises:
        ImageError: on an unknown name (the close one is named), a missing, torn or altered file, or a failed
            download; nothing that failed its checksum stays in the cache.
    """
    stamps = _stamps(name, path)
    try:
        return _load(name, stamps)
    except (ImageError, OSError) as error:
        raise ImageError(f"image set {name!r}: {error}") from error


def image_shape(name: str, path: str | Path | None = None) -> tuple[int, int, int]:
    """Channels, height and width of the pictures of a set that can be loaded; its files are looked for, not read.

    Args:
        name, path: as for `load_images`.
    Raises:
        ImageError: on an unknown name, a missing file or a failed download.
    """
    _stamps(name, path)
    return SOURCES[name].shape


def _stamps(name: str, path: str | Path | None) -> tuple[tuple[str, int, int], ...]:
    """A set's files with their sizes and times."""
    if name not in SOURCES:
        close = difflib.get_close_matches(name.lower(), IMAGE_SETS, n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise ImageError(f"no image set is named {name!r}: {meant}There are {', '.join(IMAGE_SETS)}")
    try:
        stamps = []
        for file in locate(SOURCES[name], path):
            state = file.stat()
            stamps.append((str(file), state.st_size, state.st_mtime_ns))
        return tuple(stamps)
    except (ImageError, OSError) as error:
        raise ImageError(f"image set {name!r}: {error}") from error


@lru_cache(maxsize=8)
def _load(name: str, stamps: tuple[tuple[str, int, int], ...]) -> ImageSet:
    """Read a set; the sizes and times in `stamps` make a changed file another entry of the cache."""
    source = SOURCES[name]
    arrays = source.read(source, tuple(Path(path) for path, _, _ in stamps))
    train_images, train_labels, test_images, test_labels = (np.ascontiguousarray(a) for a in arrays)
    for images in (train_images, test_images):
        if images.shape[1:] != source.shape or images.dtype != np.uint8:
            raise ImageError(
                f"the pictures are {images.dtype} of shape {images.shape}, expected uint8 of shape "
                f"(n, {', '.join(map(str, source.shape))}); the set is {source.form}"
            )
    for labels in (train_labels, test_labels):
        if labels.dtype.kind not in "iu":
            raise ImageError(f"the labels are {labels.dtype}, expected integers")
    return ImageSet(
        name,
        train_images,
        train_labels.astype(np.int64),
        test_images,
        test_labels.astype(np.int64),
        source.classes,
        source.note,
    )
