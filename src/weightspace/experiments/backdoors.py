"""Backdoor detection: every detector on one zoo and one split, scored attack by attack and against controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.backdoors.detection import DetectionRow, DetectorAnswers, detection_row, markdown, roc_curve
from weightspace.backdoors.recipes import RATES, backdoor_metamodel, neuron_metamodel
from weightspace.backdoors.task import BACKDOOR, FAMILY, backdoor_examples
from weightspace.errors import TaskError
from weightspace.evaluation.compare import compare
from weightspace.evaluation.plots import roc_curves
from weightspace.evaluation.results import Row
from weightspace.experiments.answers import answers, tie
from weightspace.files.progress import progress
from weightspace.metamodels.baselines.final_layer import AllStatisticsBoosting, FinalLayerBoosting
from weightspace.metamodels.baselines.linear import AlignedLinear, Linear, StatisticsLinear
from weightspace.metamodels.baselines.majority import Majority
from weightspace.metamodels.baselines.queries import MNTD, ULP, OneClassMNTD
from weightspace.metamodels.baselines.statistics import StatisticsBoosting
from weightspace.metamodels.choice import CrossValidated, LowestLoss
from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.contract import Examples, Predictor
from weightspace.metamodels.metamodel import MetaModel
from weightspace.metamodels.pretraining import PretrainedMetaModel
from weightspace.weights.population import Population
from weightspace.zoo.poison import ATTACKS
from weightspace.zoo.store import Zoo

Make = Callable[[Path], Predictor]
"""Makes a detector that keeps its checkpoints, if it has any, in a folder of its own."""


def _chunks(name: str, chunk_size: int = 1024, permute: bool = True) -> Make:
    def make(folder: Path) -> Predictor:
        configs = [backdoor_metamodel(chunk_size, permute=permute, rate=rate) for rate in RATES]
        makes = [partial(MetaModel, config, folder=folder / str(n)) for n, config in enumerate(configs)]
        return LowestLoss(name, makes)

    return make


def _neurons(name: str, summary: bool = True, pretraining: int = 0) -> Make:
    def make(folder: Path) -> Predictor:
        makes: list[Callable[[], Predictor]] = []
        for n, rate in enumerate(RATES):
            config = neuron_metamodel(rate=rate, summary=summary)
            if pretraining:
                makes.append(partial(PretrainedMetaModel, config, steps=pretraining, folder=folder / str(n)))
            else:
                makes.append(partial(MetaModel, config, folder=folder / str(n)))
        return LowestLoss(name, makes)

    return make


def _five_folds(name: str) -> Make:
    """The meta-model that reads neurons and statistics, from scratch, quickly or after pretraining; see
    `CrossValidated`."""

    def make(folder: Path) -> Predictor:
        quick, slow = neuron_metamodel(steps=200, rate=3e-3), neuron_metamodel(steps=600, rate=1e-3)

        def fresh(config: MetaModelConfig, place: str, fold: int) -> Predictor:
            return MetaModel(_reseeded(config, fold), folder=folder / f"{place}-{fold}")

        def pretrained(fold: int) -> Predictor:
            return PretrainedMetaModel(_reseeded(quick, fold), steps=600, folder=folder / f"pretrained-{fold}")

        return CrossValidated(name, [partial(fresh, quick, "quick"), partial(fresh, slow, "slow"), pretrained])

    return make


def _reseeded(config: MetaModelConfig, seed: int) -> MetaModelConfig:
    return replace(config, training=replace(config.training, seed=seed))


DETECTORS: dict[str, Make] = {
    "final layer": lambda _: FinalLayerBoosting(),
    "weight statistics": lambda _: StatisticsBoosting(),
    "weight statistics, linear": lambda _: StatisticsLinear(),
    "statistics and final layer": lambda _: AllStatisticsBoosting(),
    "linear": lambda _: Linear(),
    "linear, aligned": lambda _: AlignedLinear(),
    "weight statistics, five folds": lambda _: CrossValidated(
        "weight statistics, five folds", [lambda _: StatisticsBoosting(), lambda _: StatisticsLinear()]
    ),
    "meta-model, neurons and statistics": _neurons("meta-model, neurons and statistics"),
    "meta-model, neurons and statistics, five folds": _five_folds("meta-model, neurons and statistics, five folds"),
    "meta-model, neurons alone": _neurons("meta-model, neurons alone", summary=False),
    "meta-model, neurons, pretrained": _neurons("meta-model, neurons, pretrained", summary=False, pretraining=600),
    "meta-model, chunks of 1,024": _chunks("meta-model, chunks of 1,024"),
    "meta-model, chunks of 1,024, not permuted": _chunks("meta-model, chunks of 1,024, not permuted", permute=False),
    "meta-model, chunks of 256": _chunks("meta-model, chunks of 256", 256),
    "MNTD": lambda _: MNTD(),
    "MNTD one-class": lambda _: OneClassMNTD(),
    "ULP 1": lambda _: ULP(1),
    "ULP 5": lambda _: ULP(5),
    "ULP 10": lambda _: ULP(10),
}
"""Every detector by the name that tables call it, quick ones first."""


def detect(
    zoo: Zoo,
    out: Path,
    *,
    detectors: Mapping[str, Make] = DETECTORS,
    attacks: Sequence[str] | None = None,
    success: float = 0.5,
    networks: int | None = None,
    show: bool = True,
) -> list[DetectorAnswers]:
    """Fit every detector on the training split, let it choose on the validation split, and ask it about the test split.

    Killed and called again it goes on with the detectors that are missing.

    Args:
        out: a folder for what each has said, `NAME.json`, and for checkpoints.
        attacks: those that are trained on; None for all. All networks of the test split are asked about.
        success: least success of an attack for its network to be trained on; the paper trains on all, which is 0.
        networks: how many of the training networks are used, drawn by a fixed seed; None for all.
    Raises:
        TaskError: if the zoo has no attacks, or no networks on one side, or the folder holds other answers.
    """
    facts = [zoo.manifest["checksum"], attacks, success, networks]
    training, validation = (
        backdoor_examples(zoo, split, attacks, success=(success, 1.0)) for split in ("train", "validation")
    )
    if networks is not None:
        training = training.select(training.drawn(networks, 6))
    return _detected(out, facts, detectors, training, validation, {"test": zoo.population("test")}, show)["test"]


def _detected(
    out: Path,
    facts: list[Any],
    detectors: Mapping[str, Make],
    training: Examples,
    validation: Examples,
    asked: Mapping[str, Population],
    show: bool,
) -> dict[str, list[DetectorAnswers]]:
    """What every detector says of several populations, whose sources are zoos, after one training."""
    tie(out, [*facts, asdict(backdoor_metamodel()), asdict(neuron_metamodel()), RATES])
    total = sum(map(len, asked.values()))
    found: dict[str, list[DetectorAnswers]] = {which: [] for which in asked}
    with progress("detecting", len(detectors), "detectors", show) as advance:
        for name, make in detectors.items():
            record = answers(out, name, make, training, validation, asked)
            for which, networks in asked.items():
                suspicion = record["answers"][which][BACKDOOR.name][:, 1]
                seconds = record["predicted"] * len(networks) / total
                found[which].append(DetectorAnswers(name, suspicion, *_facts(networks), record["fitted"], seconds))
            advance(1, note=name)
    return found


def _facts(networks: Population) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Attack, its success and its poison rate of each network of a zoo."""
    zoo = networks.source
    assert isinstance(zoo, Zoo)
    attack, success, rate = (zoo.column(name)[networks.rows] for name in ("attack", "attack_success", "poison_rate"))
    return attack, success.astype(float), rate.astype(float)


def _one(name: str, config: MetaModelConfig) -> Make:
    return lambda folder: LowestLoss(name, [partial(MetaModel, config, folder=folder)])


QUICK: dict[str, Make] = {
    "final layer": DETECTORS["final layer"],
    "weight statistics": DETECTORS["weight statistics"],
    "weight statistics, linear": DETECTORS["weight statistics, linear"],
    "statistics and final layer": DETECTORS["statistics and final layer"],
    "meta-model, neurons and statistics": _one(
        "meta-model, neurons and statistics", neuron_metamodel(steps=200, rate=3e-3)
    ),
    "MNTD": lambda _: MNTD(steps=400, rates=(1e-2,)),
    "ULP 10": lambda _: ULP(10, steps=400, settings=((1e-2, 10.0),)),
}
"""Detectors for experiments of many trainings: those that learn by gradients with one setting and fewer steps."""


FIGURE_3 = {
    "A": ("badnets-border", "badnets-border"),
    "B": ("badnets-border", "badnets-center"),
    "C": ("mntd-patch", "badnets-corner"),
    "D": ("mntd-blend", "noise-blend"),
    "E": ("badnets-border", "ulp-test"),
}
"""The panels of the paper's Figure 3: trained on, tested on."""
DRAWN = ("weight statistics, linear", "meta-model, neurons and statistics", "MNTD", "ULP 10")
"""Detectors whose curves are drawn: no more than can be told apart."""


def transfer(
    zoo: Zoo, out: Path, *, detectors: Mapping[str, Make], success: float = 0.5, show: bool = True
) -> tuple[dict[str, list[DetectorAnswers]], dict[str, list[DetectorAnswers]]]:
    """Detectors after training on each attack alone, and on all but each: every pair, and every attack left out.

    Killed and called again with the same folder, it goes on.

    Returns:
        answers of all detectors by the one attack trained on, and by the one left out.
    """
    alone, without = {}, {}
    for attack in ATTACKS:
        others = [name for name in ATTACKS if name != attack]
        asked = {"detectors": detectors, "success": success, "show": show}
        if _enough(zoo, attack, success):
            alone[attack] = detect(zoo, out / f"only-{attack}", attacks=[attack], **asked)
        without[attack] = detect(zoo, out / f"without-{attack}", attacks=others, **asked)
    return alone, without


def _enough(zoo: Zoo, attack: str, success: float) -> bool:
    """Whether both splits have networks of this attack that can be learnt from."""
    try:
        return all(
            sum(backdoor_examples(zoo, split, [attack], success=(success, 1.0)).labels[BACKDOOR.name]) >= least
            for split, least in (("train", 1), ("validation", 1))
        )
    except TaskError:
        return False


def figure_3(alone: Mapping[str, Sequence[DetectorAnswers]]) -> tuple[str, str | None]:
    """The paper's Figure 3 on these networks: a table of its panels, and their ROC curves as SVG, if there are any.

    Args:
        alone: answers after training on one attack, as `transfer` gives them.
    """
    rows: list[DetectionRow] = []
    panels: dict[str, dict[str, np.ndarray]] = {}
    for panel, (trained, tested) in FIGURE_3.items():
        for one in alone.get(trained, ()):
            row = detection_row(one, (tested,))
            if row is not None:
                rows.append(replace(row, bad=f"{panel}: {trained} to {tested}"))
                if one.detector in DRAWN:
                    panels.setdefault(f"{panel}: {trained}\nto {tested}", {})[one.detector] = roc_curve(one, (tested,))
    return markdown(rows), roc_curves(panels) if panels else None


def learning_curve(
    zoo: Zoo,
    out: Path,
    counts: Sequence[int],
    *,
    detectors: Mapping[str, Make],
    success: float = 0.5,
    show: bool = True,
) -> dict[int, list[DetectorAnswers]]:
    """Detectors after training on so many networks; killed and called again, it goes on."""
    asked = {"detectors": detectors, "success": success, "show": show}
    return {count: detect(zoo, out / f"{count}-networks", networks=count, **asked) for count in counts}


def other_widths(
    zoo: Zoo, wide: Zoo, out: Path, *, detectors: Mapping[str, Make], success: float = 0.5, show: bool = True
) -> dict[str, list[DetectorAnswers]]:
    """Detectors trained on one zoo, asked about its own test networks and about all of those of another width.

    Raises:
        TaskError: as `detect`, and if the two zoos share seeds, so that their networks are twins.
    """
    shared = np.intersect1d(zoo.column("seed"), wide.column("seed"))
    if len(shared):
        raise TaskError(
            f"{wide.folder} shares {len(shared)} seeds of networks with {zoo.folder}: these are twins, not unseen "
            "networks; make it with another --seed"
        )
    facts = [zoo.manifest["checksum"], wide.manifest["checksum"], success]
    training, validation = (backdoor_examples(zoo, s, success=(success, 1.0)) for s in ("train", "validation"))
    asked = {"own": zoo.population("test"), "other": wide.population()}
    return _detected(out, facts, detectors, training, validation, asked, show)


WIDTHS: dict[str, Make] = QUICK | {
    "meta-model, neurons and statistics": _one(
        "meta-model, neurons and statistics", replace(neuron_metamodel(steps=200, rate=3e-3), other_widths=True)
    ),
    "meta-model, neurons alone": _one(
        "meta-model, neurons alone", replace(neuron_metamodel(steps=200, rate=3e-3, summary=False), other_widths=True)
    ),
}
"""Quick detectors that answer for networks of other widths than they have seen."""


def family_rows(zoo: Zoo, out: Path, *, success: float = 0.5, show: bool = True) -> list[Row]:
    """What kind of trigger a backdoor has: pixels, a patch, a blend; asked of test networks whose attack works (90%).

    The meta-model and MNTD answer it as a second output beside whether there is a backdoor.
    """
    training, validation, test = (
        backdoor_examples(zoo, split, success=(least, 1.0), families=True)
        for split, least in (("train", success), ("validation", success), ("test", 0.9))
    )
    model = MetaModel(neuron_metamodel(steps=200, rate=3e-3), folder=out / "metamodel")
    predictors = [Majority(), FinalLayerBoosting(), StatisticsBoosting(), StatisticsLinear(), MNTD(), model]
    rows, _ = compare(predictors, training, validation, test, show=show)
    return [row for row in rows if row.target == FAMILY.name]
