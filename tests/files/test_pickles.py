"""PyTorch's files read without PyTorch: the same numbers, nothing called, and memory bounded by the file's size."""

from __future__ import annotations

import argparse
import io
import pathlib
import pickle
import re
import struct
import tracemalloc
import zipfile
import zlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._utils as rebuilding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weightspace.errors import UnreadableError
from weightspace.files.checkpoints import outlines, pieces, read

SD = {"weight": torch.arange(12.0).reshape(3, 4), "bias": torch.zeros(3)}


def outlined(value: Any, path: Path, **options: Any) -> list[Any]:
    torch.save(value, path, **options)
    return outlines(path)


def values(path: Path, place: int = 0) -> dict[str, np.ndarray]:
    found = outlines(path)[place]
    return read(found, list(found.floating))


# -- the same numbers --------------------------------------------------------------------------------------------------

STATES: dict[str, Callable[[], Any]] = {
    "types": lambda: {
        str(dtype): torch.randn(5, 3).to(dtype)
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    },
    "views": lambda: {
        "transposed": torch.randn(4, 6).t(),
        "every second": torch.randn(10)[1::2],
        "block": torch.randn(6, 6)[2:4, 1:5],
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "expanded": torch.randn(1, 3).expand(4, 3),
    },
    "empty": lambda: {"none": torch.zeros(0, 3), "scalar": torch.tensor(2.5), "one": torch.zeros(1, 1)},
    "tied": lambda: (lambda weight: {"wte": weight, "head": weight, "half": weight[1:]})(torch.randn(4, 4)),
    "ordered": lambda: torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).state_dict(),
    "parameters": lambda: {"p": torch.nn.Parameter(torch.randn(3)), "b": torch.nn.Buffer(torch.randn(2))},
    "negative zero and NaN": lambda: {"w": torch.tensor([-0.0, float("nan"), float("inf"), 1e-45])},
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older"])
@pytest.mark.parametrize("case", STATES)
def test_every_tensor_is_what_pytorch_reads_bit_for_bit(case: str, zipped: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "a.pt"
    (found,) = outlined(STATES[case](), path, _use_new_zipfile_serialization=zipped)
    theirs = torch.load(path, weights_only=True)
    ours = read(found, list(found.floating))
    assert list(found.shapes) == list(theirs)
    for name, tensor in theirs.items():
        if not tensor.is_floating_point():
            continue
        expected = tensor.detach().float().contiguous().numpy()
        assert ours[name].shape == expected.shape
        assert ours[name].tobytes() == expected.tobytes(), name
        assert np.concatenate([*pieces(found, name, 4), np.zeros(0, "f4")]).tobytes() == expected.tobytes()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_view_of_any_storage_is_what_pytorch_reads(data: st.DataObject, tmp_path: Path) -> None:
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]))
    storage = torch.arange(60).to(dtype)
    shape = data.draw(st.lists(st.integers(0, 4), max_size=3))
    strides = data.draw(st.lists(st.integers(0, 5), min_size=len(shape), max_size=len(shape)))
    tensor = torch.as_strided(storage, shape, strides, data.draw(st.integers(0, 10)))
    outlined({"w": tensor}, tmp_path / "a.pt", _use_new_zipfile_serialization=data.draw(st.booleans()))
    np.testing.assert_array_equal(values(tmp_path / "a.pt")["w"], tensor.float().numpy())


def test_an_older_file_is_read_however_long_its_pickle_is(tmp_path: Path) -> None:
    many = {f"{'layer' * 250}.{number}.weight": torch.full((2,), float(number)) for number in range(900)}
    (found,) = outlined(many, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    last = list(many)[-1]
    assert len(found.shapes) == 900 and read(found, [last])[last].tolist() == [899, 899]


def test_numpy_inside_a_pytorch_file_is_read_over_and_the_model_is_found(tmp_path: Path) -> None:
    for number, beside in enumerate(
        (
            {"best_acc": np.float64(0.46)},
            {"history": np.arange(6.0).reshape(2, 3), "names": np.array(["a", "b"]), "seen": np.int64(3)},
            {"objects": np.array([1, "x", None], dtype=object), "flag": np.bool_(True)},
        )
    ):
        for protocol in (2, 4):
            path = tmp_path / f"{number}-{protocol}.pt"
            found = outlined({"model": SD, **beside}, path, pickle_protocol=protocol)
            assert found[0].part == ("model",)
            np.testing.assert_array_equal(read(found[0], ["weight"])["weight"], SD["weight"].numpy())


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_of_numpy_arrays_is_a_state_dict(protocol: int, tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "c": np.arange(3, dtype=">f4"),
        "d": np.arange(4, dtype=np.float16),
        "n": np.array([3]),
    }
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}, protocol))
    (found,) = outlines(path)
    assert found.part == ("model",) and found.dtypes["n"] == "I64"
    for name, array in read(found, list("abcd")).items():
        np.testing.assert_array_equal(array, arrays[name].astype(np.float32))


def test_settings_of_harmless_classes_are_passed_over_and_said(tmp_path: Path) -> None:
    beside = {
        "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("a/b")),
        "counts": Counter("aab"),
        "lists": defaultdict(list, a=[1]),
        "time": timedelta(1),
        "set": {1, 2},
        "complex": 1 + 2j,
        "size": torch.Size([1, 2]),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
    }
    for protocol in (2, 4):
        (found,) = outlined({"state_dict": OrderedDict(SD), **beside}, tmp_path / "a.ckpt", pickle_protocol=protocol)
        assert found.part == ("state_dict",)
        assert "passed over and never built: " in found.notes[0] and "argparse.Namespace" in found.notes[0]
        np.testing.assert_array_equal(read(found, ["weight"])["weight"], SD["weight"].numpy())
    torch.save({"state_dict": SD, "args": argparse.Namespace(weights=SD)}, tmp_path / "b.ckpt")
    with pytest.raises(UnreadableError, match="tensors inside objects that are not built"):
        outlines(tmp_path / "b.ckpt")


def test_numbers_of_a_type_that_is_not_read_are_not_left_out_in_silence(tmp_path: Path) -> None:
    torch.save({**SD, "wide": np.zeros(3, np.longdouble)}, tmp_path / "a.pt")
    with pytest.raises(UnreadableError, match="numpy array of type f16, which is not read: save it as float32"):
        outlines(tmp_path / "a.pt")
    torch.save({**SD, "words": np.array(["a", "b"])}, tmp_path / "b.pt")  # texts are no weights
    (found,) = outlines(tmp_path / "b.pt")
    assert set(found.arrays) == set(SD)


def test_tensors_of_other_kinds_are_said_plainly_and_the_rest_is_read(tmp_path: Path) -> None:
    odd = {
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.zeros(2, device="meta"),
        "complex": torch.zeros(4, dtype=torch.complex64),
        "float8": torch.zeros(4).to(torch.float8_e4m3fn),
        "long": torch.arange(3),
    }
    (found,) = outlined({**SD, **odd}, tmp_path / "a.pt")
    assert found.dtypes == {
        "weight": "F32",
        "bias": "F32",
        "complex": "C64",
        "float8": "F8_E4M3",
        "long": "I64",
    }
    assert list(found.floating) == ["weight", "bias"]
    assert any("sparse and were not read (sparse)" in note for note in found.notes)
    assert any("without numbers (meta)" in note for note in found.notes)


WHOLE: dict[str, tuple[Callable[[], Any], str]] = {
    "a list of tensors": (lambda: [torch.zeros(3)], "holds no state dict but a list of 1 things"),
    "a tensor": (lambda: torch.zeros(3), "holds no state dict but a single array"),
    "a number": (lambda: 3, "holds no state dict but a int"),
    "an empty dictionary": (dict, "holds no state dict but a dictionary of 0 things"),
    "sparse ones alone": (lambda: {"w": torch.eye(3).to_sparse()}, "as its tensors are sparse"),
}


@pytest.mark.parametrize("case", WHOLE)
def test_what_is_no_state_dict_is_called_what_it_is(case: str, tmp_path: Path) -> None:
    make, said = WHOLE[case]
    with pytest.raises(UnreadableError, match=said):
        outlined(make(), tmp_path / "a.pt")


def test_state_dicts_in_lists_and_tuples_are_found(tmp_path: Path) -> None:
    found = outlined((SD, [{"w": torch.ones(2)}], 7), tmp_path / "a.pt")
    assert [one.part for one in found] == [("0",), ("1", "0")]
    assert read(found[1], ["w"])["w"].tolist() == [1, 1]


# -- nothing is called -------------------------------------------------------------------------------------------------

MARKED = b"(S'echo x'\n"
HOSTILE = {
    "GLOBAL and REDUCE": (b"\x80\x02cos\nsystem\nX\x01\0\0\0x\x85R.", "os.system"),
    "INST": (b"(S'echo x'\nios\nsystem\n.", "os.system"),
    "OBJ": (b"(cos\nsystem\nS'echo x'\no.", "os.system"),
    "STACK_GLOBAL": (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x01x\x85R.", "posix.system"),
    "memo": (b"\x80\x04\x8c\x02os\x940\x8c\x06system\x940h\0h\x01\x93.", "os.system"),
    "NEWOBJ": (b"\x80\x02csubprocess\nPopen\nX\x01\0\0\0x\x85\x81.", "subprocess.Popen"),
    "dotted": (b"\x80\x04\x8c\x0bcollections\x8c\x12OrderedDict.update\x93.", "collections.OrderedDict.update"),
    "getattr": (b"\x80\x02cbuiltins\ngetattr\n.", "builtins.getattr"),
    "after a tensor without a storage": (
        b"\x80\x02ctorch._utils\n_rebuild_tensor\n(cevil\nStorage\nK\0))tR0cos\nsystem\n.",
        "evil.Storage, os.system",
    ),
    "named only": (b"\x80\x02}X\x01\0\0\0acos\nsystem\ns.", "os.system"),
}


@pytest.mark.parametrize("wrapped", [False, True], ids=["pickle", "zip"])
@pytest.mark.parametrize("case", HOSTILE)
def test_whatever_would_be_called_is_named_and_not_called(case: str, wrapped: bool, tmp_path: Path) -> None:
    content, named = HOSTILE[case]
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    if wrapped:
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("archive/data.pkl", content)
        raw = path.read_bytes()
        crc = struct.pack("<I", zlib.crc32(content))
        path.write_bytes(raw.replace(crc, b"\1\2\3\4"))  # an altered checksum hides nothing
    with pytest.raises(UnreadableError, match=f"nothing in it was executed: its pickle calls {named}, which"):
        outlines(path)


def test_of_a_whole_module_it_is_said_what_to_save_instead(tmp_path: Path) -> None:
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()), tmp_path / "a.pt")
    with pytest.raises(UnreadableError, match=r"nn\.modules\.linear\.Linear.*save model\.state_dict\(\) instead"):
        outlines(tmp_path / "a.pt")
    torch.save([torch.nn.ReLU(), print], tmp_path / "b.pt")  # what calls something else too is not explained away
    with pytest.raises(UnreadableError, match=r"no file of weights needs$"):
        outlines(tmp_path / "b.pt")


class Reduced:
    """A pickle that calls a function of our choice."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.made = (function, arguments)

    def __reduce__(self) -> Any:
        return self.made


def storage_of(tensor: torch.Tensor) -> Any:
    return torch.storage.TypedStorage(wrap_storage=tensor.untyped_storage(), dtype=tensor.dtype, _internal=True)


def view_of(tensor: torch.Tensor, shape: Any, strides: Any, offset: int = 0, *more: Any) -> Reduced:
    return Reduced(
        rebuilding._rebuild_tensor_v2, storage_of(tensor), offset, shape, strides, False, OrderedDict(), *more
    )


LIES: dict[str, tuple[Callable[[], Any], str]] = {
    # PyTorch shows the negative of what is stored
    "negated": (lambda: view_of(torch.ones(3), (3,), (1,), 0, {"neg": True}), "metadata"),
    "beyond its storage": (lambda: view_of(torch.ones(3), (4,), (1,)), "in a storage of 3 numbers"),
    "offset beyond": (lambda: view_of(torch.ones(3), (3,), (1,), 1), "in a storage of 3 numbers"),
    "negative stride": (lambda: view_of(torch.ones(3), (3,), (-1,), 2), "as a length"),
    "its data exchanged": (
        lambda: Reduced(
            rebuilding._rebuild_parameter_with_state, torch.ones(3), False, OrderedDict(), {"data": torch.zeros(3)}
        ),
        "attributes that may change it",
    ),
}


@pytest.mark.parametrize("case", LIES)
def test_a_tensor_that_pytorch_would_see_differently_is_refused(case: str, tmp_path: Path) -> None:
    make, said = LIES[case]
    with pytest.raises(UnreadableError, match=said):
        outlined({"w": make()}, tmp_path / "a.pt")


def test_a_file_of_a_version_or_machine_that_is_not_known_is_refused(tmp_path: Path) -> None:
    torch.save(SD, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "b.pt").write_bytes(content + b"\0")
    with pytest.raises(UnreadableError, match="something stands behind its storages"):
        outlines(tmp_path / "b.pt")
    little = re.sub(rb"(little_endianq.)\x88", lambda found: found[1] + b"\x89", content)
    assert little != content
    (tmp_path / "c.pt").write_bytes(little)
    with pytest.raises(UnreadableError, match="machine, that is not known"):
        outlines(tmp_path / "c.pt")
    for cut in range(0, len(content), 7):
        (tmp_path / "d.pt").write_bytes(content[:cut])
        with pytest.raises(UnreadableError):
            outlines(tmp_path / "d.pt")


# -- bounds ------------------------------------------------------------------------------------------------------------


def nested(tensor: torch.Tensor, count: int) -> dict[str, Any]:
    return {f"{number}": {"w": tensor} for number in range(count)}


BOMBS: dict[str, tuple[Callable[[], Any], str]] = {
    "one tensor in many dictionaries": (lambda: nested(torch.zeros(50_000), 3000), "repeats one array"),
    "three thousand names of one tensor": (
        lambda: dict.fromkeys(map(str, range(3000)), torch.zeros(50_000)),
        "repeats one array",
    ),
    "expanded": (lambda: {"w": torch.zeros(1).expand(300_000_000)}, "repeats one array"),
}


@pytest.mark.parametrize("case", BOMBS)
def test_views_and_aliases_are_counted_before_anything_is_made(case: str, tmp_path: Path) -> None:
    make, said = BOMBS[case]
    torch.save(make(), tmp_path / "a.pt")
    assert (tmp_path / "a.pt").stat().st_size < 600_000
    tracemalloc.start()
    with pytest.raises(UnreadableError, match=said):
        outlines(tmp_path / "a.pt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20


def test_tied_weights_are_read_once_and_shared(tmp_path: Path) -> None:
    (found,) = outlined(dict.fromkeys(map(str, range(300)), torch.ones(1000)), tmp_path / "a.pt")
    arrays = read(found, list(found.shapes))
    assert len(arrays) == 300 and all(array is arrays["0"] for array in arrays.values())


OBJECTS = {
    "dictionaries": b"\x80\x02" + b"}" * 40_000 + b".",
    "marks": b"\x80\x02" + b"(" * 40_000 + b".",
    "a list in itself": b"\x80\x02]q\0h\0ah\0a.",
    "a tower of tuples": b"\x80\x02)" + b"\x85" * 100_000 + b".",
    "a long number": b"\x80\x02\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6 + b".",
    "digits": b"L" + b"9" * 10**6 + b"L\n.",
    "a tower of dictionaries": b"\x80\x02" + b"}X\x01\0\0\0a" * 5000 + b"N" + b"s" * 5000 + b".",
    "tuples that name entries": b"\x80\x02}("
    + b"".join(b"K\x01J%s\x86N" % struct.pack("<i", n) for n in range(9000))
    + b"u.",
}


@pytest.mark.parametrize("case", OBJECTS)
def test_a_pickle_of_nothing_but_objects_ends_in_a_sentence_and_in_bounded_memory(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weightspace.files.pickles.LARGEST_MEMORY", 25 * 10**5)  # a hundredth, to be quick
    (tmp_path / "a.pt").write_bytes(OBJECTS[case])
    tracemalloc.start()
    with pytest.raises(UnreadableError, match=r"a\.pt"):
        outlines(tmp_path / "a.pt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(OBJECTS[case]) + 3 * 10**6


def test_any_change_of_a_byte_gives_the_same_numbers_or_a_sentence(tmp_path: Path) -> None:
    """Of what is still read, PyTorch reads the same."""
    buffer = io.BytesIO()
    torch.save({"model": SD, "epoch": 3}, buffer)
    content, path = buffer.getvalue(), tmp_path / "a.pt"
    generator = np.random.default_rng(0)
    read_by_both = 0
    for _ in range(400):
        changed = bytearray(content)
        for place in generator.integers(0, len(content), 2):
            changed[place] = generator.integers(0, 256)
        path.write_bytes(changed)
        try:
            ours = values(path)
        except UnreadableError:
            continue
        try:
            theirs = torch.load(path, weights_only=True)["model"]
        except (UnicodeDecodeError, RuntimeError):  # of parts that have nothing to do with weights
            continue
        read_by_both += 1
        for name, array in ours.items():
            assert array.tobytes() == theirs[name].float().numpy().tobytes()
    assert read_by_both > 20


def test_an_array_that_is_named_by_a_class_or_function_is_refused(tmp_path: Path) -> None:
    """torch.load gives it under the class itself, so that no text names it as usual loaders do."""
    torch.save({"x": torch.ones(2), OrderedDict: torch.zeros(3)}, tmp_path / "model.pt")
    with pytest.raises(UnreadableError, match="by a class, a function or an object"):
        outlines(tmp_path / "model.pt")
