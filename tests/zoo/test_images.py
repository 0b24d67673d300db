"""Image sets: found in the right place, checked, and shaped as asked."""

import gzip
import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pytest
from PIL import Image

from weightspace.zoo.images import loading, readers
from weightspace.zoo.images.catalogue import IMAGE_SETS, SOURCES
from weightspace.zoo.images.image_set import ImageError, ImageSet
from weightspace.zoo.images.loading import load_images
from weightspace.zoo.images.location import DATA_VARIABLE
from weightspace.zoo.images.preparing import channel_statistics, prepare, standardise

SHARED = Path(__file__).parents[3] / "shared" / "data"
REAL = os.environ.get(DATA_VARIABLE) or (str(SHARED) if SHARED.is_dir() else None)
needs_real_files = pytest.mark.skipif(
    REAL is None, reason=f"no image files: {DATA_VARIABLE} is unset and ../shared/data absent"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has its own empty cache and no data folder, whatever the machine has."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(pooch, "os_cache", lambda project: folder / project)
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    return folder / "weightspace"


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of real image files, as the data folder."""
    assert REAL is not None
    monkeypatch.setenv(DATA_VARIABLE, REAL)
    return Path(REAL)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address at which this machine serves it."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            del format, args

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    yield folder, f"http://127.0.0.1:{httpd.server_port}/"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def idx(array: np.ndarray) -> bytes:
    header = np.array([0x800 + array.ndim, *array.shape], ">u4")
    return header.tobytes() + array.astype(np.uint8).tobytes()


def tiny_mnist(folder: Path, shade: int = 0) -> dict[str, bytes]:
    """Four idx files of the official names with 5 and 3 pictures; returns their uncompressed contents."""
    contents = {}
    for prefix, count in (("train", 5), ("t10k", 3)):
        pictures = np.full((count, 28, 28), shade) + np.arange(count)[:, None, None]
        contents[f"{prefix}-images-idx3-ubyte.gz"] = idx(pictures)
        contents[f"{prefix}-labels-idx1-ubyte.gz"] = idx(np.arange(count))
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(gzip.compress(content))
    return contents


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def trust(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make small files the official ones: sets the checksums (and addresses) of a source to theirs."""

    def change(name: str, folder: Path, address: str | None = None) -> None:
        files = []
        for file in SOURCES[name].files:
            raw = (folder / file.name).read_bytes()
            content = gzip.decompress(raw) if file.name.endswith("ubyte.gz") else raw
            url = None if address is None else address + file.name
            files.append(replace(file, md5=md5(content), url=url, url_md5=md5(raw)))
        changed = replace(SOURCES[name], files=tuple(files))
        monkeypatch.setitem(SOURCES, name, changed)

    return change


def small_set(channels: int = 3, size: int = 6, train: int = 7) -> ImageSet:
    random = np.random.default_rng(0)
    return ImageSet(
        name="small",
        train_images=random.integers(0, 256, (train, channels, size, size), np.uint8),
        train_labels=np.arange(train) % 2,
        test_images=random.integers(0, 256, (4, channels, size, size), np.uint8),
        test_labels=np.arange(4) % 2,
        classes=2,
        note="made up",
    )


# --- digits ---


def test_digits_need_no_file_and_are_the_scaled_pictures_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    digits = load_images("digits")
    assert digits.train_images.shape == (1437, 1, 8, 8)
    assert digits.test_images.shape == (360, 1, 8, 8)
    ours = np.concatenate([digits.train_images, digits.test_images]).reshape(-1, 64)
    ours_labels = np.concatenate([digits.train_labels, digits.test_labels])
    expected = {(tuple(np.rint(p * 255 / 16)), int(c)) for p, c in zip(pixels, labels, strict=True)}
    assert {(tuple(map(float, p)), int(c)) for p, c in zip(ours, ours_labels, strict=True)} == expected
    assert ours.max() == 255 and np.unique(ours).size == 17


def test_the_split_of_the_digits_never_changes() -> None:
    digits = load_images("digits")
    assert md5(digits.train_images.tobytes()) == "cbc4864ef6a2d65e48ec809bc3e531a3"
    assert md5(digits.test_labels.tobytes()) == "a30f5984e008e51f3dece18acbe6c59d"
    assert np.bincount(digits.test_labels).min() > 20  # every class is tested


def test_loading_again_gives_the_same_object() -> None:
    assert load_images("digits") is load_images("digits")


def test_arrays_cannot_be_changed_by_a_user() -> None:
    digits = load_images("digits")
    for array in (digits.train_images, digits.train_labels, digits.test_images, digits.test_labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_an_image_set_leaves_its_makers_arrays_writable() -> None:
    mine = np.zeros((2, 1, 3, 3), np.uint8)
    labels = np.zeros(2, np.int64)
    ImageSet("mine", mine, labels, mine, labels, 1, "")
    mine[0] = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": np.zeros((7, 3, 6, 6))}, "train_images are float64"),
        ({"test_images": np.zeros((4, 6, 6), np.uint8)}, "channels, height, width"),
        ({"test_images": np.zeros((4, 1, 6, 6), np.uint8)}, "must agree"),
        ({"train_labels": np.zeros(6, np.int64)}, "7 pictures need int64"),
        ({"test_labels": np.zeros(4, np.uint8)}, "test_labels are uint8"),
        ({"classes": 1}, "run from 0 to 1"),
    ],
)
def test_an_image_set_that_contradicts_itself_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        replace(small_set(), **change)


# --- names and places ---


@pytest.mark.parametrize(
    ("given", "meant"), [("minst", "mnist"), ("CIFAR-10", "cifar10"), ("fashion_mnist", "fashion-")]
)
def test_an_unknown_name_is_answered_with_a_close_one_and_all_names(given: str, meant: str) -> None:
    with pytest.raises(ImageError, match=f"did you mean '{meant}") as error:
        load_images(given)
    assert all(name in str(error.value) for name in IMAGE_SETS)


def test_a_name_like_no_other_gets_the_list_alone() -> None:
    with pytest.raises(ImageError, match="no image set is named 'xyzzy': There are digits, mnist"):
        load_images("xyzzy")


def test_a_path_goes_before_the_data_folder_before_the_cache_before_a_download(
    tmp_path: Path,
    cache: Path,
    server: tuple[Path, str],
    trust: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, address = server
    monkeypatch.setattr(readers, "_check_md5", lambda *_: None)  # the four copies differ on purpose
    tiny_mnist(folder, shade=10)
    trust("mnist", folder, address)

    def shade(path: Path | None = None) -> int:
        return int(load_images("mnist", path).train_images[0, 0, 0, 0])

    assert shade() == 10
    assert len(list((cache / "mnist").iterdir())) == 4  # kept, and nothing beside it
    tiny_mnist(cache / "mnist", shade=20)
    assert shade() == 20
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "data"))
    tiny_mnist(tmp_path / "data" / "mnist", shade=30)
    assert shade() == 30
    tiny_mnist(tmp_path / "mine", shade=40)
    assert shade(tmp_path / "mine") == 40


def test_an_interrupted_download_is_completed(
    cache: Path, server: tuple[Path, str], trust: Callable[..., None]
) -> None:
    folder, address = server
    tiny_mnist(folder)
    trust("mnist", folder, address)
    load_images("mnist")
    kept = cache / "mnist" / "train-images-idx3-ubyte.gz"
    before = kept.stat().st_mtime_ns
    (cache / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    assert len(load_images("mnist").test_labels) == 3
    assert kept.stat().st_mtime_ns == before


def test_a_damaged_download_is_reported_and_not_kept(
    cache: Path, server: tuple[Path, str], trust: Callable[..., None]
) -> None:
    folder, address = server
    tiny_mnist(folder)
    trust("mnist", folder, address)
    file = folder / "t10k-images-idx3-ubyte.gz"
    good = file.read_bytes()
    file.write_bytes(good[:-1])
    with pytest.raises(ImageError, match=r"could not download .*t10k-images.*by hand"):
        load_images("mnist")
    assert sorted(f.name for f in (cache / "mnist").iterdir()) == [
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
    ]
    file.write_bytes(good)
    assert len(load_images("mnist").test_images) == 3


def test_a_file_that_is_not_served_is_reported(
    cache: Path, server: tuple[Path, str], trust: Callable[..., None]
) -> None:
    folder, address = server
    tiny_mnist(folder)
    trust("mnist", folder, address)
    (folder / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(ImageError, match=r"image set 'mnist': could not download .* 404"):
        load_images("mnist")
    assert list((cache / "mnist").iterdir()) == []


def test_a_changed_file_is_read_again(tmp_path: Path, trust: Callable[..., None]) -> None:
    tiny_mnist(tmp_path, shade=1)
    trust("mnist", tmp_path)
    first = load_images("mnist", tmp_path)
    assert load_images("mnist", tmp_path) is first
    tiny_mnist(tmp_path, shade=2)
    os.utime(tmp_path / "train-images-idx3-ubyte.gz", ns=(1, 1))
    with pytest.raises(ImageError, match="MD5"):
        load_images("mnist", tmp_path)


def test_a_path_may_be_the_folder_of_the_set_or_of_several_sets(tmp_path: Path, trust: Callable[..., None]) -> None:
    tiny_mnist(tmp_path / "mnist")
    trust("mnist", tmp_path / "mnist")
    assert load_images("mnist", tmp_path) is load_images("mnist", str(tmp_path / "mnist"))


@pytest.mark.parametrize("name", ["usps", "gtsrb", "cifar10-jpeg", "cifar10-subset"])
def test_a_set_without_an_official_download_says_where_its_file_goes(name: str, cache: Path) -> None:
    with pytest.raises(ImageError) as error:
        load_images(name)
    assert "no official download" in str(error.value) and DATA_VARIABLE in str(error.value)
    assert str(cache) in str(error.value) and ".npz" in str(error.value)


def test_paths_that_cannot_hold_a_set_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="bundled with scikit-learn: leave out the path"):
        load_images("digits", tmp_path)
    with pytest.raises(ImageError, match="neither a file nor a folder"):
        load_images("mnist", tmp_path / "nowhere")
    with pytest.raises(ImageError, match=r"has no train-images-idx3-ubyte\.gz or"):
        load_images("mnist", tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").touch()
    with pytest.raises(ImageError, match="one file, not its folder"):
        load_images("mnist", tmp_path / "train-images-idx3-ubyte.gz")


def test_a_data_folder_that_is_not_there_or_holds_half_a_set_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "typo"))
    with pytest.raises(ImageError, match="typo', which is no folder"):
        load_images("mnist")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    tiny_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ImageError, match=r"has no t10k-labels-idx1-ubyte\.gz: it must hold"):
        load_images("mnist")


def test_neither_copy_of_cifar10_passes_for_the_official_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[Path, str]
) -> None:
    official = SOURCES["cifar10"]
    moved = replace(official.files[0], url=server[1] + "absent.tar.gz")
    monkeypatch.setitem(SOURCES, "cifar10", replace(official, files=(moved,)))
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    (tmp_path / "cifar10").mkdir()
    for name in ("cifar10_lossless_subset.npz", "cifar10_full_jpegbytes.npz"):
        (tmp_path / "cifar10" / name).touch()
    with pytest.raises(ImageError, match="has cifar10-subset and cifar10-jpeg, which are other"):
        load_images("cifar10")


# --- damaged files ---


def test_one_flipped_byte_of_mnist_is_noticed(tmp_path: Path, trust: Callable[..., None]) -> None:
    contents = tiny_mnist(tmp_path)
    trust("mnist", tmp_path)
    name = "train-images-idx3-ubyte.gz"
    flipped = bytearray(contents[name])
    flipped[500] ^= 1
    (tmp_path / name).write_bytes(gzip.compress(bytes(flipped)))
    with pytest.raises(ImageError, match=f"{name} has MD5 .* the official file .*: delete it"):
        load_images("mnist", tmp_path)


def test_gzip_may_be_redone_because_the_content_is_checked(tmp_path: Path, trust: Callable[..., None]) -> None:
    contents = tiny_mnist(tmp_path)
    trust("mnist", tmp_path)
    for name, content in contents.items():
        (tmp_path / name).write_bytes(gzip.compress(content, compresslevel=1, mtime=7))
    assert len(load_images("mnist", tmp_path).train_images) == 5


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-20], "torn, damaged or another file"),
        (lambda raw: raw[:30] + bytes([raw[30] ^ 255]) + raw[31:], "torn, damaged or another"),
        (lambda _: b"not gzip at all", "torn, damaged or another file"),
        (lambda _: b"", "begins with 0x,"),
        (lambda _: gzip.compress(idx(np.zeros(5))), "begins with 0x00000801"),
        (lambda raw: gzip.compress(gzip.decompress(raw) + b"x"), "bytes .* and holds more"),
        (lambda raw: gzip.compress(gzip.decompress(raw)[:-1]), "and holds 3919"),
    ],
)
def test_a_wrong_idx_file_is_one_clear_error(damage: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    tiny_mnist(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ImageError, match=message) as error:
        load_images("mnist", tmp_path)
    assert "train-images-idx3-ubyte.gz" in str(error.value)


def usps_arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    arrays = {
        "train_images": np.arange(6 * 256).reshape(6, 16, 16).astype(np.uint8),
        "train_labels": np.arange(6, dtype=np.uint8),
        "test_images": np.zeros((2, 16, 16), np.uint8),
        "test_labels": np.zeros(2, np.uint8),
    }
    return {**arrays, **changes}


def test_usps_is_read_from_an_npz_of_any_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **usps_arrays())  # pyright: ignore[reportArgumentType]
    usps = load_images("usps", tmp_path / "x.npz")
    assert np.array_equal(usps.train_images[:, 0], usps_arrays()["train_images"])
    assert usps.train_labels.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": np.zeros((6, 8, 8), np.uint8)}, r"expected uint8 of shape \(n, 1, 16"),
        ({"train_images": np.zeros((6, 16, 16))}, "train_images of float64"),
        ({"train_images": np.zeros((6, 16, 16), np.int32)}, "the pictures are int32"),
        ({"train_images": np.zeros((6, 256), np.uint8)}, r"shape \(6, 256\)"),
        ({"train_labels": np.zeros(5, np.uint8)}, "6 pictures need"),
        ({"train_labels": np.full(6, 10, np.uint8)}, "10 classes are numbered 0 to 9"),
        ({"train_labels": np.array([None] * 6)}, "allow_pickle=False"),
    ],
)
def test_an_npz_with_wrong_arrays_is_one_clear_error(
    changes: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "usps.npz", **usps_arrays(**changes))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ImageError, match=message):
        load_images("usps", tmp_path)


def test_an_npz_that_is_none_or_lacks_arrays_is_one_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "usps.npz"
    np.savez(file, train_images=np.zeros(3))
    with pytest.raises(ImageError, match=r"lacks \['train_labels', 'test_images', 'test_labels'\]"):
        load_images("usps", file)
    with file.open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(ImageError, match=r"single array; the set is an \.npz"):
        load_images("usps", file)
    file.write_bytes(b"text")
    with pytest.raises(ImageError, match="torn, damaged or another file"):
        load_images("usps", file)


def test_no_damage_to_an_npz_escapes_as_another_error(tmp_path: Path) -> None:
    file = tmp_path / "usps.npz"
    np.savez_compressed(file, **usps_arrays())  # pyright: ignore[reportArgumentType]
    good = file.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for place, value in zip(random.integers(0, len(good), 300), range(300), strict=True):
        bad = bytearray(good)
        bad[place] = (bad[place] + 1 + value % 255) % 256
        file.write_bytes(bytes(bad[: place + 1]) if value % 4 == 0 else bytes(bad))
        try:
            loading._load.cache_clear()
            load_images("usps", file)
        except ImageError:
            refused += 1
    assert refused > 200  # a few bytes of a zip, such as times, may change


# --- the other official forms, on small files ---


def cifar_archive(path: Path, pictures: np.ndarray, labels: np.ndarray) -> None:
    """The official layout with 2 pictures in each of the five batches and 2 to test."""
    with tarfile.open(path, "w:gz") as archive:
        names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
        records = np.concatenate([labels[:, None], pictures.reshape(-1, 3072)], 1).astype(np.uint8)
        for i in (3, 5, 0, 1, 4, 2):  # an archive promises no order
            content = records[2 * i : 2 * i + 2].tobytes()
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{names[i]}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        member = tarfile.TarInfo("cifar-10-batches-bin/readme.html")
        archive.addfile(member)


def test_cifar10_is_read_from_the_official_binary_archive(tmp_path: Path, trust: Callable[..., None]) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), np.uint8)
    labels = np.arange(12) % 10
    file = tmp_path / "cifar-10-binary.tar.gz"
    cifar_archive(file, pictures, labels)
    with pytest.raises(ImageError, match="c32a1d4ab5d03f1284b67883e8d87530"):
        load_images("cifar10", file)
    trust("cifar10", tmp_path)
    cifar10 = load_images("cifar10", file)
    assert np.array_equal(cifar10.train_images, pictures[:10])
    assert np.array_equal(cifar10.test_images, pictures[10:])
    assert cifar10.train_labels.tolist() == labels[:10].tolist()


def test_an_archive_without_batches_is_one_clear_error(tmp_path: Path, trust: Callable[..., None]) -> None:
    file = tmp_path / "cifar-10-binary.tar.gz"
    for content in (b"no archive", None):
        if content is None:
            with tarfile.open(file, "w:gz"):
                pass
        else:
            file.write_bytes(content)
        trust("cifar10", tmp_path)
        with pytest.raises(ImageError, match="torn, damaged or another file"):
            load_images("cifar10", file)


def svhn_files(folder: Path, **train: np.ndarray) -> np.ndarray:
    """Small files of the official form: X (32, 32, 3, n) and y (n, 1), in which 10 is the digit 0."""
    from scipy.io import savemat

    pictures = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), np.uint8)
    form = {"X": pictures, "y": np.array([[1], [10], [9], [10]], np.uint8)}
    savemat(folder / "train_32x32.mat", {**form, **train}, do_compression=True)
    savemat(folder / "test_32x32.mat", form, do_compression=True)
    return pictures


def test_svhn_is_read_from_the_official_mat_files_and_label_10_is_digit_0(
    tmp_path: Path, trust: Callable[..., None]
) -> None:
    pictures = svhn_files(tmp_path)
    with pytest.raises(ImageError, match="e26dedcc434d2e4c54c9b2d4a06d8373"):
        load_images("svhn", tmp_path)
    trust("svhn", tmp_path)
    svhn = load_images("svhn", tmp_path)
    assert svhn.train_labels.tolist() == [1, 0, 9, 0]
    assert svhn.train_images[2, 1, 5, 7] == pictures[5, 7, 1, 2]
    assert svhn.train_images.shape == svhn.test_images.shape == (4, 3, 32, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.array([[0], [1], [2], [3]])}, "labels outside 1 to 10"),
        ({"X": np.zeros((32, 32, 4), np.uint8)}, "torn, damaged or another file"),
        ({"X": np.zeros((28, 28, 3, 4), np.uint8)}, "expected uint8"),
        ({"X": np.zeros((32, 32, 3, 4))}, "pictures are float64"),
    ],
)
def test_a_mat_file_of_another_form_is_one_clear_error(
    change: dict[str, np.ndarray], message: str, tmp_path: Path, trust: Callable[..., None]
) -> None:
    svhn_files(tmp_path, **change)
    trust("svhn", tmp_path)
    with pytest.raises(ImageError, match=message):
        load_images("svhn", tmp_path)


def jpeg_copy(path: Path, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    """The JPEG copy's form with 3 + 2 flat pictures; returns their colours (5, 3)."""
    colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200], [9, 9, 9], [250, 250, 250]])
    arrays = {}
    for part, chosen in (("train", colours[:3]), ("test", colours[3:])):
        files = []
        for colour in chosen:
            buffer = io.BytesIO()
            Image.new("RGB", size, tuple(int(c) for c in colour)).save(buffer, "JPEG", quality=95)
            files.append(buffer.getvalue())
        arrays[f"{part}_jpeg"] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, files)])
        arrays[f"{part}_labels"] = np.arange(len(files), dtype=np.uint8)
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]
    return colours


def test_the_jpeg_copy_is_decoded_once_and_then_taken_from_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colours = jpeg_copy(tmp_path / "c.npz")
    first = load_images("cifar10-jpeg", tmp_path / "c.npz")
    decoded = np.concatenate([first.train_images, first.test_images])
    assert np.abs(decoded.mean((2, 3)) - colours).max() < 4  # what JPEG loses on a flat picture
    assert "lossy" in first.note
    [kept] = (cache / "cifar10").iterdir()

    with monkeypatch.context() as patch:
        patch.setattr(readers, "_decode", lambda *_: pytest.fail("decoded again"))
        loading._load.cache_clear()
        again = load_images("cifar10-jpeg", tmp_path / "c.npz")
    assert np.array_equal(first.train_images, again.train_images)
    assert np.array_equal(first.test_images, again.test_images)

    torn = kept.read_bytes()[:-100]
    with kept.open("wb") as stream:
        np.save(stream, np.zeros((4, 3, 32, 32), np.uint8))
    for bad in (kept.read_bytes(), torn):  # decoded again, and mended
        kept.write_bytes(bad)
        loading._load.cache_clear()
        mended = load_images("cifar10-jpeg", tmp_path / "c.npz")
        assert np.array_equal(first.train_images, mended.train_images)
        assert np.load(kept).shape == (5, 3, 32, 32)


def test_another_jpeg_copy_does_not_get_the_first_ones_pixels(tmp_path: Path, cache: Path) -> None:
    jpeg_copy(tmp_path / "c.npz")
    load_images("cifar10-jpeg", tmp_path / "c.npz")
    arrays = dict(np.load(tmp_path / "c.npz"))
    arrays["train_labels"] = arrays["train_labels"][::-1]
    np.savez(tmp_path / "d.npz", **arrays)
    load_images("cifar10-jpeg", tmp_path / "d.npz")
    assert len(list((cache / "cifar10").iterdir())) == 2


def test_the_jpeg_copy_loads_where_the_cache_cannot_be_written(tmp_path: Path, cache: Path) -> None:
    cache.parent.mkdir()
    cache.touch()  # a file where the folder should be: refused even to root
    jpeg_copy(tmp_path / "c.npz")
    assert len(load_images("cifar10-jpeg", tmp_path / "c.npz").train_images) == 3


def test_damaged_jpegs_are_one_clear_error(tmp_path: Path) -> None:
    jpeg_copy(tmp_path / "c.npz")
    arrays = dict(np.load(tmp_path / "c.npz"))
    torn = {**arrays, "train_jpeg": arrays["train_jpeg"][:-5]}
    blank = {**arrays, "train_jpeg": np.zeros_like(arrays["train_jpeg"])}
    backwards = {**arrays, "train_offsets": arrays["train_offsets"][[0, 2, 1, 3]]}
    for changed, message in (
        (torn, "offsets do not divide"),
        (blank, "torn, damaged or another"),
        (backwards, "offsets do not divide"),
    ):
        np.savez(tmp_path / "c.npz", **changed)
        with pytest.raises(ImageError, match=message):
            load_images("cifar10-jpeg", tmp_path / "c.npz")
    jpeg_copy(tmp_path / "c.npz", size=(48, 32))
    with pytest.raises(ImageError, match=r"is \(48, 32\) pixels"):
        load_images("cifar10-jpeg", tmp_path / "c.npz")


# --- real files ---


@needs_real_files
@pytest.mark.parametrize(
    ("name", "shape", "train", "test", "classes"),
    [
        ("mnist", (1, 28, 28), 60000, 10000, 10),
        ("fashion-mnist", (1, 28, 28), 60000, 10000, 10),
        ("cifar10-subset", (3, 32, 32), 8068, 1017, 10),
        ("usps", (1, 16, 16), 7291, 2007, 10),
        ("gtsrb", (3, 32, 32), 7119, 1760, 43),
    ],
)
def test_a_real_set_is_whole(
    name: str, shape: tuple[int, int, int], train: int, test: int, classes: int, real: Path
) -> None:
    source = SOURCES[name]
    if not (real / source.folder / source.files[0].name).is_file():
        pytest.skip(f"{name} is not in the folder of image files")
    images = load_images(name)
    assert (images.shape, len(images.train_images), len(images.test_images)) == (shape, train, test)
    assert set(images.train_labels.tolist()) == set(range(classes))
    mean, std = channel_statistics(images)
    pixels = images.train_images / 255  # float64, the slow way
    assert np.allclose(mean, pixels.mean((0, 2, 3)), atol=1e-6)
    assert np.allclose(std, pixels.std((0, 2, 3)), atol=1e-6)
    # In any prefix every class is there, so `count` never leaves a set of few classes.
    assert len(set(prepare(images, count=1000).train_labels.tolist())) == classes


@needs_real_files
def test_one_flipped_bit_of_the_real_mnist_is_noticed(real: Path, tmp_path: Path) -> None:
    if not (real / "mnist").is_dir():
        pytest.skip("mnist is not in the folder of image files")
    for file in (real / "mnist").iterdir():
        (tmp_path / file.name).symlink_to(file)
    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(labels.read_bytes()))
    content[-1] ^= 1
    labels.unlink()
    labels.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(ImageError, match="27ae3e4e09519cfbb04c329615203637"):
        load_images("mnist", tmp_path)


@needs_real_files
@pytest.mark.slow
def test_the_jpeg_copy_shows_the_official_pictures_with_loss(real: Path) -> None:
    if not (real / "cifar10" / "cifar10_full_jpegbytes.npz").is_file():
        pytest.skip("the JPEG copy is not in the folder of image files")
    lossy, exact = load_images("cifar10-jpeg"), load_images("cifar10-subset")
    with np.load(real / "cifar10" / "cifar10_lossless_subset.npz") as archive:
        place = archive["test_index"]
    assert lossy.train_images.shape == (50000, 3, 32, 32)
    assert np.array_equal(lossy.test_labels[place], exact.test_labels)
    error = (lossy.test_images[place].astype(float) - exact.test_images) ** 2
    quality = 10 * np.log10(255**2 / error.mean((1, 2, 3)))
    assert 29 < quality.mean() < 32  # dB; 30.5 over all pictures, by the description of the files


# --- prepare and standardise ---


def test_asking_for_what_is_there_changes_nothing() -> None:
    images = small_set()
    assert prepare(images) is images
    assert prepare(images, size=6, channels=3, count=7) is images
    fewer = prepare(images, count=2)
    assert fewer.test_images is images.test_images and fewer.test_labels is images.test_labels
    assert np.array_equal(fewer.train_images, images.train_images[:2])
    assert fewer.train_labels.tolist() == [0, 1]
    assert fewer.note == "made up; first 2 training pictures"


def test_preparing_again_gives_the_same_object() -> None:
    digits = load_images("digits")
    assert prepare(digits, 14, 3, 100) is prepare(load_images("digits"), 14, 3, 100)


def test_an_integer_factor_is_a_block_mean() -> None:
    images = small_set(size=6)
    half = prepare(images, size=3)
    pixels = images.train_images.astype(int)
    corner = pixels[:, :, :2, :2].sum((2, 3))
    assert np.array_equal(half.train_images[:, :, 0, 0], (corner + 2) // 4)  # rounded half up
    assert half.test_images.shape == (4, 3, 3, 3)
    assert "resized to 3x3 by block mean" in half.note
    third = prepare(images, size=2)
    assert np.array_equal(third.train_images, np.floor(pixels.reshape(7, 3, 2, 3, 2, 3).mean((3, 5)) + 0.5))


@pytest.mark.parametrize("size", [4, 9, 12])
def test_any_other_size_is_pillows_bilinear_filter(size: int) -> None:
    images = small_set()
    resized = prepare(images, size=size)
    picture = Image.fromarray(images.train_images[3].transpose(1, 2, 0))
    expected = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
    assert np.array_equal(resized.train_images[3], expected.transpose(2, 0, 1))
    assert "bilinear" in resized.note


def test_a_fine_pattern_shrinks_to_its_mean_and_not_to_its_stripes() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (1, 1, 32, 16))
    labels = np.zeros(1, np.int64)
    shrunk = prepare(ImageSet("stripes", stripes, labels, stripes, labels, 1, ""), size=10)
    assert np.abs(shrunk.train_images.astype(int) - 127.5).max() < 40  # aliasing would give 0 or 255


def test_grey_is_the_luma_that_pillow_computes() -> None:
    images = small_set(size=32, train=20)
    grey = prepare(images, channels=1)
    for ours, theirs in zip(grey.train_images, images.train_images, strict=True):
        picture = Image.fromarray(theirs.transpose(1, 2, 0)).convert("L")
        assert np.array_equal(ours[0], np.asarray(picture))


def test_grey_pictures_are_repeated_in_three_channels_and_come_back() -> None:
    images = small_set(channels=1)
    colour = prepare(images, channels=3)
    assert colour.shape == (3, 6, 6)
    assert all(np.array_equal(colour.train_images[:, [c]], images.train_images) for c in range(3))
    assert np.array_equal(prepare(colour, channels=1).train_images, images.train_images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size is 0"),
        ({"channels": 2}, "cannot make 2 channels from 3"),
        ({"count": 0}, "1 to 7 training pictures"),
        ({"count": 8}, "count is 8: image set 'small' has 1 to 7"),
    ],
)
def test_what_cannot_be_prepared_is_explained(change: dict[str, int], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        prepare(small_set(), **change)


def test_standardised_training_pictures_have_mean_0_and_deviation_1() -> None:
    images = prepare(load_images("digits"), channels=3)
    mean, std = channel_statistics(images)
    pixels = standardise(images.train_images, mean, std)
    assert pixels.dtype == np.float32 and pixels.shape == images.train_images.shape
    assert np.allclose(pixels.mean((0, 2, 3), dtype=np.float64), 0, atol=1e-5)
    assert np.allclose(pixels.std((0, 2, 3), dtype=np.float64), 1, atol=1e-5)
    one = standardise(images.test_images[3], mean, std)  # a single picture, the same way
    assert np.array_equal(one, standardise(images.test_images, mean, std)[3])


def test_a_channel_that_never_varies_becomes_zero_and_not_nan() -> None:
    images = small_set()
    flat = images.train_images.copy()
    flat[:, 1] = 77
    changed = replace(images, train_images=flat)
    mean, std = channel_statistics(changed)
    assert std[1] == 1
    assert np.abs(standardise(changed.train_images, mean, std)[:, 1]).max() < 1e-6


def test_statistics_of_other_pictures_are_refused() -> None:
    grey, colour = small_set(channels=1), small_set()
    with pytest.raises(ImageError, match=r"for uint8 of shape \(\.\.\., 1, height, width\)"):
        standardise(colour.train_images, *channel_statistics(grey))
