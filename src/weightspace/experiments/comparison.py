"""Whole experiments: from a zoo to trained predictors, a table, a record and a report."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_safetensors

from weightspace.backdoors.detector import PRETRAINED
from weightspace.backdoors.general_detector import detectors_for
from weightspace.backdoors.page import write_scan
from weightspace.backdoors.scan import scan
from weightspace.backdoors.verdict import Scan
from weightspace.decompiler.decompile import decompile
from weightspace.decompiler.page import write_decompilation
from weightspace.decompiler.proof.verify import permuted
from weightspace.decompiler.result import Decompilation
from weightspace.errors import NetworkError, ScopeError, TaskError, UnlikeWarning, ZooError
from weightspace.evaluation.compare import compare, curve_of, results_of, score
from weightspace.evaluation.report import write_report
from weightspace.evaluation.results import Results, Row
from weightspace.files.atomic import file_hash, write_atomically
from weightspace.metamodels.asking import Answers
from weightspace.metamodels.baselines.linear import Linear
from weightspace.metamodels.baselines.majority import Majority
from weightspace.metamodels.baselines.statistics import StatisticsBoosting
from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.metamodel import MetaModel
from weightspace.metamodels.properties import categorical_targets, hyperparameter_examples
from weightspace.metamodels.recipes import small
from weightspace.metamodels.streaming import predict_file
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.program import Program
from weightspace.train.ranks import joined
from weightspace.weights.spec import SpecError
from weightspace.zoo.store import MANIFEST, Zoo, verify


def sound_zoo(folder: str | Path) -> Zoo:
    """A zoo of which every byte fits its checksum; it reads each file once, at the speed of the disk.

    Raises:
        ZooError: with the first thing that was found wrong; `weightspace zoo check` lists them all.
    """
    zoo = Zoo.open(folder)
    found = verify(folder)
    if found:
        raise ZooError(found[0])
    return zoo


def train_metamodel(
    folder: str | Path,
    out: str | Path,
    config: MetaModelConfig | None = None,
    targets: Sequence[str] | None = None,
    *,
    show: bool = True,
) -> MetaModel:
    """Train a meta-model on a zoo's training split and save it in `out`; killed and called again, it goes on.

    Started by torchrun it is trained by all the processes together, and the first one saves it.
    """
    zoo, config = sound_zoo(folder), config or small()
    asked = categorical_targets(zoo, targets)
    training, validation = (hyperparameter_examples(zoo, split, asked) for split in ("train", "validation"))
    with joined(config.training.device) as ranks:
        model = MetaModel(config, folder=Path(out), show=show).fit(training, validation)
        if ranks.first:
            model.save(out, _facts(zoo))
    return model


def evaluate_metamodel(run: str | Path, folder: str | Path, split: str = "test", *, seed: int = 0) -> list[Row]:
    """Score a saved meta-model on a split of a zoo.

    Raises:
        TaskError: if the zoo does not have the targets, with the classes, that the meta-model answers.
        ScopeError: if the zoo's networks are not such as it was trained on.
    """
    model, zoo = MetaModel.load(run), sound_zoo(folder)
    possible = {target.name: target for target in categorical_targets(zoo)}
    for target in model.targets:
        if possible.get(target.name) != target:
            found = possible[target.name].classes if target.name in possible else "no such label"
            raise TaskError(
                f"the meta-model answers {target.name!r} with {target.classes}, zoo {folder} has {found}: evaluate it "
                "on a zoo of the recipe that it was trained on"
            )
    training, test = (hyperparameter_examples(zoo, s, model.targets) for s in ("train", split))
    start = time.perf_counter()
    predictions = model.predict(test.networks)
    seconds = (0.0, time.perf_counter() - start)
    return score(model.name, predictions, training, test, seed, seconds, model.parameters)


STREAMED = 2**28
"""Bytes from which a file is read leaf by leaf, by a meta-model that can."""


def predict_files(
    run: str | Path, files: Sequence[str | Path], failed: Callable[[Exception], None] | None = None
) -> list[dict[str, Any]]:
    """A saved meta-model's answers about networks in checkpoint files of any kind.

    A file that `Network.save` wrote describes itself; the arrays of any other are matched by what they do, their shapes
    and their order with the networks that the meta-model was trained on. One that reads leaves needs little memory,
    however large a file is, and then knows arrays by their names alone.

    Args:
        failed: is told of a file that cannot be judged, which is then left out; unless given, the first one ends it.
    Returns:
        for each file its name; for each target the probability of every class; `distance` from the networks that the
        meta-model was trained on, above 1 if it is unlike them, None where it cannot tell; and `notes`, sentences.
    Raises:
        NetworkError, ScopeError: naming the file that cannot be judged.
    """
    if not files:
        raise TaskError("there is nothing to judge: name at least one file of weights")
    model = MetaModel.load(run)
    answers = []
    for file in files:
        try:
            found = _asked_about(file, model)
        except (NetworkError, ScopeError, SpecError) as error:
            named = type(error)(f"{file}: {error}" if str(file) not in str(error) else str(error))
            if failed is None:
                raise named from error
            failed(named)
            continue
        targets = {
            target.name: dict(zip(target.classes, map(float, found[target.name][0]), strict=True))
            for target in model.targets
        }
        distance = float(found.distance[0])
        far = None if np.isnan(distance) else distance
        answers.append({"file": str(file), "targets": targets, "distance": far, "notes": list(found.notes[0])})
    return answers


def _asked_about(file: str | Path, model: MetaModel) -> Answers:
    """The answers about one file; that it is unlike the others is in the notes, not a warning beside them."""
    if model.config.reading == "leaves" and Path(file).is_file() and Path(file).stat().st_size >= STREAMED:
        told = "It is too large to compare with the networks of the training."
        return Answers(predict_file(file, model), np.array([np.nan]), ((told,),))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnlikeWarning)
        found = model.predict([file])
    assert isinstance(found, Answers)
    return found


def compare_on_zoo(
    folder: str | Path,
    out: str | Path,
    config: MetaModelConfig | None = None,
    targets: Sequence[str] | None = None,
    *,
    show: bool = True,
    started: float | None = None,
) -> Results:
    """Meta-model and baselines on one zoo and one split; writes `results.json`, `report.html` and the meta-model."""
    start = time.perf_counter() if started is None else started
    zoo, out = sound_zoo(folder), Path(out)
    asked = categorical_targets(zoo, targets)
    training, validation, test = (hyperparameter_examples(zoo, s, asked) for s in ("train", "validation", "test"))
    model = MetaModel(config or small(), folder=out / "metamodel", show=show)
    predictors = [Majority(), Linear(), StatisticsBoosting(), model]
    rows, answers = compare(predictors, training, validation, test, show=show)
    model.save(out / "metamodel", _facts(zoo))
    results = results_of(
        f"Hyperparameters from weights ({zoo.description['config']['recipe']})",
        zoo,
        rows,
        answers,
        test,
        {model.name: curve_of(model.history)},
        seconds=time.perf_counter() - start,
    )
    results.save(out / "results.json")
    write_report(results, out / "report.html")
    return results


DEMO_PROGRAM = """\
vocab = [1, 2, 3, 4, 5]
max_seq_len = 5
keys = SequenceMap(5 * (x - 1) + y, tokens, indices)
smaller = Select(PRED_LT, keys, keys)
place = SelectorWidth(smaller)
there = Select(PRED_EQ, place, indices)
return Aggregate(there, tokens)
"""
"""What the demo compiles and decompiles: it sorts its tokens."""

DEMO_SEED = 5
"""Of the order in which the demo puts directions, units and heads."""


def decompile_demo(out: str | Path) -> Decompilation:
    """Sort compiled, its weights put in a random order without a name, and found again; writes weights and a page."""
    out = Path(out)
    compiled = compile_program(Program.parse(DEMO_PROGRAM), mode="tracr_compat")
    bare = permuted(BareTransformer.of(compiled), DEMO_SEED)
    write_atomically(out / "unknown.safetensors", save_safetensors(dict(bare.params)))
    found = decompile(bare, budget=30.0, seed=DEMO_SEED)
    write_decompilation(found, bare, out / "decompiled.html", name="unknown.safetensors")
    return found


def scan_demo(out: str | Path) -> Scan:
    """Two test networks of the detector's zoo and two that a plain script trained, one of each with a backdoor; writes
    them and a page."""
    out, paths = Path(out), []
    for number, name in enumerate(("clean", "backdoored", "plain-clean", "plain-backdoored"), 1):
        paths.append(out / f"checkpoint-{number}.safetensors")
        write_atomically(paths[-1], (PRETRAINED.parent / f"example-{name}.safetensors").read_bytes())
    special, general = detectors_for(None)
    found = scan([str(path) for path in paths], special, general=general)
    write_scan(found, out / "scan.html")
    return found


def _facts(zoo: Zoo) -> dict[str, str]:
    """What a saved meta-model says of the zoo that it was trained on."""
    return {"recipe": zoo.description["config"]["recipe"], "zoo_manifest_sha256": file_hash(zoo.folder / MANIFEST)}
