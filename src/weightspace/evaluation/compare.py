"""Comparison: fit every predictor on the same split, score all on the same held-out networks, side by side."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from weightspace import __version__
from weightspace.errors import TaskError
from weightspace.evaluation.metrics import bootstrap_interval, chance, confusion_matrix, correct, majority
from weightspace.evaluation.results import Confusion, CurvePoint, Results, Row
from weightspace.evaluation.single_answers import FIGURES, MOST, SingleAnswers
from weightspace.files.progress import progress
from weightspace.files.workers import cores
from weightspace.metamodels.contract import Examples, Predictions, Predictor, Target, check_learnable
from weightspace.zoo.store import Zoo


def compare(
    predictors: Sequence[Predictor],
    training: Examples,
    validation: Examples,
    test: Examples,
    *,
    seed: int = 0,
    show: bool = False,
) -> tuple[list[Row], dict[str, Predictions]]:
    """Fit each predictor and score it on `test`, which none of them sees before.

    Returns:
        a row for each target and predictor, and each predictor's answers for the test networks.
    """
    check_learnable(training, validation)
    rows: list[Row] = []
    answers: dict[str, Predictions] = {}

    def fit_and_score(predictor: Predictor) -> None:
        start = time.perf_counter()
        predictor.fit(training, validation)
        fitted = time.perf_counter()
        answers[predictor.name] = predictor.predict(test.networks)
        seconds = (fitted - start, time.perf_counter() - fitted)
        parameters = getattr(predictor, "parameters", None)
        rows.extend(score(predictor.name, answers[predictor.name], training, test, seed, seconds, parameters))

    # Two progress lines at once would draw over each other: those who show their own come after the common one
    silent = [predictor for predictor in predictors if not getattr(predictor, "show", False)]
    with progress("fitting", total=len(silent), unit="methods", enabled=show) as advance:
        for predictor in silent:
            fit_and_score(predictor)
            advance(1, note=predictor.name)
    for predictor in predictors:
        if predictor not in silent:
            fit_and_score(predictor)
    order = {target.name: i for i, target in enumerate(test.targets)}
    return sorted(rows, key=lambda row: order[row.target]), answers


def score(
    name: str,
    predictions: Predictions,
    training: Examples,
    test: Examples,
    seed: int = 0,
    seconds: tuple[float, float] | None = None,
    parameters: int | None = None,
) -> list[Row]:
    """Accuracy of one predictor on every target, with its 95% interval by bootstrap over networks."""
    rows = []
    for target in test.targets:
        labels = test.labels[target.name]
        if not (labels >= 0).any():
            raise TaskError(f"no network of the test split has a known {target.name!r}: there is nothing to score")
        hits = correct(predictions[target.name], labels)
        interval = bootstrap_interval(hits.astype(float), seed=seed)
        rows.append(
            Row(
                target=target.name,
                predictor=name,
                accuracy=interval.estimate,
                low=interval.low,
                high=interval.high,
                chance=chance(len(target.classes)),
                majority=majority(training.labels[target.name], labels),
                n=len(hits),
                seconds_fit=seconds[0] if seconds else None,
                seconds_predict=seconds[1] if seconds else None,
                parameters=parameters,
            )
        )
    return rows


def results_of(
    task: str,
    zoo: Zoo,
    rows: Sequence[Row],
    answers: Mapping[str, Predictions],
    test: Examples,
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    seconds: float,
) -> Results:
    """Everything a report shows: the rows, the zoo, confusion of the meta-model, curves, and where it all came from."""
    from weightspace.zoo.making import info

    facts = info(zoo.folder)
    accuracy = zoo.column("test_accuracy")[zoo.column("row") >= 0].astype(float)
    total = zoo.description["config"]["count"]
    return Results(
        task=task,
        rows=tuple(rows),
        zoo={
            "recipe": facts["recipe"],
            "networks": total,
            "trained": facts["networks"],
            "dropped": facts["dropped"],
            "splits": facts["splits"],
            "parameters a network": facts["parameters"] if len(facts["parameters"]) < 4 else len(facts["parameters"]),
            "images": zoo.description["config"]["images"],
        },
        accuracies=tuple(round(float(a), 4) for a in accuracy),
        curves={name: tuple(CurvePoint(**point) for point in points) for name, points in curves.items()},
        confusion={
            target.name: confusion_of("meta-model", target, answers["meta-model"], test)
            for target in (test.targets if "meta-model" in answers else ())
        },
        provenance=provenance(zoo.description["config"]["seed"], seconds),
        answers={target.name: single_answers(target, answers, test, zoo) for target in _kept(test)},
    )


def _kept(test: Examples) -> tuple[Target, ...]:
    """The targets of which single answers are kept: those with classes, unless the networks are too many."""
    return tuple(t for t in test.targets if not t.is_quantity) if len(test) <= MOST else ()


def single_answers(
    target: Target, answers: Mapping[str, Predictions], test: Examples, zoo: Zoo | None = None
) -> SingleAnswers:
    """What each predictor said of each test network whose class is known; numbers are the zoo's, or count from 0."""
    known = test.known(target.name)
    numbers = np.arange(len(test)) if zoo is None else zoo.column("network")[test.networks.rows]
    return SingleAnswers(
        classes=target.classes,
        networks=tuple(int(n) for n in numbers[known]),
        truth=tuple(int(label) for label in test.labels[target.name][known]),
        probabilities={
            name: tuple(tuple(round(float(p), FIGURES) for p in row) for row in said[target.name][known])
            for name, said in answers.items()
        },
    )


def confusion_of(name: str, target: Target, predictions: Predictions, test: Examples) -> Confusion:
    """Truth against answer, over the test networks whose class is known."""
    known = test.known(target.name)
    predicted = predictions[target.name][known].argmax(1)
    matrix = confusion_matrix(predicted, test.labels[target.name][known], len(target.classes))
    return Confusion(classes=target.classes, matrix=tuple(tuple(int(n) for n in row) for row in matrix), predictor=name)


def curve_of(history: Any) -> list[dict[str, Any]]:
    """Points of a training history at each evaluation: the training loss is the mean since the last one."""
    points, before = [], 0
    for entry in history.evaluations:
        step = int(entry["step"])
        losses = history.training_loss[before:step]
        points.append(
            {
                "step": step,
                "training_loss": float(np.mean(losses)) if losses else None,
                "validation_loss": float(entry["loss"]),
                "validation_accuracy": float(entry["accuracy"]),
            }
        )
        before = step
    return points


def provenance(seed: int, seconds: float) -> dict[str, Any]:
    """Version, commit, seed, command, hardware, date and duration of a run."""
    return {
        "version": __version__,
        "commit": _commit(),
        "seed": seed,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "hardware": _hardware(),
        "python": platform.python_version(),
        "date": date.today().isoformat(),
        "seconds": round(seconds, 1),
    }


def _commit() -> str:
    """The commit of the source tree this runs from, or "released" where there is none."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "released"
    return found.stdout.strip()


def _hardware() -> str:
    import torch

    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{cores()} cores of {model}{gpu}"
