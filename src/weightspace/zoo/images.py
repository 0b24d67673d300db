"""Image sets by name as uint8 arrays: found on disk or downloaded, checked, resized, standardised."""

from __future__ import annotations

import difflib
import gzip
import hashlib
import io
import os
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from weightspace.errors import WeightspaceError
from weightspace.files.atomic import write_atomically

DATA_VARIABLE = "WEIGHTSPACE_DATA"
"""Environment variable: a folder of image sets, with one folder for each as in the user's cache."""

DIGITS_TEST = 360
"""Pictures of `digits` that are for testing; the other 1,437 are for training."""

_BLOCK = 4096  # pictures converted at a time, so that wide integers exist for a few of them only


class ImageError(WeightspaceError):
    """An image set that is unknown, missing or damaged, or that cannot be prepared as asked."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled pictures, divided into training and test. The arrays are read-only.

    Attributes:
        name: one of `IMAGE_SETS`, or a name of the caller's own.
        train_images: (n, channels, height, width) uint8, 0 to 255.
        train_labels: (n,) int64, 0 to classes - 1.
        test_images: (m, channels, height, width) uint8.
        test_labels: (m,) int64.
        classes: number of classes, at least 1.
        note: where the pictures come from and what was done to them, for people.

    Raises:
        ImageError: if an array has another type or shape, a label is out of range, or a part is empty.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: int
    note: str

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
            if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
                raise ImageError(
                    f"{part}_images are {images.dtype} of shape {images.shape}; "
                    "pictures are uint8 of shape (n, channels, height, width), at least one"
                )
            if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
                raise ImageError(
                    f"{part}_labels are {labels.dtype} of shape {labels.shape}; "
                    f"{len(images)} pictures need int64 of shape ({len(images)},)"
                )
            if labels.min() < 0 or labels.max() >= self.classes:
                raise ImageError(
                    f"{part}_labels run from {labels.min()} to {labels.max()}; "
                    f"{self.classes} classes are numbered 0 to {self.classes - 1}"
                )
            object.__setattr__(self, f"{part}_images", _read_only(images))
            object.__setattr__(self, f"{part}_labels", _read_only(labels))
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise ImageError(
                f"training pictures have shape {self.train_images.shape[1:]}, "
                f"test pictures {self.test_images.shape[1:]}: they must agree"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one picture."""
        _, channels, height, width = self.train_images.shape
        return channels, height, width


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
    if name not in _SOURCES:
        close = difflib.get_close_matches(name.lower(), IMAGE_SETS, n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise ImageError(f"no image set is named {name!r}: {meant}There are {', '.join(IMAGE_SETS)}")
    try:
        stamps = []
        for file in _locate(_SOURCES[name], path):
            state = file.stat()
            stamps.append((str(file), state.st_size, state.st_mtime_ns))
        return _load(name, tuple(stamps))
    except (ImageError, OSError) as error:
        raise ImageError(f"image set {name!r}: {error}") from error


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


# --- where files are -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _File:
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


_Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Training images (n, channels, height, width) and labels (n,), test images and labels."""


@dataclass(frozen=True)
class _Source:
    """How one image set is found and read; `form` describes its files to people who must make or place them."""

    folder: str
    files: tuple[_File, ...]
    shape: tuple[int, int, int]
    classes: int
    note: str
    form: str
    read: Callable[[_Source, tuple[Path, ...]], _Arrays]


def _cache() -> Path:
    import pooch

    return Path(pooch.os_cache("weightspace"))


def _locate(source: _Source, path: str | Path | None) -> tuple[Path, ...]:
    """The files of `source`, in its order, from the first place that has them."""
    if path is not None:
        return _given(source, Path(path))
    if not source.files:
        return ()
    data = os.environ.get(DATA_VARIABLE)
    if data:
        if not Path(data).is_dir():
            raise ImageError(f"{DATA_VARIABLE} is {data!r}, which is no folder: correct or unset it")
        folder = Path(data) / source.folder
        if any((folder / file.name).is_file() for file in source.files):
            return _whole(source, folder)
    folder = _cache() / source.folder
    return tuple(_cached(source, file, folder) for file in source.files)


def _given(source: _Source, path: Path) -> tuple[Path, ...]:
    if not source.files:
        raise ImageError(f"{source.form}: leave out the path {path}")
    if path.is_file() and len(source.files) == 1:
        return (path,)
    if not path.is_dir():
        kind = "one file, not its folder" if path.is_file() else "neither a file nor a folder"
        raise ImageError(f"{path} is {kind}: give the folder of {_names(source)}")
    if not any((path / file.name).is_file() for file in source.files) and (path / source.folder).is_dir():
        path = path / source.folder
    return _whole(source, path)


def _whole(source: _Source, folder: Path) -> tuple[Path, ...]:
    missing = [file.name for file in source.files if not (folder / file.name).is_file()]
    if missing:
        raise ImageError(
            f"{folder} has no {' or '.join(missing)}: it must hold {_names(source)}; the set is {source.form}"
        )
    return tuple(folder / file.name for file in source.files)


def _cached(source: _Source, file: _File, folder: Path) -> Path:
    """The file in the user's cache, downloaded first if it is not there."""
    path = folder / file.name
    if path.is_file():
        return path
    if file.url is None:
        raise ImageError(
            f"not found, and it has no official download with a checksum: put {file.name} into {folder}, or into "
            f"{source.folder}/ of the folder that {DATA_VARIABLE} names; the set is {source.form}"
        )
    import pooch

    try:
        # The download goes to a temporary name that is deleted on any failure, and is renamed when its sum is right.
        pooch.retrieve(
            file.url,
            known_hash=f"md5:{file.url_md5 or file.md5}",
            fname=file.name,
            path=folder,
        )
    except (OSError, ValueError) as error:
        raise ImageError(
            f"could not download {file.url}: {error}; try again, or put {_names(source)} into {folder} by hand"
            f"{_other_copies(source)}"
        ) from error
    return path


def _names(source: _Source) -> str:
    return ", ".join(file.name for file in source.files)


def _other_copies(source: _Source) -> str:
    """A hint at the sets of the same pictures that are at hand under names of their own."""
    data = os.environ.get(DATA_VARIABLE)
    found = [
        name
        for name, other in _SOURCES.items()
        if data and other is not source and other.folder == source.folder
        if all((Path(data) / other.folder / file.name).is_file() for file in other.files)
    ]
    return f"; {DATA_VARIABLE} has {' and '.join(found)}, which are other sets" if found else ""


# --- what is in them -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _load(name: str, stamps: tuple[tuple[str, int, int], ...]) -> ImageSet:
    """Read a set; the sizes and times in `stamps` make a changed file another entry of the cache."""
    source = _SOURCES[name]
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


@contextmanager
def _reading(path: Path, form: str) -> Iterator[None]:
    """Turn whatever a damaged file provokes in a reader into one sentence."""
    try:
        yield
    except ImageError:
        raise
    except (
        *(OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError),
        *(MemoryError, struct.error, zlib.error, BadZipFile, tarfile.TarError),
    ) as error:
        raise ImageError(
            f"{path} is torn, damaged or another file: {error}; expected {form}: delete it and fetch it again"
        ) from error


def _check_md5(path: Path, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise ImageError(
            f"the content of {path} has MD5 {found}, the official file {expected}: delete it and fetch it again"
        )


def _file_md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _read_digits(source: _Source, paths: tuple[Path, ...]) -> _Arrays:
    del source, paths
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    order = _fixed_order(len(images))
    train, test = order[:-DIGITS_TEST], order[-DIGITS_TEST:]
    return images[train], labels[train], images[test], labels[test]


def _fixed_order(count: int) -> np.ndarray:
    """One random permutation (count,), for ever: numpy promises a bit generator's raw stream, no `permutation`."""
    return np.argsort(np.random.PCG64(0).random_raw(count), kind="stable")


def _read_idx_set(source: _Source, paths: tuple[Path, ...]) -> _Arrays:
    train_images, train_labels, test_images, test_labels = (
        _read_idx(path, file) for path, file in zip(paths, source.files, strict=True)
    )
    return train_images[:, None], train_labels, test_images[:, None], test_labels


def _read_idx(path: Path, file: _File) -> np.ndarray:
    """The array in a gzipped idx file (LeCun's MNIST page): magic number, lengths, bytes; all big-endian."""
    axes = 3 if "idx3" in file.name else 1
    with _reading(path, f"the gzipped idx file {file.name}"), gzip.open(path, "rb") as stream:
        header, magic = stream.read(4 * (1 + axes)), bytes([0, 0, 8, axes])
        if header[:4] != magic:
            raise ImageError(
                f"{path} begins with 0x{header[:4].hex()}, an idx file of bytes in {axes} axes with 0x{magic.hex()}: "
                f"give the official {file.name}"
            )
        shape = tuple(int(n) for n in np.frombuffer(header, ">u4")[1:])
        size = prod(shape)
        content = stream.read(size + 1)  # one byte more than there should be
        if len(content) != size:
            given = "more" if len(content) > size else str(len(content))
            raise ImageError(f"{path} announces {size} bytes of shape {shape} and holds {given}: fetch it again")
    _check_md5(path, hashlib.md5(header + content).hexdigest(), file.md5)
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read_cifar(source: _Source, paths: tuple[Path, ...]) -> _Arrays:
    """The official binary archive: 3,073 bytes a picture, its label and then its red, green and blue planes."""
    [path] = paths
    with _reading(path, source.form):
        _check_md5(path, _file_md5(path), source.files[0].md5)
        content = {}
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:  # in the archive's order: looking members up would unpack it several times
                stream = archive.extractfile(member) if member.isfile() else None
                if stream is not None and member.name.endswith(".bin"):
                    content[Path(member.name).name] = np.frombuffer(stream.read(), np.uint8)
        train = np.concatenate([content[f"data_batch_{i}.bin"] for i in range(1, 6)])
        train, test = train.reshape(-1, 3073), content["test_batch.bin"].reshape(-1, 3073)
    train_images, test_images = (part[:, 1:].reshape(-1, 3, 32, 32) for part in (train, test))
    return train_images, train[:, 0], test_images, test[:, 0]


def _read_svhn(source: _Source, paths: tuple[Path, ...]) -> _Arrays:
    """The official MATLAB files: `X` (32, 32, 3, n) uint8 and `y` (n, 1) from 1 to 10, where 10 is the digit 0."""
    from scipy.io import loadmat

    arrays = []
    for path, file in zip(paths, source.files, strict=True):
        with _reading(path, source.form):
            # Before anything is parsed: scipy's reader makes no promises about hostile files.
            _check_md5(path, _file_md5(path), file.md5)
            matrices = loadmat(path, variable_names=["X", "y"])
            labels = matrices["y"].reshape(-1)
            if labels.min() < 1 or labels.max() > 10:
                raise ImageError(f"{path} has labels outside 1 to 10; the set is {source.form}")
            arrays += [matrices["X"].transpose(3, 2, 0, 1), labels.astype(np.int64) % 10]
    return arrays[0], arrays[1], arrays[2], arrays[3]


def _read_npz(source: _Source, paths: tuple[Path, ...]) -> _Arrays:
    """Our own form for sets without an official file of arrays: pictures (n, height, width) or (..., 3)."""
    train_images, train_labels, test_images, test_labels = _npz_arrays(
        paths[0], source, ("train_images", "train_labels", "test_images", "test_labels")
    )
    train_images, test_images = (
        a[:, None] if source.shape[0] == 1 else np.moveaxis(a, -1, 1) for a in (train_images, test_images)
    )
    return train_images, train_labels, test_images, test_labels


def _read_shuffled_npz(source: _Source, paths: tuple[Path, ...]) -> _Arrays:
    train_images, train_labels, test_images, test_labels = _read_npz(source, paths)
    if len(train_images) != len(train_labels) or len(test_images) != len(test_labels):
        raise ImageError(f"{paths[0]} has not one label for each picture; the set is {source.form}")
    train, test = _fixed_order(len(train_images)), _fixed_order(len(test_images))
    return train_images[train], train_labels[train], test_images[test], test_labels[test]


def _npz_arrays(path: Path, source: _Source, names: tuple[str, ...]) -> list[np.ndarray]:
    # Opened here, because np.load leaves a file open in which it finds no archive.
    with _reading(path, source.form), path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ImageError(f"{path} is a single array; the set is {source.form}")
        with archive:
            missing = [name for name in names if name not in archive.files]
            if missing:
                raise ImageError(f"{path} has arrays {archive.files} and lacks {missing}; the set is {source.form}")
            arrays = [archive[name] for name in names]
    for name, array in zip(names, arrays, strict=True):
        axes = (3 if source.shape[0] == 1 else 4) if name.endswith("_images") else 1
        if array.ndim != axes or array.dtype.kind not in "iu":
            raise ImageError(f"{path} has {name} of {array.dtype} and shape {array.shape}; the set is {source.form}")
    return arrays


def _read_jpeg(source: _Source, paths: tuple[Path, ...]) -> _Arrays:
    """Decode the JPEG copy, or take what was decoded before from the user's cache."""
    [path] = paths
    names = [f"{part}_{what}" for part in ("train", "test") for what in ("jpeg", "offsets", "labels")]
    with _reading(path, source.form):
        key = f"{path.stat().st_size}-{_file_md5(path)}"
    train_jpeg, train_offsets, train_labels, test_jpeg, test_offsets, test_labels = _npz_arrays(
        path, source, tuple(names)
    )
    split, count = len(train_offsets) - 1, len(train_offsets) + len(test_offsets) - 2
    decoded = _cache() / "cifar10" / f"decoded-{key}.npy"
    images = _decoded(decoded, (count, *source.shape))
    if images is None:
        with _reading(path, source.form):
            images = np.concatenate([_decode(train_jpeg, train_offsets), _decode(test_jpeg, test_offsets)])
        buffer = io.BytesIO()
        np.save(buffer, images, allow_pickle=False)
        with suppress(OSError):  # a full or read-only disk costs time at the next load, nothing else
            write_atomically(decoded, buffer.getvalue())
    return images[:split], train_labels, images[split:], test_labels


def _decoded(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array at `path`, or None if it is not there whole."""
    with suppress(OSError, EOFError, ValueError):
        images = np.load(path, allow_pickle=False)
        if isinstance(images, np.ndarray) and images.shape == shape and images.dtype == np.uint8:
            return images
    return None


def _decode(stream: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Pictures (n, 3, 32, 32) from JPEG files end to end; file i is bytes `offsets[i]` to `offsets[i + 1]`."""
    from PIL import Image

    content = stream.tobytes()
    bounds = offsets.tolist()
    if bounds[0] != 0 or bounds[-1] != len(content) or sorted(set(bounds)) != bounds:
        raise ImageError(f"the offsets do not divide {len(content)} bytes of JPEG files")
    images = np.empty((len(bounds) - 1, 3, 32, 32), np.uint8)
    for i in range(len(images)):
        with Image.open(io.BytesIO(content[bounds[i] : bounds[i + 1]]), formats=["JPEG"]) as picture:
            if picture.size != (32, 32):  # before decoding: a damaged header may announce gigapixels
                raise ImageError(f"JPEG file {i} is {picture.size} pixels, expected (32, 32)")
            images[i] = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    return images


# --- other shapes ----------------------------------------------------------------------------------------------------


def _read_only(array: np.ndarray) -> np.ndarray:
    """`array` itself if it is read-only, else a read-only view, so that the caller's own stays writable."""
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


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
    return _read_only((mean / 255).astype(np.float32)), _read_only((std / 255).astype(np.float32))


# --- the sets --------------------------------------------------------------------------------------------------------

_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"  # the official page no longer serves files
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_CIFAR = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_CIFAR_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_SVHN = "http://ufldl.stanford.edu/housenumbers/"
_IDX_NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def _idx_files(address: str, sums: tuple[tuple[str, str], ...]) -> tuple[_File, ...]:
    return tuple(
        _File(name, md5, address + name, url_md5) for name, (md5, url_md5) in zip(_IDX_NAMES, sums, strict=True)
    )


def _npz_form(shape: str) -> str:
    return (
        f"an .npz of train_images and test_images (n, {shape}) uint8 and train_labels and test_labels (n,) "
        "integers from 0"
    )


_SOURCES: dict[str, _Source] = {
    "digits": _Source(
        folder="",
        files=(),
        shape=(1, 8, 8),
        classes=10,
        note="UCI hand-written digits, bundled with scikit-learn; 1,437 + 360 in a fixed random order",
        form="bundled with scikit-learn",
        read=_read_digits,
    ),
    "mnist": _Source(
        folder="mnist",
        files=_idx_files(
            _MNIST,
            (
                ("6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
                ("a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"),
                ("2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"),
                ("27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"),
            ),
        ),
        shape=(1, 28, 28),
        classes=10,
        note="MNIST, official pixels",
        form="the four official gzipped idx files",
        read=_read_idx_set,
    ),
    "fashion-mnist": _Source(
        folder="fashion_mnist",
        files=_idx_files(
            _FASHION,
            (
                ("f4a8712d7a061bf5bd6d2ca38dc4d50a", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
                ("9018921c3c673c538a1fc5bad174d6f9", "25c81989df183df01b3e8a0aad5dffbe"),
                ("8181f5470baa50b63fa0f6fddb340f0a", "bef4ecab320f06d8554ea6380940ec79"),
                ("15d484375f8d13e6eb1aabb0c3f46965", "bb300cfdad3c16e7a12a480ee83cd310"),
            ),
        ),
        shape=(1, 28, 28),
        classes=10,
        note="Fashion-MNIST, official pixels",
        form="the four official gzipped idx files",
        read=_read_idx_set,
    ),
    "cifar10": _Source(
        folder="cifar10",
        files=(_File("cifar-10-binary.tar.gz", _CIFAR_MD5, _CIFAR),),
        shape=(3, 32, 32),
        classes=10,
        note="CIFAR-10, official pixels",
        form="the official binary version of CIFAR-10, cifar-10-binary.tar.gz",
        read=_read_cifar,
    ),
    "cifar10-subset": _Source(
        folder="cifar10",
        files=(_File("cifar10_lossless_subset.npz"),),
        shape=(3, 32, 32),
        classes=10,
        note="CIFAR-10, a part of the official pictures, pixel-exact as their file says",
        form=_npz_form("32, 32, 3"),
        read=_read_npz,
    ),
    "cifar10-jpeg": _Source(
        folder="cifar10",
        files=(_File("cifar10_full_jpegbytes.npz"),),
        shape=(3, 32, 32),
        classes=10,
        note="CIFAR-10 (JPEG copy), lossy: not the official pixels",
        form="an .npz of train_jpeg (JPEG files end to end, uint8), train_offsets (n + 1,), train_labels (n,), "
        "and the same for test",
        read=_read_jpeg,
    ),
    "svhn": _Source(
        folder="svhn",
        files=(
            _File("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373", _SVHN + "train_32x32.mat"),
            _File("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3", _SVHN + "test_32x32.mat"),
        ),
        shape=(3, 32, 32),
        classes=10,
        note="SVHN cropped digits, official pixels, without the extra part",
        form="the official train_32x32.mat and test_32x32.mat, each with X (32, 32, 3, n) and y (n, 1)",
        read=_read_svhn,
    ),
    "usps": _Source(
        folder="usps",
        files=(_File("usps.npz"),),
        shape=(1, 16, 16),
        classes=10,
        note="USPS, grey values quantised to 0 to 255; no official checksum",
        form=_npz_form("16, 16"),
        read=_read_npz,
    ),
    "gtsrb": _Source(
        folder="gtsrb",
        files=(_File("gtsrb32_subset.npz"),),
        shape=(3, 32, 32),
        classes=43,
        note="GTSRB at 32x32, a part in a fixed random order, split by track; not the official test set",
        form=_npz_form("32, 32, 3"),
        read=_read_shuffled_npz,
    ),
}

IMAGE_SETS: tuple[str, ...] = tuple(_SOURCES)
"""Names that `load_images` knows. Only `digits` needs no file."""
