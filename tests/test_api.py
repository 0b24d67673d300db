"""The public interface: what `import weightspace as ws` offers, to whom it listens, and how it says no."""

from __future__ import annotations

import doctest
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import weightspace as ws
from weightspace.errors import NetworkError
from weightspace.metamodels.checks import planted_examples

HIST = "same = Select(PRED_EQ, tokens, tokens)\nreturn SelectorWidth(same)"
CLEAN = ws.EXAMPLES / "example-clean.safetensors"


def test_importing_it_takes_less_than_a_tenth_of_a_second() -> None:
    def seconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    took = min(seconds("import weightspace") for _ in range(5)) - min(seconds("pass") for _ in range(5))
    assert took < 0.1


def test_every_public_name_is_there_and_listed_and_documented() -> None:
    assert set(ws.__all__) <= set(dir(ws))
    for name in ws.__all__:
        assert getattr(getattr(ws, name), "__doc__", None), name
    with pytest.raises(AttributeError, match="dir"):
        _ = ws.no_such_thing  # type: ignore[attr-defined]


def test_every_exception_is_one_of_ours_and_a_value_error() -> None:
    errors = [getattr(ws, name) for name in ws.__all__ if name.endswith("Error")]
    assert len(errors) == 8
    assert all(issubclass(error, ws.WeightspaceError) and issubclass(error, ValueError) for error in errors)


@pytest.mark.parametrize("name", ["weightspace.api", "weightspace.metamodels.metamodel"])
def test_the_examples_in_docstrings_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = __import__(name, fromlist=["_"])
    tests = [test for test in doctest.DocTestFinder(recurse=True).find(module) if test.examples]
    assert tests
    runner = doctest.DocTestRunner()
    for test in tests:
        assert runner.run(test).failed == 0, test.name


def test_a_program_is_taken_as_text_path_record_or_object(tmp_path: Path) -> None:
    program = ws.Program.parse(HIST)
    (tmp_path / "hist.rasp").write_text(HIST)
    kinds = (HIST, program, program.to_record(), tmp_path / "hist.rasp", str(tmp_path / "hist.rasp"))
    for given in kinds:
        transformer = ws.compile_program(given, vocab="ehlo", max_seq_len=5)
        assert transformer.run(["hello"]) == [[1, 1, 2, 2, 1]]
        assert ws.run(given, "hello") == [1, 1, 2, 2, 1]


def test_a_transformer_is_decompiled_from_path_arrays_or_object(tmp_path: Path) -> None:
    transformer = ws.compile_program(HIST, vocab="ehlo", max_seq_len=5)
    ws.save_transformer(transformer, tmp_path / "hist.safetensors")
    np.savez(tmp_path / "hist.npz", **transformer.params)  # type: ignore[arg-type]
    for given in (transformer, tmp_path / "hist.safetensors", str(tmp_path / "hist.safetensors")):
        assert ws.decompile(given).status == "certified"
    for given in (dict(transformer.params), tmp_path / "hist.npz"):
        found = ws.decompile(given, vocab="ehlo")
        assert found.status == "certified"
        assert str(found.program).endswith(HIST.split("\n")[1].replace("SelectorWidth(same)", "v2"))
    assert ws.certify(HIST, transformer) is not None
    assert ws.certify("return SelectorWidth(Select(PRED_LT, tokens, tokens))", transformer) is None


def test_a_network_is_scanned_as_its_file_is() -> None:
    by_path, by_object = ws.scan(CLEAN), ws.scan(ws.load_network(CLEAN))
    several = ws.scan([CLEAN, str(ws.EXAMPLES / "example-backdoored.safetensors")])
    assert [finding.verdict for finding in several.findings] == ["clean", "suspicious"]
    assert by_path.findings[0].p_value == by_object.findings[0].p_value
    assert by_object.findings[0].file == "network 1"


def test_whatever_a_person_has_is_taken(tmp_path: Path) -> None:
    """C18: a path as text or as a Path, an object, or a text, without a list around it."""
    transformer = ws.compile_program(HIST, vocab="ab", max_seq_len=2)
    ws.save_transformer(transformer, tmp_path / "x.safetensors")
    for source in (transformer, tmp_path / "x.safetensors", str(tmp_path / "x.safetensors")):
        assert ws.decompile(source).status == "certified"
    model = ws.MetaModel.load(ws.EXAMPLES / "backdoor-detector.safetensors")
    network = ws.load_network(CLEAN)
    answers = [model.predict(one)["backdoor"] for one in (network, CLEAN, [network])]
    assert all(np.array_equal(answer, answers[0]) for answer in answers)
    assert [ws.scan(one).gravest for one in (CLEAN, str(CLEAN), network, [CLEAN])] == ["clean"] * 4


def test_a_scan_takes_the_options_of_the_command(tmp_path: Path) -> None:
    for name in ("clean", "backdoored"):
        (tmp_path / f"{name}.bin").write_bytes((ws.EXAMPLES / f"example-{name}.safetensors").read_bytes())
    assert ws.scan(tmp_path).counts == {"suspicious": 1, "clean": 1}
    assert ws.scan(tmp_path, exclude="back*").counts == ws.scan(tmp_path, include=["clean*"]).counts == {"clean": 1}
    found = ws.scan(tmp_path, cache=tmp_path / "kept").findings
    (tmp_path / "allowed.txt").write_text("\n".join(str(one.sha256) for one in found))
    assert ws.scan(tmp_path, allow=tmp_path / "allowed.txt", exclude="kept").counts == {"allowed": 2}


def test_a_module_becomes_a_network_and_a_bare_file_is_read(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    network = ws.load_network(module, example=torch.zeros(1, 4))
    assert len(network.weights) == 4 * 3 + 3 + 3 * 2 + 2
    torch.save(module.state_dict(), tmp_path / "plain.pt")
    assert np.array_equal(ws.load_network(tmp_path / "plain.pt").weights, network.weights)


def test_of_several_state_dicts_the_network_is_loaded_or_the_part_is_asked_for(tmp_path: Path) -> None:
    model, other = (nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).state_dict() for _ in range(2))
    pictures = {"x": torch.zeros(9, 3, 8, 8), "y": torch.zeros(9)}
    path = tmp_path / "with pictures.pt"
    torch.save({"model": model, "bd_test": pictures}, path)
    network = ws.load_network(path)
    assert np.array_equal(network.weights[:12], model["0.weight"].numpy().ravel()) and len(network.weights) == 23
    assert len(ws.load_network(path, part="bd_test").weights) == 9 * 3 * 8 * 8 + 9
    with pytest.raises(NetworkError, match=r"has no part 'net' with weights: it has bd_test, model$"):
        ws.load_network(path, part="net")
    torch.save({"last": model, "best": other}, tmp_path / "two.pt")
    with pytest.raises(NetworkError, match=r"holds 2 networks \(last, best\): say which one is meant \(part='last'\)$"):
        ws.load_network(tmp_path / "two.pt")
    best = ws.load_network(tmp_path / "two.pt", part="best")
    assert np.array_equal(best.weights[:12], other["0.weight"].numpy().ravel())


def test_a_meta_model_answers_about_a_network_and_about_its_file() -> None:
    model = ws.MetaModel.load(ws.EXAMPLES / "backdoor-detector.safetensors")
    network = ws.load_network(CLEAN)
    one, same = model.predict(network)["backdoor"], model.predict(CLEAN)["backdoor"]
    both = model.predict([network, str(CLEAN)])["backdoor"]
    assert one.shape == (1, 2)
    assert np.array_equal(one, same)
    np.testing.assert_allclose(both, np.concatenate([one, one]), atol=1e-6)


WRONG: list[tuple[Any, str]] = [
    (lambda: ws.load_network("no.safetensors"), "there is no file"),
    (lambda: ws.load_network(7), "int holds no network: give a path"),
    (lambda: ws.load_network(nn.Linear(2, 2)), "a module needs an example"),
    (lambda: ws.scan("no-such-file", detector="no.safetensors"), "there is no detector"),
    (lambda: ws.scan("no-such-file"), "there is no file or folder no-such-file"),
    (lambda: ws.inspect("no-such-file"), "there is no file"),
    (lambda: ws.decompile("no.npz"), "there is no file"),
    (lambda: ws.decompile({}), "no transformer under Tracr's names"),
    (lambda: ws.decompile(ws.compile_program(HIST, vocab="ab", max_seq_len=2), budget=0.0), "a budget is a number"),
    (lambda: ws.compile_program(HIST), "vocab"),
    (lambda: ws.compile_program("nonsense(", vocab="ab", max_seq_len=2), "line 1"),
    (lambda: ws.make_zoo("no-such-recipe", "zoo"), "no-such-recipe"),
    (lambda: ws.examples("no-zoo"), "is not a zoo"),
    (lambda: ws.compare([], "no-zoo"), "there is nothing to compare"),
    (lambda: ws.MetaModel.load("nowhere"), "holds no meta-model"),
    (lambda: ws.Zoo.open("nowhere"), "is not a zoo"),
    (lambda: ws.push("nowhere", "./x"), "there is no model"),
    (lambda: ws.pull("./x", "y", kind="dog"), "two kinds to pull"),
]


@pytest.mark.parametrize(("call", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_is_wrong_is_one_sentence(call: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ws.WeightspaceError, match=said) as refused:
        call()
    assert "\n" not in str(refused.value).strip()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("ws.scan(7)", "int cannot be scanned"),
        ("ws.scan([7])", "int cannot be scanned"),
        ("ws.inspect(7)", "int cannot be inspected"),
        ("ws.run('return Map(x + 1, indices)', 7)", "a text or a list of tokens, not 7"),
        ("ws.decompile(7)", "int holds no transformer"),
        ("ws.compile_program(7)", "int is no program"),
        ("ws.decompile('x', budget='soon')", "a budget is a number"),
        ("ws.decompile('x', vocab=7)", "vocab is a list of tokens"),
        ("ws.make_zoo(7, 'zoo')", "a recipe is a name or a configuration"),
        ("ws.compare(7, 'zoo')", "methods in a list"),
        ("ws.permute(ws.load_network(ws.EXAMPLES / 'example-clean.safetensors'), by='x')", "a seed or an order"),
    ],
)
def test_what_is_of_the_wrong_type_is_one_sentence_where_no_types_are_checked(call: str, said: str) -> None:
    code = f"import weightspace as ws\ntry:\n    {call}\nexcept ws.WeightspaceError as error:\n    print(error)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said in run.stdout, run.stderr
    assert run.stdout.count("\n") == 1


def test_objects_say_on_one_line_what_they_are_and_show_themselves_in_a_notebook(tmp_path: Path) -> None:
    transformer = ws.compile_program(HIST, vocab=["<", "&"], max_seq_len=2)
    zoo = ws.make_zoo("digits-small", tmp_path / "zoo", count=4, epochs=1, show=False)
    shown = [
        ws.load_network(CLEAN),
        ws.Program.parse(HIST),
        transformer,
        ws.decompile(transformer),
        ws.scan(CLEAN),
        zoo,
        ws.Detector.load(),
        ws.MetaModel.load(ws.EXAMPLES / "backdoor-detector.safetensors"),
    ]
    for one in shown:
        assert "\n" not in repr(one)
        assert len(repr(one)) < 160
        html = one._repr_html_()  # type: ignore[union-attr]
        assert html.startswith("<div") and html.endswith("</div>")
        assert "<&" not in html and "< ," not in html


def test_a_zoo_is_a_sequence_of_networks_with_their_labels(tmp_path: Path) -> None:
    zoo = ws.make_zoo("digits-small", tmp_path / "zoo", count=4, epochs=1, show=False)
    assert isinstance(zoo, ws.Zoo)
    assert len(zoo) == len(list(zoo)) == 4
    assert np.array_equal(zoo[1].weights, list(zoo)[1].weights)
    weights, labels = zoo.torch()[1]
    assert np.array_equal(weights.numpy(), zoo[1].weights)
    assert labels["optimiser"] in ("momentum", "adam", "rmsprop")


def test_a_method_of_ones_own_is_compared_on_a_zoo(tmp_path: Path) -> None:
    from weightspace.metamodels.baselines.majority import Majority

    zoo = ws.make_zoo("digits-small", tmp_path / "zoo", count=60, epochs=1, show=False)
    assert isinstance(zoo, ws.Zoo)
    found = ws.compare([Majority()], zoo, targets=["optimiser"])
    assert [row.predictor for row in found.rows] == ["majority"]
    assert "majority" in str(found) and "\n" in str(found) and "\n" not in repr(found)
    assert "95% interval" in found._repr_html_()
    assert len(ws.examples(zoo, "test")) == found.rows[0].n
    assert len(planted_examples(8, 0)) == 8
