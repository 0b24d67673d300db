"""What a reader of components learns from a zoo of pairs: used or free, and which operation; against baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.errors import ZooError
from weightspace.evaluation.metrics import Interval, Tally, auroc, bootstrap_interval
from weightspace.files.progress import progress
from weightspace.pairs.baselines import assigned, attributed, candidate_s_ops, inputs_of, kinds_by_regression
from weightspace.pairs.component_graph import component_graph
from weightspace.pairs.correspondence import Correspondence, operations
from weightspace.pairs.features import activation_columns, weight_columns
from weightspace.pairs.soundness import alignment
from weightspace.pairs.zoo import Pair, pairs_of

INPUTS = 256
FOLDS = 5
FEWEST = FOLDS
"""Networks of different programs without which nothing is learnt."""
FREE, HELPER = "free", "selects for a SelectorWidth"
RESAMPLES = 2_000
TREES = 100


@dataclass(frozen=True, eq=False)
class Components:
    """All components of a zoo's networks, a row each.

    Attributes:
        network: the number of its network among those read.
        program: the number of its program: what is held out together.
        layers: of its network.
        head: whether it is one.
        kind: the operation that it computes, FREE or HELPER.
        weights, activations: columns of `features`.
        scores: by name, what baselines say of whether it is used.
        regressed: the kind of the candidate that its output explains best.
        located: S-ops of known programs whose component was found by swaps, and whole correspondences.
    """

    network: np.ndarray
    program: np.ndarray
    layers: np.ndarray
    head: np.ndarray
    kind: np.ndarray
    weights: np.ndarray
    activations: np.ndarray
    scores: dict[str, np.ndarray]
    regressed: np.ndarray
    located: dict[str, Tally]

    @property
    def used(self) -> np.ndarray:
        return self.kind != FREE


def components_of(networks: Sequence[Pair], *, seed: int = 0, show: bool = True) -> Components:
    """Read the components of networks: weights, what they do on some inputs, and what baselines say."""
    programs: dict[str, int] = {}
    parts: list[dict[str, np.ndarray]] = []
    right = np.zeros(2, int)
    with progress("reading networks", len(networks), "networks", show) as advance:
        for number, pair in enumerate(networks):
            own = pair.correspondence
            program = programs.setdefault(str(own.program), len(programs))
            part = _part(pair, seed)
            count = len(pair.slots)
            part["network"], part["program"] = np.full(count, number), np.full(count, program)
            right += part.pop("located")
            parts.append(part)
            advance()
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    scores = {name.removeprefix("score "): joined.pop(name) for name in list(joined) if name.startswith("score ")}
    s_ops = sum(len(pair.correspondence.slots) for pair in networks)
    located = {"S-ops": Tally(int(right[0]), s_ops), "programs": Tally(int(right[1]), len(networks))}
    return Components(**joined, scores=scores, located=located)


def _part(pair: Pair, seed: int) -> dict[str, np.ndarray]:
    """One network's rows."""
    own, slots = pair.correspondence, pair.slots
    graph = component_graph(pair.transformer)
    weights = weight_columns(graph)
    inputs = inputs_of(own, INPUTS, seed)
    aligned = alignment(pair.transformer, own, pair.answer, inputs)
    activations = activation_columns(aligned, slots, seed=seed)
    program = own.program
    assert program.vocab is not None and program.max_seq_len is not None
    candidates = candidate_s_ops(program.vocab, program.max_seq_len, tuple(inputs))
    found = assigned(aligned, slots, seed=seed)
    hits = [found.get(name) == slot for name, slot in own.slots.items()]
    return {
        "layers": np.full(len(slots), pair.plan.layers),
        "head": np.array([slot.is_head for slot in slots]),
        "kind": np.array(kinds_of(own, slots), object),
        "weights": weights,
        "activations": activations,
        "score norm of what it writes": weights[:, 0],
        "score flow to the answer": weights[:, 1],
        "score activation patching": activations[:, 0],
        "score attribution patching": attributed(aligned, slots, seed=seed),
        "score EAP-IG, 5 steps": attributed(aligned, slots, steps=5, seed=seed),
        "regressed": np.array(kinds_by_regression(aligned, slots, candidates), object),
        "located": np.array([sum(hits), all(hits)]),
    }


def kinds_of(correspondence: Correspondence, slots: Sequence[Any]) -> list[str]:
    """The operation of each component."""
    nodes = operations(correspondence.program)
    held = {slot: type(nodes[name]).__name__ for name, slot in correspondence.slots.items()}
    held |= dict.fromkeys(correspondence.helpers.values(), HELPER)
    return [held.get(slot, FREE) for slot in slots]


def study(folder: Path, *, seed: int = 0, show: bool = True) -> dict[str, Any]:
    """Learn and score on the sound networks of a zoo, programs held out fold by fold, then depths.

    Returns:
        figures, JSON-serialisable.
    Raises:
        ZooError: if there are too few.
    """
    networks = list(pairs_of(folder))
    if len({str(pair.correspondence.program) for pair in networks}) < FEWEST:
        raise ZooError(
            f"{folder} has {len(networks)} sound networks, too few to hold programs out: make more, so that there are "
            f"at least {FEWEST} programs"
        )
    found = components_of(networks, seed=seed, show=show)
    tables = {"weights": found.weights, "activations": found.activations}
    tables["weights and activations"] = np.concatenate(list(tables.values()), 1)
    figures: dict[str, Any] = {
        "zoo": str(folder),
        "networks": len(networks),
        "programs": int(found.program.max()) + 1,
        "components": {"heads": int(found.head.sum()), "MLPs": int((~found.head).sum())},
        "used": {"heads": int((found.head & found.used).sum()), "MLPs": int((~found.head & found.used).sum())},
        "seed": seed,
    }
    for name, groups in (("held-out programs", found.program), ("held-out depths", found.layers)):
        if len(np.unique(groups)) > 1:
            figures[name] = _figures(found, tables, _folds(groups, seed), seed)
    figures["located, program known"] = {name: _share(tally) for name, tally in found.located.items()}
    return figures


def _folds(groups: np.ndarray, seed: int) -> np.ndarray:
    """A fold for each row; rows of a group have the same."""
    values = np.random.default_rng(seed).permutation(np.unique(groups))
    fold = {value: number % FOLDS for number, value in enumerate(values.tolist())}
    return np.array([fold[value] for value in groups.tolist()])


def _figures(found: Components, tables: dict[str, np.ndarray], folds: np.ndarray, seed: int) -> dict[str, Any]:
    used = found.used.astype(int)
    figures: dict[str, Any] = {"used": {}, "kind": {}}
    scores = dict(found.scores)
    answers: dict[str, np.ndarray] = {"by regression on S-ops of a pool": found.regressed}
    answers["the commonest of its kind"] = _learnt(found.head[:, None].astype(float), found.kind, found, folds, seed)[0]
    for name, table in tables.items():
        scores[f"reader of {name}"] = _learnt(table, used, found, folds, seed, used=True)[1]
        answers[f"reader of {name}"] = _learnt(table, found.kind, found, folds, seed)[0]
    for name, score in scores.items():
        figures["used"][name] = {
            part: _area(score[rows], used[rows], found.network[rows], seed)
            for part, rows in (("heads", found.head), ("MLPs", ~found.head))
        }
    for name, answer in answers.items():
        right = (answer == found.kind) & (found.kind != FREE)
        figures["kind"][name] = {
            part: _share(Tally(int(right[rows].sum()), int(rows.sum())), _over_networks(right, rows, found, seed))
            for part, rows in (("all used", found.used), ("used MLPs", found.used & ~found.head))
        }
    return figures


def _learnt(
    table: np.ndarray, labels: np.ndarray, found: Components, folds: np.ndarray, seed: int, *, used: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Answers and probabilities of being used, each row's by a forest that has not seen its fold.

    Kinds are learnt on used components alone.
    """
    from sklearn.ensemble import ExtraTreesClassifier

    names, codes = np.unique(labels.astype(str), return_inverse=True)
    answers, scores = names[codes].astype(object), np.zeros(len(labels))
    rich = np.concatenate([table, found.head[:, None]], 1)
    for fold in np.unique(folds):
        test = folds == fold
        train = ~test if used else ~test & found.used
        forest: Any = ExtraTreesClassifier(TREES, min_samples_leaf=2, class_weight="balanced", random_state=seed)
        forest.fit(rich[train], codes[train])
        answers[test] = names[forest.predict(rich[test])]
        if used:
            scores[test] = forest.predict_proba(rich[test])[:, 1]
    return answers, scores


def _area(score: np.ndarray, used: np.ndarray, network: np.ndarray, seed: int) -> dict[str, Any]:
    """AUROC with its interval over networks."""
    from scipy.stats import rankdata

    rank = rankdata(score) / len(score)  # of any score what looks like a probability, in the same order

    def area(rows: np.ndarray) -> float:
        return auroc(np.stack([1 - rank[rows], rank[rows]], 1), used[rows])

    return _interval(_resampled(area, network, seed))


def _over_networks(right: np.ndarray, rows: np.ndarray, found: Components, seed: int) -> Interval:
    inside, network = right[rows], found.network[rows]
    return _resampled(lambda chosen: float(inside[chosen].mean()), network, seed)


def _resampled(statistic: Callable[[np.ndarray], float], network: np.ndarray, seed: int) -> Interval:
    """A statistic of components with an interval over networks."""
    members = [np.flatnonzero(network == number) for number in np.unique(network)]

    def of_networks(chosen: np.ndarray) -> float:
        return statistic(np.concatenate([members[number] for number in chosen.tolist()]))

    return bootstrap_interval(of_networks, len(members), seed=seed, resamples=RESAMPLES)


def _interval(found: Interval) -> dict[str, Any]:
    return {"estimate": round(found.estimate, 4), "low": round(found.low, 4), "high": round(found.high, 4)}


def _share(tally: Tally, over: Interval | None = None) -> dict[str, Any]:
    bounds = over or tally.interval
    assert bounds is not None  # there is at least one network
    return {"right": tally.right, "n": tally.n, **_interval(bounds)}


def format_study(figures: dict[str, Any]) -> str:
    """The same in text."""
    components, used = figures["components"], figures["used"]
    lines = [
        f"{figures['networks']} networks of {figures['programs']} programs: {components['heads']} heads, of which "
        f"{used['heads']} are used, and {components['MLPs']} MLPs, of which {used['MLPs']} are",
    ]
    for split in (name for name in ("held-out programs", "held-out depths") if name in figures):
        lines += ["", f"{split}: used or free, AUROC", *_rows(figures[split]["used"])]
        lines += ["", f"{split}: which operation, share of used components", *_rows(figures[split]["kind"])]
    lines += ["", "the program known, its components found by swaps"]
    for name, row in figures["located, program known"].items():
        lines.append(f"{name:<36} {row['right']:>4} of {row['n']:>4}   {row['low']:.3f} to {row['high']:.3f}")
    return "\n".join(lines)


def _rows(table: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    parts = list(next(iter(table.values())))
    lines = [f"{'':<36} " + "  ".join(f"{part:<24}" for part in parts)]
    for name, row in table.items():
        cells = [f"{row[part]['estimate']:.3f} ({row[part]['low']:.3f} to {row[part]['high']:.3f})" for part in parts]
        lines.append(f"{name:<36} " + "  ".join(f"{cell:<24}" for cell in cells))
    return lines
