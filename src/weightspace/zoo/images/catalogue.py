"""The image sets that have a name, each with its files, their official addresses and checksums, and its reader."""

from __future__ import annotations

from weightspace.zoo.images.readers import (
    read_cifar,
    read_digits,
    read_idx_set,
    read_jpeg,
    read_npz,
    read_shuffled_npz,
    read_svhn,
)
from weightspace.zoo.images.source import ImageFile, ImageSource

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


def _idx_files(address: str, sums: tuple[tuple[str, str], ...]) -> tuple[ImageFile, ...]:
    return tuple(
        ImageFile(name, md5, address + name, url_md5) for name, (md5, url_md5) in zip(_IDX_NAMES, sums, strict=True)
    )


def _npz_form(shape: str) -> str:
    return (
        f"an .npz of train_images and test_images (n, {shape}) uint8 and train_labels and test_labels (n,) "
        "integers from 0"
    )


SOURCES: dict[str, ImageSource] = {
    "digits": ImageSource(
        folder="",
        files=(),
        shape=(1, 8, 8),
        classes=10,
        note="UCI hand-written digits, bundled with scikit-learn; 1,437 + 360 in a fixed random order",
        form="bundled with scikit-learn",
        read=read_digits,
    ),
    "mnist": ImageSource(
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
        read=read_idx_set,
    ),
    "fashion-mnist": ImageSource(
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
        read=read_idx_set,
    ),
    "cifar10": ImageSource(
        folder="cifar10",
        files=(ImageFile("cifar-10-binary.tar.gz", _CIFAR_MD5, _CIFAR),),
        shape=(3, 32, 32),
        classes=10,
        note="CIFAR-10, official pixels",
        form="the official binary version of CIFAR-10, cifar-10-binary.tar.gz",
        read=read_cifar,
    ),
    "cifar10-subset": ImageSource(
        folder="cifar10",
        files=(ImageFile("cifar10_lossless_subset.npz"),),
        shape=(3, 32, 32),
        classes=10,
        note="CIFAR-10, a part of the official pictures, pixel-exact as their file says",
        form=_npz_form("32, 32, 3"),
        read=read_npz,
    ),
    "cifar10-jpeg": ImageSource(
        folder="cifar10",
        files=(ImageFile("cifar10_full_jpegbytes.npz"),),
        shape=(3, 32, 32),
        classes=10,
        note="CIFAR-10 (JPEG copy), lossy: not the official pixels",
        form="an .npz of train_jpeg (JPEG files end to end, uint8), train_offsets (n + 1,), train_labels (n,), "
        "and the same for test",
        read=read_jpeg,
    ),
    "svhn": ImageSource(
        folder="svhn",
        files=(
            ImageFile("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373", _SVHN + "train_32x32.mat"),
            ImageFile("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3", _SVHN + "test_32x32.mat"),
        ),
        shape=(3, 32, 32),
        classes=10,
        note="SVHN cropped digits, official pixels, without the extra part",
        form="the official train_32x32.mat and test_32x32.mat, each with X (32, 32, 3, n) and y (n, 1)",
        read=read_svhn,
    ),
    "usps": ImageSource(
        folder="usps",
        files=(ImageFile("usps.npz"),),
        shape=(1, 16, 16),
        classes=10,
        note="USPS, grey values quantised to 0 to 255; no official checksum",
        form=_npz_form("16, 16"),
        read=read_npz,
    ),
    "gtsrb": ImageSource(
        folder="gtsrb",
        files=(ImageFile("gtsrb32_subset.npz"),),
        shape=(3, 32, 32),
        classes=43,
        note="GTSRB at 32x32, a part in a fixed random order, split by track; not the official test set",
        form=_npz_form("32, 32, 3"),
        read=read_shuffled_npz,
    ),
}
"""How each image set is found and read, by its name."""

IMAGE_SETS: tuple[str, ...] = tuple(SOURCES)
"""Names that `load_images` knows. Only `digits` needs no file."""
