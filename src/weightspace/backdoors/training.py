"""A detector of backdoors trained, calibrated and scored on a zoo."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.backdoors.calibration import Calibration
from weightspace.backdoors.detector import Detector
from weightspace.backdoors.recipes import RATES, neuron_metamodel
from weightspace.backdoors.task import backdoor_examples
from weightspace.errors import TaskError
from weightspace.evaluation.metrics import auroc, bootstrap_interval
from weightspace.evaluation.plots import reliability
from weightspace.files.atomic import write_atomically
from weightspace.metamodels.choice import validation_loss
from weightspace.metamodels.contract import Examples
from weightspace.metamodels.metamodel import MetaModel
from weightspace.metamodels.scope import Scope
from weightspace.weights.canonical_scale import in_canonical_scale
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.scaling import random_scales, rescale
from weightspace.weights.symmetry import permute, random_permutation
from weightspace.zoo.networks import scalings_of
from weightspace.zoo.poison import ATTACKS, CLEAN
from weightspace.zoo.store import Zoo

WORKS = 0.9
"""Success from which an attack is said to work."""


def train_detector(zoo: Zoo, folder: Path, *, steps: int | None = None, show: bool = True) -> Detector:
    """A detector for the networks of a zoo: trained on its training split, calibrated on its validation split.

    A sixth of the training split chooses the learning rate, and when training stops. Attacks that do not work are left
    out, and count as backdoored nowhere.

    Args:
        folder: for checkpoints, `detector.safetensors`, and `reliability.svg` on the test split.
        steps: of training, instead of the recipe's.
    Raises:
        TaskError: if the zoo has no attacks, or networks of several shapes.
    """
    training, apart = (
        scaled_examples(backdoor_examples(zoo, split, success=(0.5, 1.0))) for split in ("train", "validation")
    )
    if len(training.networks.specs) != 1:
        raise TaskError(f"zoo {zoo.folder} has networks of several shapes: a detector is made for one")
    chooses = np.random.default_rng(8).permutation(len(training)) % 6 == 0
    taught, choice = (training.select(np.flatnonzero(side)) for side in (~chooses, chooses))
    settings: dict[str, Any] = {} if steps is None else {"steps": steps}
    tried = [
        MetaModel(neuron_metamodel(rate=rate, **settings), folder=folder / f"rate-{rate:g}", show=show)
        for rate in RATES
    ]
    model = min((one.fit(taught, choice) for one in tried), key=lambda one: validation_loss(one, choice))
    model.canonical = bool(model.specs[0].scalings)
    bare = Detector(model, Calibration(1.0, 0.0, np.zeros(0)), Scope.fit(training.networks, apart.networks), {})
    labels = apart.labels["backdoor"]
    detector = Detector(model, Calibration.fit(bare.scores(apart.networks), labels), bare.scope, {})
    config_of_zoo = zoo.description["config"]
    detector.card = {
        "architecture": f"{config_of_zoo['family']} of {detector.spec.size:,} weights",
        "networks": len(taught),
        "images": f"{config_of_zoo['images']} at {config_of_zoo['image_size']}x{config_of_zoo['image_size']}",
        "attacks": f"{len(ATTACKS)} attacks ({', '.join(ATTACKS)})",
        "calibration": int((labels == 0).sum()),
        "zoo": config_of_zoo["recipe"],
    }
    figures = evaluate_detector(detector, zoo)
    low, high = figures["detected interval"]
    detector.card["detected"] = f"{figures['detected']:.0%} [{low:.0%}, {high:.0%}]"
    detector.card["figures"] = figures
    detector.save(folder / "detector.safetensors")
    probability, labels = _test_answers(detector, zoo)[2:]
    write_atomically(folder / "reliability.svg", reliability(probability, labels).encode())
    return detector


def scaled_examples(examples: Examples) -> Examples:
    """Examples of a zoo in the canonical scale of their architecture, as they are where they have several."""
    scalings = scalings_of(examples.networks)
    return replace(examples, networks=in_canonical_scale(examples.networks, scalings)) if scalings else examples


def evaluate_detector(detector: Detector, zoo: Zoo, *, false_alarms: float = 0.05) -> dict[str, Any]:
    """The figures of a detector's card, on the test split of its zoo, with 95% intervals over networks.

    Returns:
        AUROC of clean networks against those whose attack works (success of 90% or more); of both the share that is
        called suspicious at the stated share of false alarms; the mean distance of the calibrated probability from the
        frequency (expected calibration error, ten bins); seconds a network.
    """
    start = time.perf_counter()
    p_value, kept, probability, labels = _test_answers(detector, zoo)
    seconds = time.perf_counter() - start
    said = np.stack([1 - probability, probability], 1)
    area = bootstrap_interval(lambda rows: auroc(said[rows], labels[rows]), len(labels), seed=0)
    alarms, detected = (
        bootstrap_interval((p_value[kept][labels == side] <= false_alarms).astype(float), seed=0) for side in (0, 1)
    )
    return {
        "networks": [int(labels.sum()), int((1 - labels).sum())],
        "auroc": area.estimate,
        "auroc interval": [area.low, area.high],
        "stated false alarms": false_alarms,
        "false alarms": alarms.estimate,
        "false alarms interval": [alarms.low, alarms.high],
        "detected": detected.estimate,
        "detected interval": [detected.low, detected.high],
        "calibration error": _calibration_error(probability, labels),
        "milliseconds a network": 1000 * seconds / max(1, len(p_value)),
    }


def rewriting_effect(
    detector: Detector, zoo: Zoo, *, networks: int = 200, spread: float = 0.7, false_alarms: float = 0.05, seed: int = 0
) -> dict[str, Any]:
    """How far a detector's answers move when networks are rewritten so that they compute the same.

    Args:
        networks: of the zoo, test networks first; not those of the calibration, whose p-values are ties.
        spread: deviation of the logarithms of the random scales; the order of neurons is random too.
    Returns:
        how many networks; how many verdicts differ; the largest change of a p-value, and of a score.
    """
    rows = np.concatenate([zoo.rows(split) for split in ("test", "train")])[:networks]
    given = Population(zoo, rows)
    rng = np.random.default_rng(seed)
    rewritten = []
    for network in given:
        known = Network(detector.spec, network.weights)
        scaled = rescale(known, random_scales(detector.spec, rng, spread))
        rewritten.append(permute(scaled, random_permutation(detector.spec, rng)))
    before, after = detector.judge(given), detector.judge(rewritten)
    p_values, scores, far = (
        np.array([[getattr(one, name) for one in side] for side in (before, after)])
        for name in ("p_value", "score", "distance")
    )
    verdicts = np.where(far > 1, 2, p_values <= false_alarms)
    return {
        "networks": len(rows),
        "verdicts moved": int((verdicts[0] != verdicts[1]).sum()),
        "largest change of p": float(np.abs(p_values[0] - p_values[1]).max()),
        "largest change of score": float(np.abs(scores[0] - scores[1]).max()),
    }


def _test_answers(detector: Detector, zoo: Zoo) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """p-values of all test networks; which are clean or have a working backdoor; probabilities and labels of these.

    Those that a scan would call out of scope are left out.
    """
    test = zoo.population("test")
    attack = zoo.column("attack")[test.rows]
    success = zoo.column("attack_success")[test.rows].astype(float)
    judged = detector.judge(test)
    p_value, probability, far = (
        np.array([getattr(j, n) for j in judged]) for n in ("p_value", "probability", "distance")
    )
    bad = np.isin(attack, list(ATTACKS)) & (success >= WORKS)
    kept = (bad | (attack == CLEAN)) & (far <= 1)
    return p_value, kept, probability[kept], bad[kept].astype(np.int64)


def _calibration_error(probability: np.ndarray, labels: np.ndarray) -> float:
    """Mean over ten bins, weighted by networks, both sides weighing the same as in the calibration."""
    weight = np.where(labels == 1, 0.5 / max(1, labels.sum()), 0.5 / max(1, (1 - labels).sum()))
    bins = np.minimum((probability * 10).astype(int), 9)
    total = 0.0
    for number in range(10):
        inside = bins == number
        total += abs(float((weight * (probability - labels))[inside].sum()))
    return total
