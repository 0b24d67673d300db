"""What the canonical scale does to answers: readers of weights with and without it, asked about rewritten networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from weightspace.backdoors.recipes import neuron_metamodel
from weightspace.backdoors.task import BACKDOOR, backdoor_examples
from weightspace.errors import TaskError
from weightspace.evaluation.metrics import Interval, accuracy, auroc, bootstrap_interval
from weightspace.evaluation.tables import markdown_table
from weightspace.experiments.answers import answers, tie
from weightspace.experiments.hyperparameters import property_metamodel
from weightspace.files.progress import progress
from weightspace.metamodels.baselines.linear import AlignedLinear, StatisticsLinear
from weightspace.metamodels.baselines.statistics import StatisticsBoosting
from weightspace.metamodels.choice import LowestLoss
from weightspace.metamodels.contract import Examples, Predictor
from weightspace.metamodels.metamodel import MetaModel
from weightspace.metamodels.properties import categorical_targets, hyperparameter_examples
from weightspace.weights.canonical_scale import in_canonical_scale
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.scaling import random_scales, rescale
from weightspace.weights.spec import NetworkSpec, Scaling
from weightspace.zoo.networks import scalings_of
from weightspace.zoo.store import Zoo

SCALES = ("given", "canonical")
SPREAD = 0.7
"""Deviation of the logarithms of the scales by which test networks are rewritten."""
PROPERTIES = ("initialisation", "optimiser")
RATES = (1e-3, 3e-3)
"""Learning rates of the meta-models, of which validation chooses."""


@dataclass(frozen=True)
class ScaleRow:
    """How one reader answers one question.

    Attributes:
        question: "backdoor", or a hyperparameter.
        reader: its name.
        scale: in which it read all networks, of `SCALES`.
        networks: test networks.
        given, rewritten: AUROC for backdoors, accuracy for hyperparameters, on the test networks as they are, and on
            the same networks with other scales of their neurons, which compute the same.
        moved: share of networks for which the most probable answer differs between the two.
    """

    question: str
    reader: str
    scale: str
    networks: int
    given: Interval
    rewritten: Interval
    moved: float


def scale_effect(zoo: Zoo, out: Path, *, show: bool = True) -> list[ScaleRow]:
    """Each reader fitted on weights as given, and on weights in canonical scale; both asked about rewritten networks.

    Asked are whether there is a working backdoor, and the hyperparameters of `PROPERTIES` that the zoo varies. Killed
    and called again it goes on with what is missing.

    Args:
        zoo: of one architecture that has scalings.
        out: a folder for answers and checkpoints.
    Raises:
        TaskError: if the zoo has several architectures or none that scales, or the folder holds other answers.
    """
    scalings = scalings_of(zoo.population("train"))
    if not scalings:
        raise TaskError(
            f"the networks of zoo {zoo.folder} have several architectures, or no neurons with a scale: use a zoo of "
            "one architecture with ReLUs or normalisations, such as backdoors-varied"
        )
    tie(out, [zoo.manifest["checksum"], SPREAD, RATES, PROPERTIES])
    rows = []
    questions = _questions(zoo)
    total = len(SCALES) * sum(len(_readers(name)) for name in questions)
    with progress("reading", total, "readers", show) as advance:
        for question, (training, validation, test) in questions.items():
            for scale in SCALES:
                seen = partial(_seen, scale=scale, scalings=scalings)
                asked = {"given": seen(test.networks), "rewritten": seen(rewritten(test.networks, scalings))}
                learnt = [replace(side, networks=seen(side.networks)) for side in (training, validation)]
                for name, make in _readers(question).items():
                    said = answers(out, f"{question} {name} {scale}", make, learnt[0], learnt[1], asked)["answers"]
                    rows.append(_row(question, name, scale, test, said))
                    advance(1, note=f"{question}, {name}, {scale}")
    return rows


def rewritten(networks: Population, scalings: Sequence[Scaling], seed: int = 0) -> Population:
    """The same functions with random scales of their neurons."""
    found = []
    for number, network in enumerate(networks):
        spec = NetworkSpec(network.spec.leaves, network.spec.groups, tuple(scalings))
        rng = np.random.default_rng([seed, number])
        found.append(rescale(Network(spec, network.weights, network.metadata), random_scales(spec, rng, SPREAD)))
    return Population.of(found)


def scale_table(rows: Sequence[ScaleRow]) -> str:
    """The rows as Markdown."""

    def worded(interval: Interval) -> str:
        return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"

    header = ("question", "reader", "weights", "n", "as given", "rewritten", "answers moved")
    cells = [
        (r.question, r.reader, r.scale, r.networks, worded(r.given), worded(r.rewritten), f"{r.moved:.1%}")
        for r in rows
    ]
    return markdown_table(header, cells)


def _questions(zoo: Zoo) -> dict[str, tuple[Examples, Examples, Examples]]:
    """Training, validation and test examples of each question; tested are attacks that work."""
    found = {}
    least = {"train": 0.5, "validation": 0.5, "test": 0.9}
    if "attack" in zoo.columns:
        sides = [backdoor_examples(zoo, split, success=(success, 1.0)) for split, success in least.items()]
        found[BACKDOOR.name] = (sides[0], sides[1], sides[2])
    varied = {target.name: target for target in categorical_targets(zoo)}
    for name in PROPERTIES:
        if name in varied:
            sides = [hyperparameter_examples(zoo, split, [varied[name]]) for split in least]
            found[name] = (sides[0], sides[1], sides[2])
    return found


def _readers(question: str) -> Mapping[str, Callable[[Path], Predictor]]:
    def metamodel(folder: Path) -> Predictor:
        def one(rate: float) -> Predictor:
            config = neuron_metamodel(rate=rate) if question == BACKDOOR.name else property_metamodel(rate=rate)
            return MetaModel(config, folder=folder / f"{rate:g}", show=False)

        return LowestLoss("meta-model", [partial(one, rate) for rate in RATES])

    return {
        "statistics, linear": lambda _: StatisticsLinear(),
        "statistics + LightGBM": lambda _: StatisticsBoosting(),
        "linear, aligned": lambda _: AlignedLinear(),
        "meta-model": metamodel,
    }


def _seen(networks: Population, *, scale: str, scalings: Sequence[Scaling]) -> Population:
    return in_canonical_scale(networks, scalings) if scale == "canonical" else networks


def _row(
    question: str, reader: str, scale: str, test: Examples, said: Mapping[str, Mapping[str, np.ndarray]]
) -> ScaleRow:
    labels = test.labels[question]
    measure = auroc if question == BACKDOOR.name else accuracy

    def scored(which: str) -> Interval:
        probabilities = said[which][question]
        return bootstrap_interval(lambda rows: measure(probabilities[rows], labels[rows]), len(labels), seed=0)

    moved = said["given"][question].argmax(1) != said["rewritten"][question].argmax(1)
    return ScaleRow(question, reader, scale, len(labels), scored("given"), scored("rewritten"), float(moved.mean()))
