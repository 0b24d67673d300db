"""Every kind of file gives the numbers that its own library reads; weights only, and nothing outside its folder."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from weightspace.errors import UnreadableError
from weightspace.files.checkpoints import outlines, pieces, read
from weightspace.files.kinds import kinds_of
from weightspace.files.shards import index_beside


def state(seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    shapes = {"a.weight": (4, 6), "a.bias": (4,), "b.weight": (2, 3, 5), "scalar": (), "none": (0, 3)}
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def check(path: Path, expected: dict[str, np.ndarray], part: tuple[str, ...] = ()) -> Any:
    """An outline whose arrays are these, read whole and in pieces."""
    (found,) = [one for one in outlines(path) if one.part == part]
    assert list(found.floating) == list(expected)
    for name, array in read(found, list(expected)).items():
        assert array.dtype == np.float32 and array.shape == expected[name].shape
        np.testing.assert_array_equal(array, expected[name].astype(np.float32))
        cut = np.concatenate([*pieces(found, name, 7), np.zeros(0, np.float32)])
        np.testing.assert_array_equal(cut, array.reshape(-1))
    return found


class Module(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)])
        self.blocks[1].weight = self.blocks[0].weight  # tied
        self.factor = torch.tensor([1.0, 2.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x)).mean((2, 3))
        for block in self.blocks:
            x = block(x) * self.factor[0]
        return x


def floats(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: one.numpy() for name, one in module.state_dict().items() if one.is_floating_point()}


# -- safetensors -------------------------------------------------------------------------------------------------------


def headed(text: str, data: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode() + data


def test_metadata_that_is_null_is_no_metadata_as_for_the_formats_own_library(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    entry = '"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    path.write_bytes(headed(f'{{"__metadata__":null,{entry}}}', np.ones(2, "f4").tobytes()))
    with safe_open(path, "numpy") as theirs:
        np.testing.assert_array_equal(theirs.get_tensor("w"), [1, 1])
    assert check(path, {"w": np.ones(2)}).metadata == {}


def test_a_safetensors_file_without_arrays_is_unreadable(tmp_path: Path) -> None:
    for content in ("{}", '{"__metadata__":{"a":"b"}}'):
        (tmp_path / "a.safetensors").write_bytes(headed(content, b""))
        with pytest.raises(UnreadableError, match="holds no arrays"):
            outlines(tmp_path / "a.safetensors")


# -- PyTorch's programs ------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["scripted", "traced"])
def test_torchscript_gives_its_state_dict_without_running_code(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Module().eval()
    made: Any = torch.jit.script(module) if how == "scripted" else torch.jit.trace(module, torch.zeros(1, 3, 8, 8))
    torch.jit.save(made, tmp_path / "a.pt")
    assert kinds_of(tmp_path / "a.pt") == ("torchscript",)
    theirs = {name: one.numpy() for name, one in made.state_dict().items() if one.is_floating_point()}
    found = outlines(tmp_path / "a.pt")[0]
    ours = read(found, list(found.floating))
    assert set(ours) == set(theirs)
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name])
    assert any("It is TorchScript: its weights were read, its code was not run" in note for note in found.notes)


@pytest.mark.filterwarnings("ignore")
def test_a_frozen_torchscript_has_its_weights_as_constants(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()).eval()
    torch.jit.save(torch.jit.freeze(torch.jit.script(module)), tmp_path / "a.pt")
    (found,) = outlines(tmp_path / "a.pt")
    assert found.part == ("constants",)
    arrays = list(read(found, list(found.floating)).values())
    for name, expected in floats(module).items():
        assert any(array.shape == expected.shape and np.array_equal(array, expected) for array in arrays), name


@pytest.mark.filterwarnings("ignore")
def test_torchscript_whose_code_makes_its_weights_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Module().eval()), tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as packed:
        parts = {part.filename: packed.read(part) for part in packed.infolist()}
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as packed:
        for name, content in parts.items():
            more = b"\n  def __setstate__(self, state):\n    pass\n" if name.endswith("conv.py") else b""
            packed.writestr(name, content + more)
    with pytest.raises(UnreadableError, match="makes its weights by code"):
        outlines(tmp_path / "b.pt")


@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_gives_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Module().eval()
    torch.export.save(torch.export.export(module, (torch.zeros(1, 3, 8, 8),)), tmp_path / "final.pt2")
    assert kinds_of(tmp_path / "final.pt2") == ("pt2",)
    (found,) = outlines(tmp_path / "final.pt2")
    ours, theirs = read(found, list(found.floating)), floats(module)
    assert set(ours) == set(theirs)
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name])
    assert "the program was not looked at" in found.notes[0]


# -- ONNX --------------------------------------------------------------------------------------------------------------


def onnx_model(arrays: dict[str, np.ndarray], constants: dict[str, np.ndarray] | None = None) -> Any:
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    from onnx import TensorProto, helper, numpy_helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
        for name, array in (constants or {}).items()
    ]
    nodes.append(helper.make_node("Identity", ["x"], ["y"]))
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    held = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    assert onnx is not None
    return helper.make_model(helper.make_graph(nodes, "g", [value], [out], held))


def test_onnx_gives_initialisers_and_constants(tmp_path: Path) -> None:
    arrays = state()
    constants = {"c.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "axis": np.array([1])}
    model = onnx_model(arrays, {**constants, "epsilon": np.array(1e-5, np.float32)})
    (tmp_path / "model").write_bytes(model.SerializeToString())
    assert kinds_of(tmp_path / "model") == ("onnx",)
    found = check(tmp_path / "model", {"c.weight": constants["c.weight"], **arrays})  # in the order of the file
    assert "1 of its arrays are constants of nodes." in found.notes


@pytest.mark.parametrize("dtype", ["FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16"])
def test_onnx_numbers_that_are_no_raw_bytes_are_what_onnx_reads(dtype: str, tmp_path: Path) -> None:
    model = onnx_model({})
    from onnx import TensorProto, helper, numpy_helper

    tensor = helper.make_tensor("w", getattr(TensorProto, dtype), [2, 3], [0.5, -1.0, 2.0, 3.0, -0.0, 1e3])
    assert not tensor.raw_data
    model.graph.initializer.append(tensor)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    check(tmp_path / "a.onnx", {"w": np.asarray(numpy_helper.to_array(tensor))})


def external(folder: Path, **entries: str) -> Path:
    """A model whose weights lie in another file, with a place of our choice."""
    import onnx

    model = onnx_model({"w": np.arange(300, dtype=np.float32), "b": np.ones(3, np.float32)})
    onnx.save(model, str(folder / "a.onnx"), save_as_external_data=True, location="a.onnx.data", size_threshold=0)
    model = onnx.load(str(folder / "a.onnx"), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = entries.get(entry.key, entry.value)
    (folder / "a.onnx").write_bytes(model.SerializeToString())
    return folder / "a.onnx"


def test_onnx_with_its_weights_in_a_file_beside_it_is_read(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    path = external(tmp_path)
    found = check(path, {"w": np.arange(300), "b": np.ones(3)})
    assert found.files == (path, tmp_path / "a.onnx.data")
    (tmp_path / "a.onnx.data").unlink()
    with pytest.raises(UnreadableError, match="of its external data, there is no file"):
        outlines(path)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"location": "../a.onnx.data"}, "outside its folder"),
        ({"location": "/etc/passwd"}, "outside its folder"),
        ({"location": "link"}, "outside its folder"),
        ({"offset": "99999999"}, "does not fit"),
        ({"length": "4"}, "does not fit"),
        ({"offset": "-4"}, "lies at no place"),
    ],
)
def test_onnx_that_names_files_or_places_elsewhere_is_refused(
    entries: dict[str, str], said: str, tmp_path: Path
) -> None:
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    (tmp_path / "secret").write_bytes(bytes(2000))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UnreadableError, match=said):
        outlines(external(tmp_path / "in", **entries))


# -- numpy -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_is_what_numpy_reads(save: Callable[..., None], tmp_path: Path) -> None:
    arrays = {
        **state(),
        "columns": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "big": np.arange(3, dtype=">f4"),
        "half": np.arange(5, dtype=np.float16),
        "long": np.arange(100_000, dtype=np.float32).reshape(10, -1),
    }
    save(tmp_path / "a.npz", **arrays, steps=np.array([1, 2]))
    assert kinds_of(tmp_path / "a.npz") == ("npz",)
    found = check(tmp_path / "a.npz", arrays)
    assert found.dtypes["steps"] == "I64"
    np.save(tmp_path / "a.npy", arrays["columns"])
    check(tmp_path / "a.npy", {"array": arrays["columns"]})


def test_npz_of_objects_or_of_nothing_but_zeros_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.array([1, None], dtype=object))
    with pytest.raises(UnreadableError, match="holds objects, which only a pickle brings back"):
        outlines(tmp_path / "a.npz")
    np.savez_compressed(tmp_path / "b.npz", w=np.zeros(2**25, np.float32))
    assert (tmp_path / "b.npz").stat().st_size < 200_000
    with pytest.raises(UnreadableError, match="packs so many zeros"):
        outlines(tmp_path / "b.npz")


def test_npz_that_is_torn_ends_in_a_sentence(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", w=np.random.default_rng(0).normal(size=1000))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[400:420] = bytes(20)
    (tmp_path / "b.npz").write_bytes(content)
    (found,) = outlines(tmp_path / "b.npz")
    with pytest.raises(UnreadableError, match=r"array 'w' of .* cannot be read any more"):
        read(found, ["w"])


# -- GGUF --------------------------------------------------------------------------------------------------------------


def gguf_file(path: Path) -> dict[str, np.ndarray]:
    gguf = pytest.importorskip("gguf", reason="the extra gguf is not installed")
    kind = gguf.GGMLQuantizationType
    numbers = np.random.default_rng(0).normal(size=(5, 256)).astype(np.float32)
    made = gguf.GGUFWriter(str(path), "llama")
    made.add_array("general.tags", ["a", "b"])
    made.add_uint32("llama.block_count", 1)
    expected = {"plain": numbers[:3, :4].copy(), "half": numbers[:2].astype(np.float16)}
    for name, array in expected.items():
        made.add_tensor(name, array)
    for name in ("Q8_0", "Q4_0", "Q5_1"):
        packed = gguf.quants.quantize(numbers, kind[name])
        made.add_tensor(name, packed, raw_dtype=kind[name])
        expected[name] = gguf.quants.dequantize(packed, kind[name])
    made.write_header_to_file()
    made.write_kv_data_to_file()
    made.write_tensors_to_file()
    made.close()
    return expected


def test_gguf_is_dequantised_as_its_package_does(tmp_path: Path) -> None:
    expected = gguf_file(tmp_path / "a.gguf")
    found = check(tmp_path / "a.gguf", expected)
    assert found.dtypes["Q4_0"] == "F32" and "3 of its arrays are quantised" in found.notes[0]


def test_gguf_that_lies_in_its_header_is_refused(tmp_path: Path) -> None:
    gguf_file(tmp_path / "a.gguf")
    content = (tmp_path / "a.gguf").read_bytes()
    refused = 0
    for place in range(4, 400):
        (tmp_path / "b.gguf").write_bytes(content[:place] + b"\xff" + content[place + 1 :])
        try:
            found = outlines(tmp_path / "b.gguf")[0]
            read(found, list(found.floating))
        except UnreadableError:
            refused += 1
    assert refused > 100
    (tmp_path / "c.gguf").write_bytes(content[:-40])
    with pytest.raises(UnreadableError, match="is not whole"):
        outlines(tmp_path / "c.gguf")


# -- Keras -------------------------------------------------------------------------------------------------------------


def test_keras_files_are_read_by_their_paths(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="the extra keras is not installed")
    arrays = {name: array for name, array in state().items() if name != "none"}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, array in arrays.items():
            file[f"model_weights/{name}/kernel:0"] = array
        file["optimizer_weights/step"] = np.array(3)
        file.create_dataset("model_weights/z", data=np.arange(5000.0), compression="gzip", chunks=(100,))
        file.attrs["model_config"] = "{}"
        file["names"] = "text"
    expected = {f"{name}/kernel:0": array for name, array in sorted(arrays.items())} | {"z": np.arange(5000)}
    check(tmp_path / "a.h5", expected, ("model_weights",))
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as packed:
        packed.writestr("config.json", "{}")
        packed.write(tmp_path / "a.h5", "model.weights.h5")
    assert kinds_of(tmp_path / "a.keras") == ("keras",)
    check(tmp_path / "a.keras", expected, ("model_weights",))


def test_hdf5_that_leads_elsewhere_or_packs_zeros_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="the extra keras is not installed")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["w"] = np.ones(3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["w"] = h5py.ExternalLink("other.h5", "/w")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("w", (3,), "f4", external=[(str(tmp_path / "raw"), 0, 12)])
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("w", (2**26,), "f4", chunks=(2**20,), compression="gzip")
    for name, said in {"a": "link to somewhere else", "b": "lies in another file", "c": "packs so many zeros"}.items():
        with pytest.raises(UnreadableError, match=said):
            outlines(tmp_path / f"{name}.h5")


# -- several files -----------------------------------------------------------------------------------------------------


def sharded(folder: Path, kind: str = "safetensors") -> Path:
    suffix = {"safetensors": "safetensors", "pytorch": "bin"}[kind]
    first = {"safetensors": "model", "pytorch": "pytorch_model"}[kind]
    named, arrays = {}, list(state().items())
    for number, part in enumerate((arrays[:2], arrays[2:]), 1):
        shard = f"{first}-{number:05d}-of-00002.{suffix}"
        if kind == "safetensors":
            save_file(dict(part), folder / shard)
        else:
            torch.save({name: torch.from_numpy(array) for name, array in part}, folder / shard)
        named |= {name: shard for name, _ in part}
    path = folder / f"{first}.{suffix}.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": named}))
    return path


@pytest.mark.parametrize("kind", ["safetensors", "pytorch"])
def test_shards_are_one_state_dict_by_their_index(kind: str, tmp_path: Path) -> None:
    path = sharded(tmp_path, kind)
    assert kinds_of(path) == ("index",)
    found = check(path, state())
    assert len(found.files) == 3
    (shard,) = outlines(found.files[1])
    assert index_beside(found.files[1]) == path
    assert f"It is one shard of a network: {path.name} names them all." in shard.notes


def said_of(path: Path, change: Callable[[dict[str, str]], Any]) -> None:
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


SHARDS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: (path.parent / "model-00002-of-00002.safetensors").unlink(), "of its shards, there is no"),
    "outside": (lambda path: said_of(path, lambda named: named.update(x="../x.safetensors")), "outside its folder"),
    "another array": (
        lambda path: said_of(path, lambda named: named.update(x="model-00001-of-00002.safetensors")),
        "array 'x' stands in only one",
    ),
    "an array left out": (
        lambda path: said_of(path, lambda named: named.pop("a.bias")),
        "array 'a.bias' stands in only",
    ),
    "itself": (lambda path: said_of(path, lambda named: named.update(x=path.name)), "neither safetensors nor"),
    "none": (lambda path: said_of(path, lambda named: named.clear()), "names no arrays"),
    "twice": (
        lambda path: path.write_text(path.read_text().replace('"a.bias"', '"a.weight"')),
        "a name stands in it twice",
    ),
    "deep": (lambda path: path.write_text('{"weight_map":' + "[" * 100_000), "no whole index"),
}


@pytest.mark.parametrize("case", SHARDS)
def test_an_index_that_does_not_fit_its_shards_is_refused(case: str, tmp_path: Path) -> None:
    path = sharded(tmp_path)
    spoil, said = SHARDS[case]
    spoil(path)
    with pytest.raises(UnreadableError, match=said):
        outlines(path)


def test_an_adapter_is_called_one_with_the_network_that_it_is_for(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    save_file({f"base_model.model.q.lora_{side}.weight": np.ones((2, 2), np.float32) for side in "AB"}, path)
    assert outlines(path)[0].notes[0].startswith("It is an adapter (LoRA): changes")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "someone/model"}))
    assert "an adapter (LoRA) of someone/model" in outlines(path)[0].notes[0]
    save_file({"explorations.weight": np.ones(2, np.float32)}, tmp_path / "b.safetensors")
    assert outlines(tmp_path / "b.safetensors")[0].notes == ()


# -- extras ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("package", "extra"), [("gguf", "gguf"), ("h5py", "keras")])
def test_a_missing_extra_is_named_with_its_command(
    package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    if package == "gguf":
        gguf_file(path)
        from weightspace.files import gguf as reader

        reader._blocks.cache_clear()
    else:
        h5py = pytest.importorskip("h5py", reason="the extra keras is not installed")
        with h5py.File(path, "w") as file:
            file["w"] = np.ones(2)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnreadableError, match=rf"pip install .*\[{extra}\]'"):
        outlines(path)


def test_a_checkpoint_is_read_without_importing_torch(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    code = (
        "import sys; from weightspace.files.checkpoints import outlines, read;"
        f"print(read(outlines({str(tmp_path / 'a.pt')!r})[0], ['w']), 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split()[-1] == "False"


def test_any_change_of_a_byte_of_an_onnx_or_npz_file_ends_in_numbers_or_a_sentence(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    save: Any = np.savez
    save(buffer, **state())
    generator = np.random.default_rng(0)
    for name, content in (("a.npz", buffer.getvalue()), ("a.onnx", onnx_model(state()).SerializeToString())):
        for _ in range(300):
            changed = bytearray(content)
            changed[generator.integers(0, len(content))] = generator.integers(0, 256)
            (tmp_path / name).write_bytes(changed)
            try:
                for found in outlines(tmp_path / name):
                    read(found, list(found.floating))
            except UnreadableError as error:
                assert "\n" not in str(error)
