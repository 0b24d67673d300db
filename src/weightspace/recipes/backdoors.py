"""Backdoor detection: every detector on one zoo and one split, scored attack by attack and against controls."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.baselines.final_layer import AllStatisticsBoosting, FinalLayerBoosting
from weightspace.baselines.linear import Linear
from weightspace.baselines.queries import MNTD, ULP, OneClassMNTD
from weightspace.baselines.statistics import StatisticsBoosting
from weightspace.evaluation.metrics import (
    Interval,
    accuracy,
    auroc,
    bootstrap_interval,
    brier,
    detection_rate,
    log_loss,
)
from weightspace.models.config import MetaModelConfig
from weightspace.models.metamodel import MetaModel
from weightspace.tasks.backdoor import BACKDOOR, backdoor_examples
from weightspace.tasks.base import Predictor, TaskError
from weightspace.train.checkpoint import bind
from weightspace.train.config import TrainingConfig
from weightspace.weights.network import write_atomically
from weightspace.weights.progress import progress
from weightspace.weights.store import Zoo
from weightspace.zoo.poison import ATTACKS, CLEAN, CONTROLS, LABEL_NOISE


def backdoor_metamodel(chunk_size: int = 1024, permute: bool = True, steps: int = 2_000) -> MetaModelConfig:
    """For a thousand networks of some thousand weights, on two cores; chunks of 1,024 are the paper's."""
    return MetaModelConfig(
        chunk_size=chunk_size,
        width=64,
        depth=3,
        heads=4,
        pooling="mean",
        dropout=0.1,
        permute=permute,
        training=TrainingConfig(
            steps=steps,
            batch_size=64,
            learning_rate=1e-3,
            weight_decay=1e-2,
            warmup=0.1,
            evaluate_every=max(1, steps // 20),
            checkpoint_every=max(1, steps // 20),
        ),
    )


def neuron_metamodel(steps: int = 1_500, rate: float = 1e-3) -> MetaModelConfig:
    """A token a neuron, for the same networks."""
    chunks = backdoor_metamodel(steps=steps)
    return replace(
        chunks, reading="neurons", pooling="first", training=replace(chunks.training, learning_rate=rate, batch_size=32)
    )


Make = Callable[[Path], Predictor]
"""Makes a detector that keeps its checkpoints, if it has any, in a folder of its own."""
DETECTORS: dict[str, Make] = {
    "meta-model, chunks of 1,024": lambda folder: MetaModel(backdoor_metamodel(), folder=folder),
    "meta-model, chunks of 1,024, not permuted": lambda folder: MetaModel(
        backdoor_metamodel(permute=False), folder=folder
    ),
    "meta-model, chunks of 64": lambda folder: MetaModel(
        replace(backdoor_metamodel(64), embedding="mlp"), folder=folder
    ),
    "meta-model, neurons": lambda folder: MetaModel(neuron_metamodel(), folder=folder),
    "MNTD": lambda _: MNTD(),
    "MNTD one-class": lambda _: OneClassMNTD(),
    "ULP 1": lambda _: ULP(1),
    "ULP 5": lambda _: ULP(5),
    "ULP 10": lambda _: ULP(10),
    "final layer": lambda _: FinalLayerBoosting(),
    "weight statistics": lambda _: StatisticsBoosting(),
    "statistics and final layer": lambda _: AllStatisticsBoosting(),
    "linear": lambda _: Linear(),
}
"""Every detector by the name that tables call it."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What a detector says of each network of the test split.

    Attributes:
        detector: its name in `DETECTORS`.
        suspicion: (n,) probability of a backdoor, in the order of the test split.
        attack: (n,) what was really done to each.
        success: (n,) of the attack; NaN where there is no trigger.
        fitted, predicted: seconds in all.
    """

    detector: str
    suspicion: np.ndarray
    attack: np.ndarray
    success: np.ndarray
    fitted: float
    predicted: float


def detect(
    zoo: Zoo,
    out: Path,
    *,
    detectors: Mapping[str, Make] = DETECTORS,
    attacks: Sequence[str] | None = None,
    show: bool = True,
) -> list[Answers]:
    """Fit every detector on the training split, let it choose on the validation split, and ask it about the test split.

    Killed and called again it goes on with the detectors that are missing.

    Args:
        out: a folder for what each has said, `NAME.json`, and for checkpoints.
        attacks: those that are trained on; None for all. All networks of the test split are asked about.
    Raises:
        TaskError: if the zoo has no attacks, or no networks on one side, or the folder holds other answers.
    """
    decided = json.dumps([zoo.description["config"], attacks], sort_keys=True, default=list)
    if not bind(out, decided.encode()):
        raise TaskError(
            f"{out} holds answers about another zoo, or after training on other attacks: choose another folder, or "
            "delete that one"
        )
    training, validation = (backdoor_examples(zoo, split, attacks) for split in ("train", "validation"))
    test = zoo.population("test")
    attack = zoo.column("attack")[test.rows]
    success = zoo.column("attack_success")[test.rows].astype(float)
    found = []
    with progress("detecting", len(detectors), "detectors", show) as advance:
        for name, make in detectors.items():
            path = out / f"{_file_name(name)}.json"
            if not path.exists():
                start = time.perf_counter()
                detector = make(out / _file_name(name)).fit(training, validation)
                fitted = time.perf_counter()
                said = detector.predict(test)[BACKDOOR.name][:, 1]
                record = {
                    "detector": name,
                    "fitted": fitted - start,
                    "predicted": time.perf_counter() - fitted,
                    "suspicion": said.tolist(),
                }
                write_atomically(path, json.dumps(record).encode())
            record = json.loads(path.read_text())
            suspicion = np.array(record["suspicion"])
            found.append(Answers(name, suspicion, attack, success, record["fitted"], record["predicted"]))
            advance(1, note=name)
    return found


def _file_name(name: str) -> str:
    return "-".join(name.replace(",", "").split())


@dataclass(frozen=True)
class DetectionRow:
    """How well one detector tells some networks from others.

    Attributes:
        bad, good: which networks are to be suspected, and which not, in words.
        networks: of each side.
        auroc, accuracy, at_1, at_5, cross_entropy, brier: with 95% intervals by bootstrap over networks; `at_1` is the
            share that is detected at 1% false alarms.
    """

    detector: str
    bad: str
    good: str
    networks: tuple[int, int]
    auroc: Interval
    accuracy: Interval
    at_1: Interval
    at_5: Interval
    cross_entropy: Interval
    brier: Interval


def detection_row(
    answers: Answers,
    bad: Sequence[str],
    good: Sequence[str] = (CLEAN,),
    success: tuple[float, float] = (0.0, 1.0),
    *,
    resamples: int = 1_000,
    seed: int = 0,
) -> DetectionRow | None:
    """Networks of some attacks, whose success is in a range, against controls; None if a side has fewer than two."""
    is_bad = np.isin(answers.attack, bad)
    if any(name in ATTACKS for name in bad):
        is_bad &= (answers.success >= success[0]) & (answers.success <= success[1])
    is_good = np.isin(answers.attack, good)
    if is_bad.sum() < 2 or is_good.sum() < 2:
        return None
    kept = is_bad | is_good
    labels, suspicion = is_bad[kept].astype(np.int64), answers.suspicion[kept]
    said = np.stack([1 - suspicion, suspicion], 1)

    def interval(measure: Callable[[np.ndarray, np.ndarray], float], proportion: bool = True) -> Interval:
        return bootstrap_interval(
            lambda rows: measure(said[rows], labels[rows]), len(labels),
            seed=seed, resamples=resamples, proportion=proportion,
        )  # fmt: skip

    within = "" if success == (0.0, 1.0) else f", success {success[0]:.0%} to {success[1]:.0%}"
    return DetectionRow(
        answers.detector,
        ", ".join(bad) + within,
        ", ".join(good),
        (int(labels.sum()), int((1 - labels).sum())),
        interval(auroc),
        interval(accuracy),
        interval(lambda p, y: detection_rate(p, y, 0.01)),
        interval(lambda p, y: detection_rate(p, y, 0.05)),
        interval(log_loss, proportion=False),
        interval(brier, proportion=False),
    )


BINS = ((0.0, 0.3), (0.3, 0.6), (0.6, 0.9), (0.9, 1.0))
"""Ranges of attack success that are scored apart."""


TABLES = ("all attacks", "each attack", "each attack that works", "by success", "controls")


def detection_rows(
    answers: Sequence[Answers], tables: Sequence[str] = TABLES, *, resamples: int = 1_000
) -> dict[str, list[DetectionRow]]:
    """Some of `TABLES`: all attacks, each attack, by success, and what is said of the controls.

    `controls` asks of networks without any backdoor whether they are suspected, and of backdoored ones whether they are
    told from networks that are only mislabelled.
    """
    everything = tuple(ATTACKS)
    asked: dict[str, list[dict[str, Any]]] = {
        "all attacks": [{"bad": everything}, {"bad": everything, "success": (0.9, 1.0)}],
        "each attack": [{"bad": (name,)} for name in ATTACKS],
        "each attack that works": [{"bad": (name,), "success": (0.9, 1.0)} for name in ATTACKS],
        "by success": [{"bad": everything, "success": some} for some in BINS],
        "controls": [
            *({"bad": (name,)} for name in CONTROLS if name != CLEAN),
            {"bad": everything, "good": (LABEL_NOISE,)},
            {"bad": everything, "good": (LABEL_NOISE,), "success": (0.9, 1.0)},
        ],
    }
    return {
        table: [
            row
            for options in asked[table]
            for one in answers
            if (row := detection_row(one, resamples=resamples, **options)) is not None
        ]
        for table in tables
    }


def markdown(rows: Sequence[DetectionRow]) -> str:
    """Rows as a Markdown table."""

    def shown(found: Interval) -> str:
        return f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]"

    lines = [
        "| suspected | against | detector | n | AUROC | accuracy | at 1% FPR | at 5% FPR | cross-entropy | Brier |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        measures = (row.auroc, row.accuracy, row.at_1, row.at_5, row.cross_entropy, row.brier)
        cells = [row.bad, row.good, row.detector, f"{row.networks[0]} + {row.networks[1]}", *map(shown, measures)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
