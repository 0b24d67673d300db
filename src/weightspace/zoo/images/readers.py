"""The forms in which image sets come, each read into arrays: idx, CIFAR's binary, MATLAB, .npz and JPEG."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from weightspace.files.atomic import file_hash, write_atomically
from weightspace.zoo.images.image_set import ImageError
from weightspace.zoo.images.source import Arrays, ImageFile, ImageSource, cache_folder

DIGITS_TEST = 360
"""Pictures of `digits` that are for testing; the other 1,437 are for training."""


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


def read_digits(source: ImageSource, paths: tuple[Path, ...]) -> Arrays:
    """The pictures that come with scikit-learn, their grey values 0 to 16 stretched to 0 to 255."""
    del source, paths
    from sklearn.datasets import load_digits

    pixels, labels = (np.asarray(array) for array in load_digits(return_X_y=True))
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    order = _fixed_order(len(images))
    train, test = order[:-DIGITS_TEST], order[-DIGITS_TEST:]
    return images[train], labels[train], images[test], labels[test]


def _fixed_order(count: int) -> np.ndarray:
    """One random permutation (count,), for ever: numpy promises a bit generator's raw stream, no `permutation`."""
    return np.argsort(np.random.PCG64(0).random_raw(count), kind="stable")


def read_idx_set(source: ImageSource, paths: tuple[Path, ...]) -> Arrays:
    """Four gzipped idx files: training pictures and labels, test pictures and labels."""
    train_images, train_labels, test_images, test_labels = (
        _read_idx(path, file) for path, file in zip(paths, source.files, strict=True)
    )
    return train_images[:, None], train_labels, test_images[:, None], test_labels


def _read_idx(path: Path, file: ImageFile) -> np.ndarray:
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


def read_cifar(source: ImageSource, paths: tuple[Path, ...]) -> Arrays:
    """The official binary archive: 3,073 bytes a picture, its label and then its red, green and blue planes."""
    [path] = paths
    with _reading(path, source.form):
        _check_md5(path, file_hash(path, "md5"), source.files[0].md5)
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


def read_svhn(source: ImageSource, paths: tuple[Path, ...]) -> Arrays:
    """The official MATLAB files: `X` (32, 32, 3, n) uint8 and `y` (n, 1) from 1 to 10, where 10 is the digit 0."""
    from scipy.io import loadmat

    arrays = []
    for path, file in zip(paths, source.files, strict=True):
        with _reading(path, source.form):
            # Before anything is parsed: scipy's reader makes no promises about hostile files.
            _check_md5(path, file_hash(path, "md5"), file.md5)
            matrices = loadmat(path, variable_names=["X", "y"])
            labels = matrices["y"].reshape(-1)
            if labels.min() < 1 or labels.max() > 10:
                raise ImageError(f"{path} has labels outside 1 to 10; the set is {source.form}")
            arrays += [matrices["X"].transpose(3, 2, 0, 1), labels.astype(np.int64) % 10]
    return arrays[0], arrays[1], arrays[2], arrays[3]


def read_npz(source: ImageSource, paths: tuple[Path, ...]) -> Arrays:
    """Our own form for sets without an official file of arrays: pictures (n, height, width) or (..., 3)."""
    train_images, train_labels, test_images, test_labels = _npz_arrays(
        paths[0], source, ("train_images", "train_labels", "test_images", "test_labels")
    )
    train_images, test_images = (
        a[:, None] if source.shape[0] == 1 else np.moveaxis(a, -1, 1) for a in (train_images, test_images)
    )
    return train_images, train_labels, test_images, test_labels


def read_shuffled_npz(source: ImageSource, paths: tuple[Path, ...]) -> Arrays:
    """The form of `read_npz`, of a set that is sorted by class: its pictures in a fixed random order."""
    train_images, train_labels, test_images, test_labels = read_npz(source, paths)
    if len(train_images) != len(train_labels) or len(test_images) != len(test_labels):
        raise ImageError(f"{paths[0]} has not one label for each picture; the set is {source.form}")
    train, test = _fixed_order(len(train_images)), _fixed_order(len(test_images))
    return train_images[train], train_labels[train], test_images[test], test_labels[test]


def _npz_arrays(path: Path, source: ImageSource, names: tuple[str, ...]) -> list[np.ndarray]:
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


def read_jpeg(source: ImageSource, paths: tuple[Path, ...]) -> Arrays:
    """Decode the JPEG copy, or take what was decoded before from the user's cache."""
    [path] = paths
    names = [f"{part}_{what}" for part in ("train", "test") for what in ("jpeg", "offsets", "labels")]
    with _reading(path, source.form):
        key = f"{path.stat().st_size}-{file_hash(path, 'md5')}"
    train_jpeg, train_offsets, train_labels, test_jpeg, test_offsets, test_labels = _npz_arrays(
        path, source, tuple(names)
    )
    split, count = len(train_offsets) - 1, len(train_offsets) + len(test_offsets) - 2
    decoded = cache_folder() / "cifar10" / f"decoded-{key}.npy"
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
