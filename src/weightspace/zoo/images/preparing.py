"""An image set made ready for networks: in other sizes and channels, with fewer pictures, standardised."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from weightspace.zoo.images.image_set import ImageError, ImageSet, read_only

_BLOCK = 4096  # pictures converted at a time, so that wide integers exist for a few of them only


def prepare(
    images: ImageSet, size: int | None = None, channels: int | None = None, count: int | None = None
) -> ImageSet:
    """`images` with other shapes or fewer training pictures; deterministic, and remembered for the next call.

    Colour is converted first, then the size, both in uint8 and rounded to nearest.

    Args:
        images: left as it is; where nothing is asked its arrays are passed on, not copied.
        size: new height and width in pixels. Where the old ones are one integer multiple k of it, a pixel is the mean
            of a k x k block; otherwise Pillow's bilinear filter, which on shrinking averages over the whole
            footprint of a pixel. A picture that is no square is squeezed into one.
        channels: 1 for grey (ITU-R 601 luma, 0.299 red + 0.587 green + 0.114 blue), 3 for colour (a grey picture is
            repeated).
        count: keep this many training pictures, the first ones. Test pictures are all kept.
    Raises:
        ImageError: if `size` is below 1, `channels` neither 1 nor 3 or not to be had from the pictures, or `count`
            not from 1 to the number of training pictures.
    """
    have = len(images.train_images)
    if size is not None and size < 1:
        raise ImageError(f"size is {size}: pictures need at least 1 pixel a side")
    if channels not in (None, 1, 3) or (channels is not None and images.shape[0] not in (1, 3)):
        raise ImageError(
            f"cannot make {channels} channels from {images.shape[0]}: both must be 1 or 3 (grey or colour)"
        )
    if count is not None and not 1 <= count <= have:
        raise ImageError(f"count is {count}: image set {images.name!r} has 1 to {have} training pictures to give")
    return _prepare(images, size, channels, count)


def some_classes(images: ImageSet, classes: int, choice: int, count: int | None, test_count: int | None) -> ImageSet:
    """The pictures of some classes, numbered anew from 0 in the order of their old numbers.

    Args:
        classes: how many of them.
        choice: number of the draw that decides which.
        count, test_count: keep at most so many training and test pictures, the first ones; None for all.
    Raises:
        ImageError: if there are fewer classes, or less than two are asked for.
    """
    if not 2 <= classes <= images.classes:
        raise ImageError(f"{classes} classes: image set {images.name!r} has 2 to {images.classes} to choose from")
    drawn = np.sort(np.random.default_rng([choice, 7]).choice(images.classes, classes, replace=False))
    number = np.full(images.classes, -1)
    number[drawn] = np.arange(classes)
    train = np.flatnonzero(number[images.train_labels] >= 0)[:count]
    test = np.flatnonzero(number[images.test_labels] >= 0)[:test_count]
    return ImageSet(
        images.name,
        images.train_images[train],
        number[images.train_labels[train]],
        images.test_images[test],
        number[images.test_labels[test]],
        classes,
        f"{images.note}; classes {', '.join(map(str, drawn))}",
    )


def drawn_images(
    images: ImageSet,
    classes: tuple[int, ...],
    rng: np.random.Generator,
    *,
    count: int | None = None,
    test_count: int | None = None,
    proportions: tuple[float, ...] | None = None,
    label_noise: float = 0.0,
) -> ImageSet:
    """A draw of the pictures of some classes, which are numbered anew in the order in which they are given.

    Args:
        classes: numbers of the set's classes, each once, at least two.
        rng: decides which training pictures, and which of them get a wrong label.
        count: training pictures; all of these classes unless given or where there are fewer.
        test_count: keep at most so many test pictures, the first ones; their labels are always right.
        proportions: share of each class among the training pictures, in the same order; a class has at most all of its
            pictures. None for those of the set.
        label_noise: share of the training pictures that are labelled as another class, uniformly.
    Raises:
        ImageError: if the set does not have these classes, or the proportions are not theirs.
    """
    if len(set(classes)) != len(classes) or len(classes) < 2 or not set(classes) <= set(range(images.classes)):
        raise ImageError(
            f"classes {list(classes)}: choose at least two different ones of the {images.classes} of image set "
            f"{images.name!r}, numbered from 0"
        )
    if proportions is not None and (len(proportions) != len(classes) or min(proportions) < 0 or not sum(proportions)):
        raise ImageError(f"{len(classes)} classes need as many proportions of at least 0, not {list(proportions)}")
    number = np.full(images.classes, -1)
    number[list(classes)] = np.arange(len(classes))
    labels = number[images.train_labels]
    chosen = rng.permutation(np.flatnonzero(labels >= 0))
    if proportions is None:
        chosen = chosen[:count]
    else:
        wanted = np.round(np.array(proportions) / sum(proportions) * (len(chosen) if count is None else count))
        ranks = np.empty(len(chosen), int)  # of each picture among those of its class
        for place in range(len(classes)):
            own = labels[chosen] == place
            ranks[own] = np.arange(own.sum())
        chosen = chosen[ranks < wanted[labels[chosen]]]
    own = labels[chosen]
    wrong = rng.permutation(len(own))[: round(label_noise * len(own))]
    own[wrong] = (own[wrong] + rng.integers(1, len(classes), len(wrong))) % len(classes)
    test = np.flatnonzero(number[images.test_labels] >= 0)[:test_count]
    return ImageSet(
        images.name,
        images.train_images[chosen],
        own,
        images.test_images[test],
        number[images.test_labels[test]],
        len(classes),
        f"{images.note}; {len(chosen)} drawn of classes {', '.join(map(str, classes))}",
    )


def channel_statistics(images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel over all pixels of the training pictures, for `standardise`.

    Returns:
        two float32 arrays (channels,) for pixels in 0 to 1. A channel that never varies has the deviation 1, so
        that standardising makes it zero instead of NaN.
    """
    return _channel_statistics(images)


def standardise(images: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Pixels scaled to 0 to 1, then to `(pixel - mean) / std`, as float32.

    Args:
        images: uint8 pictures (..., channels, height, width).
        mean, std: (channels,) float32, from `channel_statistics`.
    Raises:
        ImageError: if the pictures are not uint8 or have another number of channels than the statistics.
    """
    if images.dtype != np.uint8 or images.ndim < 3 or images.shape[-3:-2] != mean.shape:
        raise ImageError(
            f"pictures are {images.dtype} of shape {images.shape}; the statistics are for uint8 of shape "
            f"(..., {len(mean)}, height, width): take them from the same prepared image set"
        )
    pixels = images.astype(np.float32)
    pixels /= 255
    pixels -= mean[:, None, None]
    pixels /= std[:, None, None]
    return pixels


@lru_cache(maxsize=8)
def _prepare(images: ImageSet, size: int | None, channels: int | None, count: int | None) -> ImageSet:
    train, test = images.train_images[:count], images.test_images
    labels, done = images.train_labels[:count], [images.note]
    if count in (None, len(images.train_images)):
        train, labels = images.train_images, images.train_labels
    else:
        done.append(f"first {count} training pictures")
    if channels == 1 and images.shape[0] == 3:
        train, test = _grey(train), _grey(test)
        done.append("grey by ITU-R 601 luma")
    if size is not None and images.shape[1:] != (size, size):
        method = "block mean" if _factor(images.shape, size) else "bilinear filter"
        train, test = _resize(train, size), _resize(test, size)
        done.append(f"resized to {size}x{size} by {method}")
    if channels == 3 and images.shape[0] == 1:
        train, test = np.repeat(train, 3, axis=1), np.repeat(test, 3, axis=1)
        done.append("grey repeated in 3 channels")
    if len(done) == 1:
        return images
    return replace(images, train_images=train, train_labels=labels, test_images=test, note="; ".join(done))


def _grey(images: np.ndarray) -> np.ndarray:
    """(n, 3, height, width) to (n, 1, height, width), with the 16-bit fixed-point weights that Pillow uses."""
    grey = np.empty((len(images), 1, *images.shape[2:]), np.uint8)
    for start in range(0, len(images), _BLOCK):
        red, green, blue = images[start : start + _BLOCK].astype(np.uint32).swapaxes(0, 1)
        luma = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
        grey[start : start + _BLOCK, 0] = luma
    return grey


def _factor(shape: tuple[int, ...], size: int) -> int:
    """By how much height and width are the same multiple of `size`, or 0."""
    height, width = shape[-2:]
    return height // size if height == width and height % size == 0 else 0


def _resize(images: np.ndarray, size: int) -> np.ndarray:
    """(n, channels, height, width) to (n, channels, size, size)."""
    factor = _factor(images.shape, size)
    resized = np.empty((*images.shape[:2], size, size), np.uint8)
    if factor:
        for start in range(0, len(images), _BLOCK):
            part = images[start : start + _BLOCK]
            blocks = part.reshape(*part.shape[:2], size, factor, size, factor)
            sums = blocks.sum(axis=(3, 5), dtype=np.uint32)
            resized[start : start + _BLOCK] = (sums + factor**2 // 2) // factor**2
        return resized
    from PIL import Image

    planes = images.reshape(-1, *images.shape[2:])
    for plane, place in zip(planes, resized.reshape(-1, size, size), strict=True):
        place[:] = np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR))
    return resized


@lru_cache(maxsize=16)
def _channel_statistics(images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """From integer sums, which come out the same in any order and on any machine."""
    channels = images.shape[0]
    total, squares = np.zeros(channels, np.uint64), np.zeros(channels, np.uint64)
    for start in range(0, len(images.train_images), _BLOCK):
        pixels = images.train_images[start : start + _BLOCK].astype(np.uint32)
        total += pixels.sum(axis=(0, 2, 3), dtype=np.uint64)
        squares += (pixels**2).sum(axis=(0, 2, 3), dtype=np.uint64)
    count = images.train_images.size // channels
    mean = total / count
    # Python's integers, because the difference of two large floats is not exactly 0 for a constant channel.
    variance = np.array([(int(q) * count - int(t) ** 2) / count**2 for t, q in zip(total, squares, strict=True)])
    std = np.where(variance == 0, 255, np.sqrt(variance))
    return read_only((mean / 255).astype(np.float32)), read_only((std / 255).astype(np.float32))
