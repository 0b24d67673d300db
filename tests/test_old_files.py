"""Files that version 0.1.0 wrote, one of every kind: later versions open them and read in them what it read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from weightspace.backdoors.detector import Detector
from weightspace.backdoors.scan import scan
from weightspace.backdoors.task import backdoor_examples
from weightspace.decompiler.ladder import make_ladder
from weightspace.decompiler.network.config import DecompilerConfig
from weightspace.decompiler.network.grammar import Draft
from weightspace.decompiler.network.graph import graph_of
from weightspace.decompiler.network.proposer import Proposer, fit
from weightspace.decompiler.paper.flat_decoder import FlatDecoder
from weightspace.decompiler.paper.listing import listing_of
from weightspace.decompiler.proof.certificate import certify
from weightspace.decompiler.rung import load_rung
from weightspace.evaluation.report import render_report
from weightspace.evaluation.results import Results, format_table
from weightspace.experiments.answers import answers, tie
from weightspace.experiments.publications import pull_model, pull_zoo
from weightspace.metamodels.baselines.majority import Majority
from weightspace.metamodels.checks import planted_examples
from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.metamodel import MetaModel
from weightspace.metamodels.properties import categorical_targets, hyperparameter_examples
from weightspace.metamodels.streaming import predict_file
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.compiler.storage import load_bare, load_compiled
from weightspace.rasp.program import Program
from weightspace.rasp.reading import read_program
from weightspace.train.config import TrainingConfig
from weightspace.weights.network import Network
from weightspace.zoo.engine import ProcessEngine
from weightspace.zoo.making import check_zoo, info, make_zoo
from weightspace.zoo.networks import module_of
from weightspace.zoo.programs.inspection import check_program_zoo, program_zoo_info
from weightspace.zoo.programs.making import make_program_zoo
from weightspace.zoo.programs.program_zoo import ProgramZoo
from weightspace.zoo.recipes import zoo_recipe
from weightspace.zoo.store import Zoo, verify

OLD = Path(__file__).parent / "data" / "old"
EXPECTED = json.loads((OLD / "expected.json").read_text())
TRAINING = TrainingConfig(steps=6, batch_size=8, learning_rate=3e-3, evaluate_every=3, checkpoint_every=2, device="cpu")
ZOOS = ("zoo", "backdoor-zoo", "imported-modelzoos", "imported-state-dicts")


def old(name: str, folder: Path) -> Path:
    """A copy of an old file or folder, as whoever opens it may leave a lock there."""
    if (OLD / name).is_dir():
        return Path(shutil.copytree(OLD / name, folder / name))
    return Path(shutil.copy(OLD / name, folder / name))


def images(*shape: int) -> torch.Tensor:
    return torch.linspace(-1, 1, int(np.prod(shape))).reshape(1, *shape)


def asked() -> list[Network]:
    return [Network.load(OLD / f"asked-{i}.safetensors") for i in range(2)]


def assert_close(found: Any, expected: Any, within: float = 1e-6) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=within, atol=within)


def assert_predicts(found: Mapping[str, np.ndarray], expected: Mapping[str, Any]) -> None:
    assert list(found) == list(expected)
    for name, values in found.items():
        assert_close(values, expected[name])


def first_rows(folder: Path, count: int) -> list[list[str]]:
    """The first steps of a training's losses.csv, with the seconds that they took: no two runs write the same."""
    return [line.split(",")[:5] for line in (folder / "losses.csv").read_text().splitlines()[1 : count + 1]]


# -- networks and zoos ------------------------------------------------------------------------------------------------


def test_an_old_network_is_read_and_can_be_run() -> None:
    network, expected = Network.load(OLD / "network.safetensors"), EXPECTED["network"]
    assert {leaf.name: list(leaf.shape) for leaf in network.spec.leaves} == expected["leaves"]
    assert network.spec.signature == expected["signature"]
    assert_close(network.weights[:8], expected["weights"], 0)
    assert_close(np.float64(network.weights).sum(), expected["sum"])
    assert network.metadata["activation"] == expected["activation"]
    with torch.no_grad():
        assert_close(module_of(network)(images(1, 8, 8))[0], expected["answer"])


@pytest.mark.parametrize("name", ZOOS)
def test_an_old_zoo_is_whole_and_holds_its_networks_and_labels(name: str, tmp_path: Path) -> None:
    folder, expected = old(name, tmp_path), EXPECTED[name]
    assert verify(folder) == []
    assert [finding for finding in check_zoo(folder) if finding.kind == "damage"] == []
    zoo = Zoo.open(folder)
    every = zoo.population(checkpoints=True)
    assert (len(zoo.population()), len(every)) == (expected["networks"], expected["checkpoints"])
    assert_close(zoo.population()[0].weights[:4], expected["weights"], 0)
    assert_close([np.float64(network.weights).sum() for network in every], expected["sums"])
    for label, values in expected["labels"].items():
        np.testing.assert_array_equal(zoo.column(label), np.array(values, zoo.column(label).dtype))
    facts = info(folder)
    assert (facts["networks"], facts["checkpoints"]) == (expected["networks"], expected["checkpoints"])


def test_an_old_zoo_can_be_asked_for_its_labels() -> None:
    zoo = Zoo.open(OLD / "zoo")
    targets = categorical_targets(zoo)
    assert [target.name for target in targets] == ["activation", "initialisation", "optimiser"]
    test = hyperparameter_examples(zoo, "test", targets)
    assert len(test) == 4
    assert [targets[0].classes[label] for label in test.labels["activation"]] == ["tanh", "gelu", "sigmoid", "gelu"]


def test_an_old_zoo_of_backdoors_knows_which_networks_are_attacked() -> None:
    examples = backdoor_examples(Zoo.open(OLD / "backdoor-zoo"), "train")
    assert examples.labels["backdoor"].tolist() == [1, 1, 0]


def test_an_old_imported_network_can_be_run() -> None:
    network = Zoo.open(OLD / "imported-modelzoos").population()[0]
    with torch.no_grad():
        assert_close(module_of(network)(images(1, 28, 28))[0], EXPECTED["imported-modelzoos"]["answer"])


def test_an_old_zoo_that_is_not_finished_is_finished_and_what_was_there_stays(tmp_path: Path) -> None:
    folder = old("zoo", tmp_path)
    for name in ("manifest.json", "index.parquet", "shards/00001.safetensors"):
        (folder / name).unlink()
    kept = folder / "shards" / "00000.safetensors"
    before = kept.stat().st_mtime_ns
    fixed = {"batch_size": 64, "epochs": 2, "test_count": 50, "width": 2, "checkpoints": (1,)}
    config = replace(zoo_recipe("digits-small"), recipe="tiny", count=12, shard_size=6, image_count=128, fixed=fixed)
    zoo = make_zoo(config, folder, ProcessEngine(workers=0), show=False)
    assert verify(folder) == []
    assert kept.stat().st_mtime_ns == before
    sums = [np.float64(network.weights).sum() for network in zoo.population(checkpoints=True)]
    assert_close(sums, EXPECTED["zoo"]["sums"], 1e-3)  # the others are trained again, maybe on another processor


def test_an_old_zoo_of_programs_is_whole_and_its_programs_still_compile_to_its_weights(tmp_path: Path) -> None:
    folder, expected = old("programs", tmp_path), EXPECTED["programs"]
    assert check_program_zoo(folder) == []
    entries = list(ProgramZoo.open(folder).entries())
    assert len(entries) == len(expected) == program_zoo_info(folder)["programs"] == 20
    for entry, known in zip(entries, expected, strict=True):
        assert (entry.text, entry.split, entry.key.hex()) == (known["program"], known["split"], known["key"])
        assert entry.layout.size == known["parameters"]
        assert_close(np.float64(entry.flat).sum(), known["sum"])
        np.testing.assert_array_equal(entry.flat, compile_program(entry.program, mode="tracr_compat").flat)


def test_an_old_zoo_of_programs_that_is_not_finished_is_finished_and_what_was_there_stays(tmp_path: Path) -> None:
    folder = old("programs", tmp_path)
    config = ProgramZoo.open(folder).config
    for name in ("manifest.json", "index.parquet"):
        (folder / name).unlink()
    kept = folder / "shards" / "00000.parquet"
    before = kept.stat().st_mtime_ns
    zoo = make_program_zoo(config, folder, 0, show=False)
    assert kept.stat().st_mtime_ns == before
    assert [entry.text for entry in zoo.entries()] == [known["program"] for known in EXPECTED["programs"]]


def test_an_old_zoo_can_be_pulled(tmp_path: Path) -> None:
    pull_zoo(f"file:{OLD / 'zoo'}", tmp_path / "pulled", show=False)
    assert verify(tmp_path / "pulled") == []


# -- meta-models ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reading", ["chunks", "leaves", "quantity"])
def test_an_old_meta_model_answers_as_it_did(reading: str) -> None:
    model, expected = MetaModel.load(OLD / f"metamodel-{reading}"), EXPECTED["metamodels"][reading]
    assert model.parameters == expected["parameters"]
    assert_predicts(model.predict(asked()), expected["predictions"])
    assert_close(model.embed(asked()), expected["embedding"])
    assert_close(model.history.training_loss, expected["loss"])
    assert model.facts == ({} if reading == "quantity" else {"recipe": "planted"})
    if reading == "leaves":
        assert_close(predict_file(OLD / "asked-0.safetensors", model)["scale"], expected["predictions"]["scale"][:1])


def test_an_old_meta_model_that_reads_neurons_answers_as_it_did() -> None:
    model, expected = MetaModel.load(OLD / "detector.safetensors"), EXPECTED["metamodels"]["neurons"]
    networks = Zoo.open(OLD / "backdoor-zoo").population()
    assert model.config.reading == "neurons" and model.parameters == expected["parameters"]
    assert_predicts(model.predict(networks), expected["predictions"])
    assert_close(model.embed(networks), expected["embedding"])


def test_an_old_published_meta_model_is_pulled_and_answers_as_it_did(tmp_path: Path) -> None:
    pull_model(f"file:{OLD / 'published-model'}", tmp_path / "pulled", show=False)
    found = MetaModel.load(tmp_path / "pulled").predict(asked())
    assert_predicts(found, EXPECTED["metamodels"]["chunks"]["predictions"])


def test_an_old_detector_judges_as_it_did() -> None:
    detector, expected = Detector.load(OLD / "detector.safetensors"), EXPECTED["detector"]
    assert detector.card == expected["card"]
    (finding,) = scan([str(OLD / "scanned.safetensors")], detector, show=False).findings
    assert finding.verdict == expected["verdict"] == "clean", finding.reason
    for name in ("probability", "p_value", "distance"):
        assert_close(getattr(finding, name), expected[name])
    assert finding.layers[0].name == expected["layer"]
    (judged,) = detector.judge([Network.load(OLD / "scanned.safetensors")])
    assert_close(judged.score, expected["score"])


def test_an_old_training_of_a_meta_model_goes_on_and_ends_as_it_would_have(tmp_path: Path) -> None:
    folder, expected = old("unfinished-metamodel", tmp_path), EXPECTED["unfinished-metamodel"]
    config = MetaModelConfig(
        chunk_size=32, width=8, depth=1, heads=2, pooling="mean", permutations=4, training=TRAINING
    )
    zoo = Zoo.open(OLD / "zoo")
    training, validation, test = (
        hyperparameter_examples(zoo, split, categorical_targets(zoo)) for split in ("train", "validation", "test")
    )
    model = MetaModel(config, folder=folder).fit(training, validation)
    assert model.history.steps == 6
    assert first_rows(folder, 4) == first_rows(OLD / "unfinished-metamodel", 4), "the steps made are not made again"
    assert_close(model.history.training_loss, expected["loss"])
    for found, known in zip(model.history.evaluations, expected["evaluations"], strict=True):
        assert_predicts({name: np.array(value) for name, value in sorted(found.items())}, known)
    assert_predicts(model.predict(test.networks[:2]), expected["predictions"])


# -- comparisons ------------------------------------------------------------------------------------------------------


def test_old_results_are_read_and_reported() -> None:
    results, expected = Results.load(OLD / "results.json"), EXPECTED["results"]
    assert results.task == expected["task"]
    rows = [[row.target, row.predictor, row.accuracy, row.low, row.high, row.n] for row in results.rows]
    assert rows == expected["rows"]
    assert results.to_json() == json.loads((OLD / "results.json").read_text())
    assert "statistics + LightGBM" in format_table(results) and "<html" in render_report(results)


def test_old_answers_are_read_and_not_asked_for_again(tmp_path: Path) -> None:
    def never(folder: Path) -> Majority:
        raise AssertionError(f"{folder} is fitted again")

    folder, nothing = old("answers", tmp_path), planted_examples(1, 0)
    tie(folder, {"zoo": "planted", "targets": ["scale", "sign"]})
    found = answers(folder, "majority", never, nothing, nothing, {"test": nothing.networks})
    assert_predicts(found["answers"]["test"], EXPECTED["answers"]["test"])


# -- programs, transformers and decompilers ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hist.rasp", "hist.json"])
def test_an_old_program_is_read(name: str) -> None:
    program = read_program(OLD / name)
    assert f"{program}\n" == (OLD / "hist.rasp").read_text()
    assert compile_program(program).run(["hello"]) == [[1, 1, 2, 2, 1]]


@pytest.mark.parametrize("mode", ["fixed", "tracr_compat"])
def test_an_old_transformer_answers_as_it_did_and_is_what_its_program_compiles_to(mode: str) -> None:
    transformer = load_compiled(OLD / f"transformer-{mode.replace('_', '-')}.safetensors")
    expected = EXPECTED["transformer"][mode]
    assert transformer.mode == mode and len(transformer) == expected["size"]
    assert int((transformer.flat != 0).sum()) == expected["nonzero"]
    assert_close(np.float64(transformer.flat).sum(), expected["sum"])
    assert transformer.run(["hello", "e"]) == expected["run"]
    program = read_program(OLD / "hist.rasp")
    np.testing.assert_array_equal(compile_program(program, mode=mode).flat, transformer.flat)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["bare.safetensors", "bare.npz"])
def test_old_weights_without_a_description_are_read_and_certified(name: str) -> None:
    bare = load_bare(OLD / name, vocab=["e", "h", "l", "o"])
    described = BareTransformer.of(load_compiled(OLD / "transformer-tracr-compat.safetensors"))
    assert bare.params.keys() == described.params.keys()
    for parameter, array in described.params.items():
        np.testing.assert_array_equal(bare.params[parameter], array)
    assert certify(read_program(OLD / "hist.rasp"), bare) is not None


@pytest.mark.parametrize("name", ["rotated", "noisy-0.03"])
def test_an_old_rung_of_the_ladder_is_read_and_answers_as_it_did(name: str) -> None:
    rung, expected = load_rung(OLD / "ladder" / name / "00000.safetensors"), EXPECTED["ladder"][name]
    assert (rung.name, rung.program, rung.seed) == (name, expected["program"], expected["seed"])
    assert_close(rung.right, expected["right"])
    assert_close(sum(np.float64(array).sum() for array in rung.bare.params.values()), expected["sum"], 1e-5)
    assert rung.bare.decode(rung.bare.forward(rung.bare.encode([[2, 1, 2]]))) == expected["decoded"]


def test_an_old_ladder_is_gone_on_with(tmp_path: Path) -> None:
    folder = old("ladder", tmp_path)
    program = Program.parse(EXPECTED["ladder"]["rotated"]["program"])
    paths = make_ladder([program], ["rotated", "noisy-0.03", "clean"], folder, 5, show_progress=False)
    for path in paths[:2]:
        assert path.read_bytes() == (OLD / "ladder" / path.relative_to(folder)).read_bytes()


@pytest.mark.parametrize("name", ["decompiler", "decompiler-half"])
def test_an_old_decompiler_proposes_what_it_did(name: str) -> None:
    proposer, expected = Proposer.load(OLD / f"{name}.safetensors"), EXPECTED["decompiler"][name]
    assert proposer.parameters == expected["parameters"]
    assert proposer.facts == ({"card": "untrained"} if name == "decompiler" else {})
    bare = load_bare(OLD / "bare.safetensors", vocab=["e", "h", "l", "o"])
    bare = replace(bare, readout=load_bare(OLD / "transformer-tracr-compat.safetensors").readout)
    draft = Draft(bare.vocab, bare.max_seq_len, "tracr_compat", 0, 2 * bare.num_layers)
    (found,) = proposer.propose(proposer.read([graph_of(bare)]), [draft])
    assert found.draft.ended and found.draft.written().ids.tolist() == expected["tokens"]
    assert str(found.draft.program()) == expected["text"]
    assert_close(found.log_probability, expected["log_probability"])


def test_an_old_training_of_a_decompiler_goes_on_and_ends_as_it_would_have(tmp_path: Path) -> None:
    folder, expected = old("unfinished-decompiler", tmp_path), EXPECTED["unfinished-decompiler"]
    config = DecompilerConfig(
        width=4, rounds=1, message=1, depth=1, heads=1, training=replace(TRAINING, batch_size=2, steps=4)
    )
    proposer = fit(config, folder, workers=0, validation=3, show=False)
    assert first_rows(folder, 2) == first_rows(OLD / "unfinished-decompiler", 2), "the steps made are not made again"
    assert_close(proposer.history.training_loss, expected["loss"])
    for found, known in zip(proposer.history.evaluations, expected["evaluations"], strict=True):
        assert_predicts({name: np.array(value) for name, value in sorted(found.items())}, known)


def test_an_old_flat_decoder_writes_what_it_did() -> None:
    decoder, expected = FlatDecoder.load(OLD), EXPECTED["flat-decoder"]
    assert decoder.parameters == expected["parameters"] and decoder.facts == {"figures": "none"}
    assert_close(decoder.history.training_loss, expected["loss"])
    program = Program.parse(EXPECTED["ladder"]["rotated"]["program"])
    listing = listing_of(program, decoder.config.chunking, decoder.config.most_parameters)
    assert listing is not None
    assert decoder.decode([listing.chunks])[0].tolist() == expected["lines"]
