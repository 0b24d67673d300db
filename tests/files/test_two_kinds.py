"""A file is what its content says; one that different programs would read differently is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

from weightspace.errors import UnreadableError
from weightspace.files.checkpoints import outlines, read
from weightspace.files.kinds import kinds_of

CLEAN = {"weight": torch.arange(12.0).reshape(3, 4), "bias": torch.zeros(3)}
OTHER = {"weight": torch.full((3, 4), 9.0), "bias": torch.ones(3)}


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def safetensors_of(entries: dict[str, Any], data: bytes, length: int | None = None) -> bytes:
    raw = json.dumps(entries).encode()
    raw += b" " * ((length or len(raw)) - len(raw))
    return struct.pack("<Q", len(raw)) + raw + data


def around(content: bytes, length: int | None = None) -> bytes:
    """A safetensors file of the clean network, with some bytes as an array of whole numbers at its end."""
    content = bytes(-len(content) % 8) + content
    weight = CLEAN["weight"].numpy().tobytes()
    entries = {
        "weight": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]},
        "more": {"dtype": "I64", "shape": [len(content) // 8], "data_offsets": [48, 48 + len(content)]},
    }
    return safetensors_of(entries, weight + content, length)


def test_a_header_whose_length_spells_a_zip_around_another_network_is_of_two_kinds(tmp_path: Path) -> None:
    (spelt,) = struct.unpack("<Q", b"PK\x03\x04\0\0\0\0")
    path = tmp_path / "model.bin"
    packed = rezipped(lambda parts: parts, OTHER)
    begin = len(around(packed, spelt)) - len(packed)
    path.write_bytes(around(moved(packed, begin), spelt))
    assert load_file(path)["weight"].equal(CLEAN["weight"])
    # PyTorch finds the zip from the end of the file, because the file begins as a zip does
    assert torch.load(path, weights_only=True)["weight"].equal(OTHER["weight"])
    assert kinds_of(path) == ("safetensors", "pytorch")
    with pytest.raises(UnreadableError, match="it is of two kinds, safetensors and a zip of PyTorch's"):
        outlines(path)


def numpy_zip() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.ones(3))
    return buffer.getvalue()


def as_tar(content: bytes) -> bytes:
    """A tar archive whose first file is called by the first bytes of a pickle."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        packed.addfile(tarfile.TarInfo("x" * 99), None)
    raw = bytearray(buffer.getvalue())
    raw[: len(content)] = content
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    return bytes(raw)


TWO: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "safetensors, then a zip": (lambda: around(saved(OTHER)), ("safetensors", "pytorch")),
    "safetensors, then numpy's zip": (lambda: around(numpy_zip()), ("safetensors", "npz")),
    "a pickle, then a zip": (
        lambda: saved(CLEAN, _use_new_zipfile_serialization=False) + saved(OTHER),
        ("pickle", "pytorch"),
    ),
    "a pickle, then HDF5": (
        lambda: pickle.dumps(list(range(200))).ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n" + bytes(100),
        ("hdf5", "pickle"),
    ),
    "a pickle that is a tar": (lambda: as_tar(b"\x80\x02N."), ("tar", "pickle")),
    "safetensors that begins as a pickle": (
        # The length begins with T, which takes the next 16 bytes for a text; the array's name goes on from there
        lambda: safetensors_of(
            {"a" * 11 + "0(d.": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4), 0x1054
        ),
        ("safetensors", "pickle"),
    ),
}


@pytest.mark.parametrize("case", TWO)
def test_a_file_of_two_kinds_is_refused_whatever_it_is_called(case: str, tmp_path: Path) -> None:
    make, kinds = TWO[case]
    for name in ("a.safetensors", "a.pt", "a"):
        (tmp_path / name).write_bytes(make())
        assert set(kinds_of(tmp_path / name)) == set(kinds)
        with pytest.raises(UnreadableError, match="of two kinds"):
            outlines(tmp_path / name)


def entry(name: str, raw: bytes) -> tuple[zipfile.ZipInfo, bytes]:
    return zipfile.ZipInfo(name), raw


def moved(content: bytes, by: int) -> bytes:
    """A zip whose directory counts from the beginning of a larger file."""
    raw = bytearray(content)
    length, place = struct.unpack_from("<12xII", raw, len(raw) - 22)
    struct.pack_into("<I", raw, len(raw) - 6, place + by)
    end = place + length
    while place < end:
        name, extra, comment, header = struct.unpack_from("<28xHHH8xI", raw, place)
        struct.pack_into("<I", raw, place + 42, header + by)
        place += 46 + name + extra + comment
    return bytes(raw)


def rezipped(
    change: Callable[[list[tuple[zipfile.ZipInfo, bytes]]], list[tuple[zipfile.ZipInfo, bytes]]], value: Any = CLEAN
) -> bytes:
    """A file of `torch.save` with other parts."""
    with zipfile.ZipFile(io.BytesIO(saved(value))) as packed:
        parts = [entry(part.filename, packed.read(part)) for part in packed.infolist()]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for part, raw in change(parts):
            packed.writestr(part, raw)
    return buffer.getvalue()


def renamed_inside(content: bytes) -> bytes:
    """The header of a part says another name than the directory."""
    place = content.index(b"archive/data/0")
    return content[:place] + b"archive/data/7" + content[place + 14 :]


ODD_ZIPS: dict[str, tuple[Callable[[], bytes], str]] = {
    "in front": (lambda: bytes(64) + saved(CLEAN), "its zip is torn"),
    "in front, counted": (lambda: bytes(64) + moved(rezipped(lambda p: p), 64), "before its zip"),
    "behind": (lambda: saved(CLEAN) + b"more", "torn, or something stands behind"),
    "case": (lambda: rezipped(lambda p: [*p, entry("archive/DATA.PKL", b"N.")]), "two parts called"),
    "folder": (lambda: rezipped(lambda p: [*p, entry("other/data.pkl", b"N.")]), "more than one folder"),
    "header": (lambda: renamed_inside(saved(CLEAN)), "described in two ways"),
    "backslash": (lambda: rezipped(lambda p: [*p, entry("archive/data.pkl\x01", b"N.")]), "is called"),
    "big-endian": (
        lambda: rezipped(lambda p: [(i, b"big" if i.filename.endswith("byteorder") else raw) for i, raw in p]),
        "big-endian",
    ),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", ODD_ZIPS)
def test_a_zip_that_programs_read_differently_is_refused(case: str, tmp_path: Path) -> None:
    make, said = ODD_ZIPS[case]
    (tmp_path / "a.pt").write_bytes(make())
    with pytest.raises(UnreadableError, match=said):
        outlines(tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_parts_of_one_name_neither_is_believed(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(rezipped(lambda p: [*p, entry("archive/data/0", bytes(48))]))
    with pytest.raises(UnreadableError, match="two parts called 'archive/data/0'"):
        outlines(tmp_path / "a.pt")


def test_an_ordinary_zip_made_anew_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(rezipped(lambda p: p))
    (found,) = outlines(tmp_path / "a.pt")
    np.testing.assert_array_equal(read(found, ["weight"])["weight"], CLEAN["weight"].numpy())


def test_no_name_changes_what_a_file_is(tmp_path: Path) -> None:
    torch.save(CLEAN, tmp_path / "model.safetensors")
    assert outlines(tmp_path / "model.safetensors")[0].kind == "pytorch"
    save_file({"w": np.ones(2, np.float32)}, tmp_path / "final.pt2")
    assert outlines(tmp_path / "final.pt2")[0].kind == "safetensors"
    save_file({"w": np.ones(2, np.float32)}, tmp_path / "net.onnx")
    assert outlines(tmp_path / "net.onnx")[0].kind == "safetensors"


def test_ordinary_texts_are_of_no_kind(tmp_path: Path) -> None:
    for number, text in enumerate(("", "these are no weights at all", "N", "I am\nVery\nLong\n" * 40, "# title\n" * 9)):
        path = tmp_path / f"{number}.txt"
        path.write_text(text)
        assert kinds_of(path) == ()
    folder = Path(__file__).parents[1]
    assert all(kinds_of(path) == () for path in sorted(folder.rglob("*.py"))[:40])


def test_what_is_no_regular_file_is_said_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "link.pt").symlink_to(tmp_path / "pipe.pt")
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "dangling.pt").symlink_to(tmp_path / "nowhere")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "socket.pt"))
    for name, said in {
        "pipe": "but a FIFO",
        "link": "but a FIFO",
        "folder": "is a folder",
        "dangling": "there is no file",
        "missing": "there is no file",
        "socket": "but a socket",
    }.items():
        for look in (kinds_of, outlines):
            with pytest.raises(UnreadableError, match=said):
                look(tmp_path / f"{name}.pt")


def test_a_file_that_changes_between_look_and_reading_is_not_believed(tmp_path: Path) -> None:
    for path in (tmp_path / "a.pt", tmp_path / "a.safetensors"):
        torch.save(CLEAN, path) if path.suffix == ".pt" else save_file({"weight": np.ones((3, 4), np.float32)}, path)
        (found,) = outlines(path)
        content = bytearray(path.read_bytes())
        path.unlink()
        path.write_bytes(content)
        os.utime(path, ns=(1, 1))
        with pytest.raises(UnreadableError, match="changed while it was read"):
            read(found, ["weight"])
