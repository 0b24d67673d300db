"""A trained transformer becomes a program: found, proved on all short inputs, and nothing claimed of other networks."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import weightspace as ws
from tests.decompiler.trained.little_networks import (
    SPECIAL,
    _forward,
    dyck_follow,
    dyck_rows,
    train_on_dyck,
    write_inputs,
    write_last_token_network,
)
from tests.transformers.shared_models import shared_models
from weightspace.cli import main
from weightspace.decompiler.trained.decompile import Settings
from weightspace.decompiler.trained.entry import decompile_file
from weightspace.decompiler.trained.result import TrainedDecompilation, summary
from weightspace.errors import NetworkError
from weightspace.experiments.trained_controls import shuffled_heads, untrained
from weightspace.rasp.program import Program
from weightspace.transformers.loading import load_trained

VOCAB = ("a", "b", *SPECIAL)
FOLLOW = {"<bos>": ["a", "<eos>"], "a": ["b"], "b": ["a", "<eos>"]}
QUICK = Settings(seconds=1.0, most=1_500, drawn=40, searched=300, largest=3, quota=40)


def alternating_rows(count: int = 40) -> tuple[list[list[str]], list[list[list[str]]]]:
    rows = [["<bos>", *"ab" * (1 + number % 14)] for number in range(count)]
    return rows, [[FOLLOW[token] for token in row] for row in rows]


@pytest.fixture
def alternating(tmp_path: Path) -> Path:
    """A network of (ab)*, and inputs for it."""
    folder = tmp_path / "alternating"
    write_last_token_network(folder, VOCAB, FOLLOW)
    write_inputs(folder / "inputs.jsonl", *alternating_rows())
    return folder


def answers(
    program: str, rows: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> list[list[list[str]]]:
    """What a program's text answers, by the command line."""
    (tmp_path / "program.rasp").write_text(program)
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"input": row}) for row in rows))
    capsys.readouterr()
    assert (
        main(["rasp", "run", str(tmp_path / "program.rasp"), "--inputs", str(tmp_path / "rows.jsonl"), "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert [each["input"] for each in found] == rows
    return [each["follow"] for each in found]


def test_a_network_that_reads_the_last_token_is_found_and_proved(
    alternating: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = decompile_file(alternating, settings=QUICK)
    assert found.status == "equal_on_all"
    assert found.every is not None and found.every.length == 31  # all positions but that of <bos>
    assert found.alphabet is not None and found.alphabet.equal and found.alphabet.length >= 3
    assert found.off.right == found.off.n > 0
    rows = [["<bos>", *row] for length in range(5) for row in itertools.product("ab", repeat=length)]
    assert found.text is not None
    for row, given in zip(rows, answers(found.text, rows, tmp_path, capsys), strict=True):
        assert [set(allowed) for allowed in given] == [set(FOLLOW[token]) for token in row]


def test_the_command_prints_what_is_found(
    alternating: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.rasp"
    assert main(["decompile", str(alternating), "--json", "--budget", "1s", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    fields = "status program match low high inputs_checked exhaustive_length located lines seconds"
    assert [*found] == fields.split()
    assert found["status"] == "equal_on_all" and found["match"] == 1.0
    assert found["low"] < 1.0 == found["high"]
    assert out.read_text() == found["program"] + "\n"
    assert {*found["located"][0]} == {"variable", "component", "interchange"}
    names = {name for name, _ in Program.parse(found["program"]).statements}
    assert {each["variable"] for each in found["located"]} <= names


def test_without_inputs_the_networks_own_strings_are_taken(alternating: Path) -> None:
    found = decompile_file(alternating, vocab=VOCAB, kind="sets", settings=QUICK)
    assert found.status == "equal_on_all"
    assert "Inputs were drawn" in summary(found)


def test_python_gives_the_same_kind_of_answer(alternating: Path) -> None:
    found = ws.decompile(alternating, budget=0.5)
    assert isinstance(found, TrainedDecompilation) and found.status == "equal_on_all"


def test_a_network_that_does_not_do_what_is_asked_is_never_equal(tmp_path: Path) -> None:
    folder = tmp_path / "other"
    write_last_token_network(folder, VOCAB, {"<bos>": ["b"], "a": ["a"], "b": ["a", "b", "<eos>"]})
    write_inputs(folder / "inputs.jsonl", *alternating_rows())
    found = decompile_file(folder, settings=QUICK)
    assert found.in_language == 0.0
    assert found.status != "equal_on_all"


# -- bad input ------------------------------------------------------------------------------------------------------


def test_inputs_longer_than_the_positions_are_refused(alternating: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [["<bos>", *"ab" * 20]] * 30
    write_inputs(alternating / "inputs.jsonl", rows, [[FOLLOW[token] for token in row] for row in rows])
    assert main(["decompile", str(alternating)]) == 2
    assert "an input of 41 tokens is longer than the 32 positions" in capsys.readouterr().err


def test_an_offset_leaves_fewer_positions(alternating: Path) -> None:
    with pytest.raises(NetworkError, match="from position 10 is longer than the 32 positions"):
        decompile_file(alternating, offset=10, settings=QUICK)


def test_a_vocabulary_of_another_size_is_refused(alternating: Path) -> None:
    with pytest.raises(NetworkError, match="a vocabulary of another size: 5 tokens were given"):
        decompile_file(alternating, vocab=VOCAB[:5], settings=QUICK)


def test_a_token_that_is_not_in_the_vocabulary_is_named(alternating: Path) -> None:
    with pytest.raises(NetworkError, match="'a' that is not in the vocabulary"):
        decompile_file(alternating, vocab=("x", "y", *SPECIAL), settings=QUICK)


def test_without_inputs_or_a_task_it_is_asked_what_the_network_does(alternating: Path) -> None:
    (alternating / "inputs.jsonl").unlink()
    with pytest.raises(NetworkError, match="what is the network asked"):
        decompile_file(alternating, vocab=VOCAB, settings=QUICK)


def test_few_inputs_are_too_few(alternating: Path) -> None:
    rows, follow = alternating_rows(3)
    write_inputs(alternating / "inputs.jsonl", rows, follow)
    with pytest.raises(NetworkError, match="3 inputs are too few"):
        decompile_file(alternating, settings=QUICK)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1"),
        ('{"follow": []}', "input is a list of tokens"),
        ('{"input": ["<bos>"], "follow": []}', "an entry for each of the 1 tokens"),
        ('{"input": ["<bos>"], "follow": [3]}', "is no entry of follow"),
        ('{"input": ["<bos>"], "next": [["a"]]}', "is no entry of next"),
    ],
)
def test_a_line_that_holds_no_input_is_named(alternating: Path, line: str, said: str) -> None:
    (alternating / "inputs.jsonl").write_text(line + "\n")
    with pytest.raises(NetworkError, match=said):
        decompile_file(alternating, settings=QUICK)


def test_an_unknown_architecture_is_named(alternating: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((alternating / "config.json").read_text())
    (alternating / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    assert main(["decompile", str(alternating)]) == 2
    assert "'mamba'" in capsys.readouterr().err


# -- trained networks -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dyck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of width 16 that has been trained on Dyck-1."""
    folder = tmp_path_factory.mktemp("dyck")
    wrong = train_on_dyck(folder, steps=500)
    assert wrong < 0.01
    write_inputs(folder / "inputs.jsonl", *dyck_rows(300, 24, seed=5))
    return folder


@pytest.mark.slow
def test_a_trained_network_is_equal_to_its_printed_program(
    dyck: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = decompile_file(dyck, settings=Settings(seconds=10.0, most=20_000, quota=150))
    assert found.status == "equal_on_all" and found.every is not None and found.text is not None
    rows = strings_of_dyck(min(found.every.agreed_length, 10))
    assert len(rows) > 200
    program = answers(found.text, rows, tmp_path, capsys)
    weights = {name: torch.tensor(array) for name, array in load_file(dyck / "model.safetensors").items()}
    for row, given in zip(rows, program, strict=True):
        with torch.no_grad():
            logits = _forward(weights, torch.tensor([[VOCAB.index(token) for token in row]]))[0]
        allowed = [{VOCAB[number] for number in np.flatnonzero(at)} for at in (logits > 0).numpy()]
        assert [set(each) for each in given] == allowed == [set(each) for each in dyck_follow(row)]


@pytest.mark.slow
def test_untrained_networks_and_shuffled_heads_are_never_equal(dyck: Path) -> None:
    for other in (untrained(dyck), shuffled_heads(dyck)):
        found = decompile_file(other, vocab=VOCAB, inputs=dyck / "inputs.jsonl", settings=QUICK)
        assert found.status != "equal_on_all"


def strings_of_dyck(length: int) -> list[list[str]]:
    """All beginnings of balanced strings up to a length."""
    found: list[list[str]] = [["<bos>"]]
    for row in found:
        if len(row) <= length:
            found += [[*row, token] for token in dyck_follow(row)[-1] if token != "<eos>"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bce_tomita1-@1l1h16d3lr00drop", "bce_D2-@1l1h16d3lr00drop"])
def test_shared_models_are_equal_to_short_programs(name: str) -> None:
    found = decompile_file(shared_models() / name, settings=Settings(seconds=10.0, most=20_000))
    assert found.status == "equal_on_all"
    assert found.lines <= 5
    assert (found.off.share or 0) >= 0.99
    assert load_trained(shared_models() / name).shape.layers == 1
