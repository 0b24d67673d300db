"""Hyperparameters from weights: every method on one zoo and one split, over seeds and numbers of training networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.errors import ScopeError, TaskError
from weightspace.evaluation.seeds import PropertyRow, Said, property_rows
from weightspace.experiments.answers import answers, tie
from weightspace.files.progress import progress
from weightspace.metamodels.baselines.autoencoder import AutoencoderConfig, HyperRepresentation
from weightspace.metamodels.baselines.conv1d import SliceConvolutions
from weightspace.metamodels.baselines.linear import Linear, StatisticsLinear
from weightspace.metamodels.baselines.majority import Majority
from weightspace.metamodels.baselines.neural_graph import NeuralGraph
from weightspace.metamodels.baselines.neuron_boosting import NeuronBoosting
from weightspace.metamodels.baselines.statistics import StatisticsBoosting
from weightspace.metamodels.choice import CrossValidated, LowestLoss
from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.contract import Examples, Predictor, UnfitError
from weightspace.metamodels.metamodel import MetaModel
from weightspace.metamodels.pretraining import PretrainedMetaModel
from weightspace.metamodels.properties import categorical_targets, hyperparameter_examples, property_targets
from weightspace.metamodels.recipes import brief, narrow
from weightspace.weights.spec import SpecError
from weightspace.zoo.store import Zoo


def property_metamodel(
    *, steps: int = 600, rate: float = 3e-3, seed: int = 0, summary: bool = True, exact: bool = False
) -> MetaModelConfig:
    """A token a neuron, with statistics of each array beside them, for a thousand networks on two cores.

    Bins, steps and the width of the hidden layer were chosen on the validation networks of cnn-s on MNIST.
    """
    return replace(
        narrow(brief(steps, rate, seed=seed)),
        reading="neurons",
        other_widths=True,
        pooling="extremes",
        summary=summary,
        scale="ranks",
        bins=(32 if exact else 16) if summary else 0,
        exact=exact,
        hidden=256,
    )


def chunk_metamodel(*, chunk_size: int = 1024, steps: int = 300, rate: float = 1e-3, seed: int = 0) -> MetaModelConfig:
    """The paper's reading of flat weights, as small as the other one."""
    return narrow(brief(steps, rate, seed=seed), chunk_size=chunk_size)


Make = Callable[[Path, int], Predictor]
"""Makes a method that keeps its checkpoints in a folder of its own, with a seed."""


def _tried(name: str, make: Callable[..., Predictor], rates: Sequence[float]) -> Make:
    """A method in several learning rates, of which validation chooses."""

    def build(folder: Path, seed: int) -> Predictor:
        return LowestLoss(name, [partial(make, rate=rate, seed=seed, folder=folder / f"{rate:g}") for rate in rates])

    return build


def _slices(*, rate: float, seed: int, folder: Path) -> Predictor:
    return SliceConvolutions(brief(300, rate, batch_size=64, decay=0.0, seed=seed), folder=folder)


def _graph(*, rate: float, seed: int, folder: Path) -> Predictor:
    return NeuralGraph(brief(150, rate, seed=seed), rounds=2, folder=folder)


def _chunks(*, rate: float, seed: int, folder: Path) -> Predictor:
    return MetaModel(chunk_metamodel(rate=rate, seed=seed), folder=folder)


def _neurons(*, rate: float, seed: int, folder: Path, **choices: bool) -> Predictor:
    return MetaModel(property_metamodel(rate=rate, seed=seed, **choices), folder=folder)


def _pretrained(*, rate: float, seed: int, folder: Path) -> Predictor:
    config = property_metamodel(rate=rate, seed=seed)
    return PretrainedMetaModel(config, steps=config.training.steps, folder=folder)


def _codes(*, rate: float, seed: int, folder: Path) -> Predictor:
    base = AutoencoderConfig()
    training = replace(base.training, seed=seed, learning_rate=rate)
    return HyperRepresentation(replace(base, training=training), folder=folder)


def _folds(folder: Path, seed: int) -> Predictor:
    def make(fold: int) -> Predictor:
        return MetaModel(property_metamodel(seed=100 * seed + fold), folder=folder / f"fold-{fold}")

    return CrossValidated("meta-model, five folds", [make])


METHODS: dict[str, Make] = {
    "majority": lambda *_: Majority(),
    "linear": lambda *_: Linear(),
    "statistics, linear": lambda *_: StatisticsLinear(),
    "statistics + LightGBM": lambda _, seed: StatisticsBoosting(seed),
    "neurons + LightGBM": lambda _, seed: NeuronBoosting(seed),
    "statistics + LightGBM, five folds": lambda _, seed: CrossValidated(
        "statistics + LightGBM, five folds", [lambda fold: StatisticsBoosting(100 * seed + fold)]
    ),
    "slice convolutions": _tried("slice convolutions", _slices, (1e-3, 3e-3)),
    "autoencoder + linear": _tried("autoencoder + linear", _codes, (1e-3, 3e-4)),
    "neural graph": _tried("neural graph", _graph, (1e-3, 3e-3)),
    "meta-model, chunks": _tried("meta-model, chunks", _chunks, (1e-3, 3e-3)),
    "meta-model, neurons": _tried("meta-model, neurons", partial(_neurons, summary=False), (1e-3, 3e-3)),
    "meta-model": _tried("meta-model", _neurons, (1e-3, 3e-3)),
    "meta-model, exact statistics": _tried("meta-model, exact statistics", partial(_neurons, exact=True), (1e-3, 3e-3)),
    "meta-model, pretrained": _tried("meta-model, pretrained", _pretrained, (1e-3, 3e-3)),
    "meta-model, five folds": _folds,
}
"""Every method by the name that tables call it. Those that learn by gradients have two learning rates each, of which
validation chooses; *five folds* trains on the validation networks too, and has one."""
SETTLED = ("majority", "linear", "statistics, linear")
"""Methods that have nothing random about them."""
GROWING = {name: make for name, make in METHODS.items() if "five folds" not in name}
"""Methods that learn from the training networks alone, which a learning curve counts."""


def ask(
    zoo: Zoo,
    out: Path,
    *,
    methods: Mapping[str, Make] = METHODS,
    targets: Sequence[str] | None = None,
    networks: int | None = None,
    labelled: float = 1.0,
    larger: bool = False,
    seeds: int = 1,
    checkpoints: bool = False,
    show: bool = True,
) -> tuple[list[Said], Examples, Examples]:
    """Fit every method on the training split, let it choose on the validation split, and ask it about the test split.

    Killed and called again it goes on with what is missing. A method that does not fit the zoo, as the autoencoder does
    not where networks differ in architecture, or that cannot judge larger networks, is left out.

    Args:
        out: a folder for what each has said, and for checkpoints.
        targets: what is asked; all hyperparameters and quantities of the zoo unless given.
        networks: how many of the training networks are used, drawn by a fixed seed; None for all.
        labelled: share of the training and of the validation networks whose labels are known; of the others, methods
            that learn without labels may still see the weights.
        larger: train on networks with fewer weights than the median, and ask about the others.
        seeds: trainings of each method that has anything random about it.
        checkpoints: train on and ask about every stored checkpoint.
    Returns:
        what was said, and the training and test examples.
    Raises:
        TaskError: if the zoo cannot be asked, or the folder holds other answers.
    """
    if not 0 < labelled <= 1:
        raise TaskError(f"labels of a share of {labelled} of the networks cannot be known: give one above 0, up to 1")
    chosen = property_targets(zoo, targets, checkpoints=checkpoints)
    asked = [zoo.manifest["checksum"], [target.name for target in chosen], networks, labelled, larger, checkpoints]
    tie(out, [*asked, asdict(property_metamodel()), asdict(chunk_metamodel())])
    training, validation, test = (
        hyperparameter_examples(zoo, split, chosen, checkpoints=checkpoints)
        for split in ("train", "validation", "test")
    )
    if larger:
        training, validation, test = _smaller_and_larger(zoo, training, validation, test)
    if networks is not None:
        most = len(np.unique(training.unit))
        if not 1 <= networks <= most:
            raise TaskError(f"{networks} training networks were asked for, and zoo {zoo.folder} has 1 to {most}")
        training = training.select(training.drawn(networks, 6))
    if labelled < 1:
        training, validation = (_partly(e, labelled, seed) for seed, e in enumerate((training, validation)))
    found = []
    with progress("asking", len(methods), "methods", show) as advance:
        for name, make in methods.items():
            found += _said(out, name, make, 1 if name in SETTLED else seeds, training, validation, test)
            advance(1, note=name)
    return found, training, test


def _smaller_and_larger(zoo: Zoo, training: Examples, validation: Examples, test: Examples) -> Iterator[Examples]:
    """Of the first two the networks with fewer weights than the median, of the test networks the others."""
    sizes = np.array([spec.size for spec in zoo.specs])
    middle = np.median(sizes[zoo.spec_ids(training.networks.rows)])
    if len(zoo.specs) == 1:
        raise TaskError(f"zoo {zoo.folder} has networks of one size: there are none larger than others")
    for examples in (training, validation, test):
        below = sizes[zoo.spec_ids(examples.networks.rows)] < middle
        yield examples.select(np.flatnonzero(~below if examples is test else below))


def _said(
    out: Path, name: str, make: Make, seeds: int, training: Examples, validation: Examples, test: Examples
) -> list[Said]:
    """What a method says over so many seeds; nothing, if it fits none of this."""
    records = []
    for seed in range(seeds):

        def seeded(folder: Path, seed: int = seed) -> Predictor:
            return make(folder, seed)

        with suppress(UnfitError, ScopeError, SpecError):
            records.append(answers(out, f"{name} {seed}", seeded, training, validation, {"test": test.networks}))
    if not records:
        return []
    said = tuple(record["answers"]["test"] for record in records)
    fitted, predicted = (float(np.mean([r[key] for r in records])) for key in ("fitted", "predicted"))
    return [Said(name, said, fitted, predicted, records[0]["parameters"])]


def _partly(examples: Examples, share: float, seed: int) -> Examples:
    """Labels of a share of the networks, at least 10 of them."""
    count = max(10, round(share * len(np.unique(examples.unit))))
    return examples.hiding(examples.drawn(count, 7 + seed))


def _variant(name: str, **changes: Any) -> Make:
    """One training of a meta-model that differs from the chunk reader in a few settings."""

    def make(folder: Path, seed: int) -> Predictor:
        return LowestLoss(name, [partial(MetaModel, replace(chunk_metamodel(seed=seed), **changes), folder=folder)])

    return make


_NEURONS: dict[str, Any] = {"reading": "neurons", "pooling": "extremes"}

VARIANTS: dict[str, Make] = {
    name: _variant(name, **changes)
    for name, changes in {
        "chunks of 1,024": {},
        "chunks of 64": {"chunk_size": 64},
        "chunks of 128": {"chunk_size": 128},
        "chunks of 512": {"chunk_size": 512},
        "embedded by an MLP": {"embedding": "mlp"},
        "no layer encoding": {"layer_encoding": False},
        "one normalisation for all layers": {"normalisation": "global"},
        "not permuted": {"permute": False},
        "read at the first token": {"pooling": "first"},
        "width 128": {"width": 128},
        "depth 4": {"depth": 4},
        "statistics beside it": {"summary": True},
        "neurons": _NEURONS,
        "neurons, as ranks": _NEURONS | {"scale": "ranks"},
        "neurons and statistics, as ranks": _NEURONS | {"scale": "ranks", "summary": True},
        "and a hidden layer": _NEURONS | {"scale": "ranks", "summary": True, "hidden": 128},
        "and statistics in 16 bins": _NEURONS | {"scale": "ranks", "summary": True, "hidden": 128, "bins": 16},
        "and 256 hidden units": _NEURONS | {"scale": "ranks", "summary": True, "hidden": 256, "bins": 16},
        "neurons and statistics": _NEURONS | {"summary": True},
        "neurons, mean over them": _NEURONS | {"pooling": "mean"},
    }.items()
}
"""The reader of chunks with one choice changed at a time, then of neurons: as many steps of as many networks each."""


def learning_curve(
    zoo: Zoo, out: Path, counts: Sequence[int], *, methods: Mapping[str, Make], seeds: int = 1, show: bool = True
) -> dict[int, list[PropertyRow]]:
    """Every method after training on so many networks, asked for the zoo's hyperparameters; killed, it goes on."""
    found = {}
    for count in counts:
        said, training, test = ask(
            zoo,
            out / f"{count}-networks",
            methods=methods,
            targets=[target.name for target in categorical_targets(zoo)],
            networks=count,
            seeds=seeds,
            show=show,
        )
        found[count] = property_rows(said, training, test)
    return found
