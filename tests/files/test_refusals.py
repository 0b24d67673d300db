"""What is large is read in pieces; what lies, is odd or changes while it is read is refused, and at once."""

from __future__ import annotations

import io
import json
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from weightspace.errors import UnreadableError
from weightspace.files import checkpoints, onnx
from weightspace.files.checkpoints import outlines, pieces, read


def headed(header: str | bytes, body: bytes = b"") -> bytes:
    raw = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(raw)) + raw + body


def npy(array: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.save(held, array)
    return held.getvalue()


def zipped(path: Path, parts: dict[str, bytes], **odd: int) -> Path:
    """A zip; each keyword is an attribute that the first part gets in the directory."""
    with zipfile.ZipFile(path, "w") as made:
        for place, (name, content) in enumerate(parts.items()):
            entry = zipfile.ZipInfo(name)
            for key, value in odd.items() if place == 0 else ():
                setattr(entry, key, value)
            made.writestr(entry, content)
    return path


# -- large arrays ------------------------------------------------------------------------------------------------------


def test_an_array_is_the_same_whole_and_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {"w": np.arange(30, dtype=np.float32).reshape(5, 6), "h": np.arange(9, dtype=np.float16), "b": np.ones(2)}
    save_file(arrays, tmp_path / "a.safetensors")
    torch.save(
        {name: torch.from_numpy(one) for name, one in arrays.items()} | {"t": torch.ones(4, 3).T}, tmp_path / "a.pt"
    )
    np.savez(tmp_path / "a.npz", **arrays)
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    for name in ("a.safetensors", "a.pt", "a.npz", "b.npz"):
        found = outlines(tmp_path / name)[0]
        whole = read(found, list(found.floating))
        with monkeypatch.context() as patch:
            patch.setattr(checkpoints, "_AT_ONCE", 7)
            cut = read(found, list(found.floating))
        for key, one in whole.items():
            assert one.shape == cut[key].shape == found.shapes[key]
            np.testing.assert_array_equal(one, cut[key])
        np.testing.assert_array_equal(cut["w"], arrays["w"])


def test_a_quantised_array_of_millions_of_numbers_is_read(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="the extra gguf is not installed")
    kind = gguf.GGMLQuantizationType.Q8_0
    packed = np.tile(gguf.quantize(np.linspace(-1, 1, 2**16, dtype=np.float32).reshape(-1, 1024), kind), (80, 1))
    made = gguf.GGUFWriter(str(tmp_path / "a.gguf"), "llama")
    made.add_tensor("w", packed, raw_dtype=kind)
    for step in ("header", "kv_data", "tensors"):
        getattr(made, f"write_{step}_to_file")()
    made.close()
    (found,) = outlines(tmp_path / "a.gguf")
    assert found.size == 80 * 2**16 > 2**22
    np.testing.assert_array_equal(read(found, ["w"])["w"], gguf.dequantize(packed, kind))


# -- files that change -------------------------------------------------------------------------------------------------


def test_a_file_that_changes_while_it_is_looked_at_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": np.ones(4, np.float32)}, path)
    real = checkpoints.header_in

    def header_in(*given: Any) -> Any:
        found = real(*given)
        save_file({"w": np.zeros(5, np.float32)}, path)
        return found

    monkeypatch.setattr(checkpoints, "header_in", header_in)
    with pytest.raises(UnreadableError, match="changed while it was read: wait until it is written"):
        outlines(path)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.npz"])
def test_a_file_that_changes_before_its_numbers_are_read_or_between_them_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name

    def write(value: float) -> None:
        arrays = {"w": np.full(9, value, np.float32)}
        if name == "a.pt":
            torch.save({"w": torch.from_numpy(arrays["w"])}, path)
        else:
            (save_file if name == "a.safetensors" else lambda given, to: np.savez(to, **given))(arrays, path)

    write(1)
    (found,) = outlines(path)
    parts = pieces(found, "w", 4)
    assert next(parts).tolist() == [1, 1, 1, 1]
    time.sleep(0.02)  # a clock of files ticks a hundred times a second
    write(2)
    with pytest.raises(UnreadableError, match="changed while it was read"):
        list(parts)
    with pytest.raises(UnreadableError, match="changed while it was read"):
        read(found, ["w"])


# -- zips --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attributes", [0x10, 0o040755 << 16, 0o120777 << 16, 0o010644 << 16])
def test_a_part_with_content_that_is_said_to_be_no_file_is_refused(attributes: int, tmp_path: Path) -> None:
    parts = {"w.npy": npy(np.ones(3, "f4")), "b.npy": npy(np.ones(2, "f4"))}
    assert list(outlines(zipped(tmp_path / "a.npz", parts, external_attr=0o100644 << 16))[0].shapes) == ["w", "b"]
    with pytest.raises(UnreadableError, match=r"part 'w.npy' of its zip is said to be a "):
        outlines(zipped(tmp_path / "b.npz", parts, external_attr=attributes))


def test_a_folder_without_content_is_no_array_and_one_with_content_is_refused(tmp_path: Path) -> None:
    parts = {"folder/": b"", "w.npy": npy(np.ones(3, "f4"))}
    assert list(outlines(zipped(tmp_path / "a.npz", parts, external_attr=0o040755 << 16 | 0x10))[0].shapes) == ["w"]
    with pytest.raises(UnreadableError, match="part 'folder/' of its zip is said to be a folder"):
        outlines(zipped(tmp_path / "b.npz", {"folder/": npy(np.ones(2)), "w.npy": npy(np.ones(3))}))


def test_an_npz_names_its_arrays_as_numpy_does(tmp_path: Path) -> None:
    one, other = np.arange(3, dtype="f4"), np.zeros(2, "f4")
    path = zipped(tmp_path / "a.npz", {"w.npy": npy(one), "odd.txt": npy(other), "readme": b"text"})
    (found,) = outlines(path)
    assert list(found.shapes) == ["w", "odd.txt"]
    with np.load(path) as theirs:
        assert np.array_equal(read(found, ["odd.txt"])["odd.txt"], theirs["odd.txt"])
    for names in (("w.npy", "w"), ("w", "w.npy"), ("w.npy", "w.npy.npy")):
        with pytest.raises(UnreadableError, match=r"are both called .* by numpy"):
            outlines(zipped(path, {name: npy(value) for name, value in zip(names, (one, other), strict=True)}))


# -- headers -----------------------------------------------------------------------------------------------------------

SAID = '{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[0,4]", "[0,4.0]"),
        ("[0,4]", "[false,4]"),
        ("[0,4]", '{"0":1,"4":2}'),
        ("[1]", '""'),
        ("[1]", "{}"),
        ("[1]", "[true]"),
        ("[1]", "[1.0]"),
        ("[0,4]", "[0,4,4]"),
        ('{"w"', '{"__metadata__":{"a":1},"w"'),
        ('{"w"', '{"__metadata__":["a"],"w"'),
        ('"dtype"', '"x":NaN,"dtype"'),
    ],
)
def test_a_header_that_only_looks_right_is_refused(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(headed(SAID, bytes(4)))
    assert outlines(path)[0].shapes == {"w": (1,)}
    path.write_bytes(headed(SAID.replace(old, new), bytes(4)))
    with pytest.raises(UnreadableError, match="is not a whole safetensors file"):
        outlines(path)


@pytest.mark.parametrize("shape", [[0, 2**62], [0, 2**62, 2**62], [1] * 65, [3, 0, 2**58]])
def test_a_shape_that_numpy_cannot_hold_is_refused_in_every_kind_of_file(shape: list[int], tmp_path: Path) -> None:
    end = 0 if 0 in shape else 4
    entry = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}})
    (tmp_path / "a.safetensors").write_bytes(headed(entry, bytes(end)))
    with pytest.raises(UnreadableError, match=r"array 'w' has \d+ axes, for more numbers than any program holds"):
        outlines(tmp_path / "a.safetensors")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    tensor = onnx.TensorProto(name="w", data_type=1, dims=shape, raw_data=bytes(end))
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor]))
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UnreadableError, match=r"axes, for more numbers than|a length below 0, or beyond all files"):
        outlines(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (struct.pack("<IQQ", 3, 2**40, 0), "said to have 1,099,511,627,776 tensors"),
        (struct.pack("<IQQ", 3, 1, 2**40), "said to have 1,099,511,627,776 keys"),
        (struct.pack("<IQQQ1sIIQ", 3, 1, 1, 1, b"k", 9, 8, 2**40), "lists of more than 2,097,152 texts"),
        (struct.pack("<IQQ", 3, 1000, 0), "an array has no name"),
        (struct.pack("<IQQ", 3, 1, 1000), "has no name"),
    ],
)
def test_a_gguf_header_without_end_is_refused_at_once(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF" + content)
        file.truncate(2**33)  # takes no room on the disk
    begun = time.process_time()
    with pytest.raises(UnreadableError, match=said):
        outlines(path)
    assert time.process_time() - begun < 1


def field(number: int, content: bytes) -> bytes:
    """A field of protobuf: a message, or a text, of less than 2**21 bytes."""
    size = len(content)
    return bytes([number << 3 | 2, size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + content


def test_more_entries_than_memory_may_hold_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tiny ones each may take a hundred times its bytes; they are refused before they are built."""
    monkeypatch.setattr(onnx, "MOST_TENSORS", 2_000)
    monkeypatch.setattr(onnx, "MOST_NODES", 3_000)
    many = ",".join(f'"{number}":""' for number in range(800_000))
    graph = b"".join(field(5, field(8, b"%d" % number)) for number in range(3_000))
    nodes = b"".join(field(1, field(2, b"%d" % number)) for number in range(4_000))
    files = {
        "a.safetensors": headed(
            f'{{"__metadata__":{{{many}}},"w":{{"dtype":"F32","shape":[],"data_offsets":[0,4]}}}}', b"1234"
        ),
        "model.safetensors.index.json": f'{{"weight_map":{{{many}}}}}'.encode(),
        "a.onnx": b"\x3a" + varint(len(graph)) + graph,
        "b.onnx": b"\x3a" + varint(len(nodes)) + nodes,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableError, match=r"more than (786,432 values|2,000 tensors or 3,000 nodes)"):
            outlines(tmp_path / name)


def varint(number: int) -> bytes:
    return bytes([number & 127 | 128, number >> 7 & 127 | 128, number >> 14 & 127 | 128, number >> 21])


def test_a_tensor_that_is_said_to_lie_nowhere_is_read_and_said(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.arange(3.0)}, path, _use_new_zipfile_serialization=False)
    raw = path.read_bytes()
    for location in (b"meta", b"mps", b"cuda:7", b""):
        path.write_bytes(raw.replace(b"X\3\0\0\0cpu", b"X" + struct.pack("<I", len(location)) + location))
        (found,) = outlines(path)
        assert read(found, ["w"])["w"].tolist() == torch.load(path, map_location="cpu")["w"].tolist() == [0, 1, 2]
        assert any("said to lie nowhere (meta)" in note for note in found.notes) == (location == b"meta")
