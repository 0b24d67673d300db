"""`weightspace inspect` and `ws.inspect`: what a file holds, without a verdict, and never an escape of a terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

import weightspace as ws
from weightspace.cli import main
from weightspace.files.atomic import file_hash

CLEAN = ws.EXAMPLES / "example-clean.safetensors"


def test_a_network_is_described_with_its_hash_and_every_array(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(CLEAN), "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    network = ws.load_network(CLEAN)
    assert record == ws.inspect(CLEAN).to_json()
    assert record["kinds"] == ["safetensors"] and record["problem"] == "" and record["notes"] == []
    assert record["sha256"] == file_hash(CLEAN) and record["size"] == CLEAN.stat().st_size
    (part,) = record["parts"]
    assert part["weights"] == len(network.weights) and part["architecture"] == "as the file says itself"
    shapes = {one["name"]: tuple(one["shape"]) for one in part["arrays"]}
    assert shapes == {leaf.name: leaf.shape for leaf in network.spec.leaves}
    assert main(["inspect", str(CLEAN)]) == 0
    said = capsys.readouterr().out
    assert file_hash(CLEAN) in said and "18,738" in said and "and 2 more" in said
    assert "suspicious" not in said and "clean " not in said


class Deep(nn.Module):
    """Two layers of which the second is added to what the first gave, which no list of shapes says."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.ParameterDict({"a": nn.Parameter(torch.zeros(2, 3, 4))})


def transformer() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False)


CHAIN = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


@pytest.mark.parametrize(
    ("module", "architecture", "free"),
    [(lambda: CHAIN, "chain", "6 neurons in 1 groups"), (transformer, "transformer", "neurons"), (Deep, "unknown", "")],
)
def test_how_arrays_could_be_connected_is_told_where_it_can_be(
    module: Callable[[], nn.Module], architecture: str, free: str, tmp_path: Path
) -> None:
    torch.save(module().state_dict(), tmp_path / "a.pt")
    found = ws.inspect(tmp_path / "a.pt")
    assert found.kinds == ("pytorch",) and found.parts[0].architecture == architecture
    assert free in found.parts[0].symmetries and bool(found.parts[0].symmetries) == bool(free)


def test_a_file_that_describes_itself_wrongly_is_not_believed(tmp_path: Path) -> None:
    network = ws.load_network(CLEAN)
    record = {"spec": network.spec.to_json(), "metadata": {}}
    save_file(
        {"fc.weight": np.zeros((2, 3), np.float32)}, tmp_path / "a.safetensors", {"weightspace": json.dumps(record)}
    )
    assert ws.inspect(tmp_path / "a.safetensors").parts[0].architecture == "chain"


def test_the_parts_of_a_pytorch_file_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = CHAIN.state_dict()
    torch.save({"epoch": 3, "model": weights, "ema": {"shadow": {"w": torch.zeros(2, 2)}}}, tmp_path / "a.pt")
    found = ws.inspect(tmp_path / "a.pt")
    assert [part.keys for part in found.parts] == [("model",), ("ema", "shadow")]
    assert any("2 state dicts" in note for note in found.notes)
    assert main(["inspect", str(tmp_path / "a.pt")]) == 0
    assert "ema.shadow" in capsys.readouterr().out


def test_a_file_of_two_kinds_and_a_hostile_one_are_described_as_far_as_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"w": torch.zeros(2), "b": Bomb()}, tmp_path / "bomb.pt")
    save_file({"w": np.zeros(2000, np.uint8)}, tmp_path / "two.safetensors")
    with (tmp_path / "two.safetensors").open("r+b") as file:
        file.seek(512)  # where HDF5 may begin too
        file.write(b"\x89HDF\r\n\x1a\n")
    two = ws.inspect(tmp_path / "two.safetensors")
    assert set(two.kinds) == {"safetensors", "hdf5"} and not two.parts and "two kinds" in two.problem
    assert two.notes[0].startswith("It is 2 kinds of file at once")
    assert main(["inspect", str(tmp_path / "bomb.pt"), str(CLEAN)]) == 3
    said = capsys.readouterr().out
    assert "posix.mkdir" in said and "18,738" in said and not (tmp_path / "executed").exists()


def test_what_stands_in_a_file_cannot_control_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = "\x1b[2Jclean\n\u202e"
    save_file({f"{odd}.weight": np.zeros((2, 3), np.float32)}, tmp_path / "a.safetensors", {odd: odd + "x" * 999})
    assert main(["inspect", str(tmp_path / "a.safetensors")]) == 0
    said = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in said) and "\\x1b[2J" in said and "characters)" in said
    assert main(["inspect", str(tmp_path / "a.safetensors"), "--json"]) == 0
    said = capsys.readouterr().out
    assert said.isascii() and "\x1b" not in said
    assert json.loads(said)[0]["parts"][0]["arrays"][0]["name"] == f"{odd}.weight"
    assert "\x1b" not in repr(ws.inspect(tmp_path / "a.safetensors"))


def test_no_file_a_folder_and_a_fifo_are_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for words, sentence in (
        ([str(tmp_path / "no")], "there is no file"),
        ([str(tmp_path)], "is a folder"),
        ([str(tmp_path / "pipe")], "a FIFO"),
        ([], "name at least one file"),
    ):
        assert main(["inspect", *words]) == 2
        said = capsys.readouterr()
        assert said.out == "" and sentence in said.err and said.err.count("\n") == 1


def test_a_model_in_several_files_is_described_by_its_index(tmp_path: Path) -> None:
    for number in range(5):
        save_file({f"{number}.weight": np.zeros((2, 2), np.float32)}, tmp_path / f"{number}.safetensors")
    mapped = {f"{number}.weight": f"{number}.safetensors" for number in range(5)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapped}))
    found = ws.inspect(tmp_path / "model.safetensors.index.json")
    assert found.kinds == ("index",) and found.parts[0].weights == 20
    assert any("5 files beside it" in note and "and 2 more" in note for note in found.notes)


def test_an_inspection_shows_itself_in_one_line_and_in_a_notebook() -> None:
    found = ws.inspect(CLEAN)
    assert repr(found) == "<Inspection of example-clean.safetensors: safetensors, 18,738 weights in 26 arrays>"
    assert "conv1.weight" in found._repr_html_()
