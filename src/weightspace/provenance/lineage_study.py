"""A study of lineage: of a zoo of families, how often matching finds the parent, and how often it is fooled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from weightspace.errors import TaskError
from weightspace.evaluation.metrics import Tally
from weightspace.provenance.descriptors import descriptors, nearest
from weightspace.provenance.filters import balanced_filters
from weightspace.provenance.matching import match_filters
from weightspace.provenance.null import CONVERGENCE, excess, surrogate_null
from weightspace.weights.spec import NetworkSpec
from weightspace.zoo.store import Zoo

PAIRS = 150
"""Pairs of unrelated parents that say how often a p-value is fooled."""


@dataclass(frozen=True)
class DerivationRow:
    """Children that came to be in one way.

    Attributes:
        derivation: how.
        found: how many times the parent is the most alike of all parents.
        nearest: how many times it is by raw weights, as they stand.
        related: how many times the pair alone is called related at 1% false alarms.
        likeness: median, and the lowest.
        indexed: within how many of the nearest descriptors nine in ten parents lie.
    """

    derivation: str
    found: Tally
    nearest: Tally
    related: Tally
    likeness: tuple[float, float]
    indexed: int


@dataclass(frozen=True)
class LineageStudy:
    """What came of it.

    Attributes:
        zoo: its recipe, `parents` how many of them are candidates.
        rows: a way to derive each.
        false_alarms: of unrelated pairs the share with a p-value of at most 5%, and of at most 1%.
        excess: mean and deviation of the excess likeness of unrelated pairs, and the largest.
    """

    zoo: str
    parents: int
    rows: tuple[DerivationRow, ...]
    false_alarms: tuple[Tally, Tally]
    excess: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def lineage_study(zoo: Zoo, seed: int = 0) -> LineageStudy:
    """Every child of a zoo of families held against all of its parents.

    Raises:
        TaskError: if the zoo has no families, or fewer than ten.
    """
    if "derivation" not in zoo.columns:
        raise TaskError(f"zoo {zoo.folder} has no families: make one with `weightspace zoo make lineage-small`")
    networks = zoo.population()
    how, parent, number = (zoo.column(name)[networks.rows] for name in ("derivation", "parent", "network"))
    own = np.flatnonzero(how == "")
    if len(own) < 10 or len(networks.specs) != 1:
        raise TaskError(
            f"zoo {zoo.folder} has {len(own)} parents of {len(networks.specs)} architectures: at least ten of one are "
            "needed"
        )
    (spec,) = networks.specs
    weights = networks.read(np.arange(len(networks)))
    filters = balanced_filters(weights, spec)
    table = descriptors(filters, spec)
    rows = []
    for name in sorted(set(map(str, how)) - {""}):
        children = [int(i) for i in np.flatnonzero(how == name) if parent[i] in number[own]]
        truth = [int(np.flatnonzero(number[own] == parent[i])[0]) for i in children]
        rows.append(_row(name, children, truth, own, weights, filters, table, spec, seed))
    alarms, found = _unrelated(filters[own], spec, seed)
    recipe = str(zoo.description["config"]["recipe"])
    return LineageStudy(recipe, len(own), tuple(rows), alarms, found)


def _row(
    name: str,
    children: Sequence[int],
    truth: Sequence[int],
    own: np.ndarray,
    weights: np.ndarray,
    filters: np.ndarray,
    table: np.ndarray,
    spec: NetworkSpec,
    seed: int,
) -> DerivationRow:
    found, raw, related, likeness, ranks = [], [], [], [], []
    unit = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    for child, right in zip(children, truth, strict=True):
        alike = np.array([match_filters(filters[i], filters[child], spec).likeness for i in own])
        found.append(alike.argmax() == right)
        raw.append((unit[own] @ unit[child]).argmax() == right)
        likeness.append(alike[right])
        null = surrogate_null(filters[own[right]], filters[child], spec, seed=seed)
        related.append(null.p_value(float(alike[right])) <= 0.01)
        ranks.append(nearest(table[child], table[own], len(own)).tolist().index(right) + 1)
    return DerivationRow(
        name,
        Tally.of(np.array(found)),
        Tally.of(np.array(raw)),
        Tally.of(np.array(related)),
        (float(np.median(likeness)), float(np.min(likeness))),
        int(np.ceil(np.quantile(ranks, 0.9))),
    )


def _unrelated(
    filters: Float[np.ndarray, "n size"], spec: NetworkSpec, seed: int
) -> tuple[tuple[Tally, Tally], tuple[float, float, float]]:
    """False alarms and excess likeness of random pairs of parents."""
    rng = np.random.default_rng(seed)
    p_values, beyond = [], []
    for _ in range(PAIRS):
        i, j = rng.choice(len(filters), 2, replace=False)
        alike = match_filters(filters[i], filters[j], spec).likeness
        null = surrogate_null(filters[i], filters[j], spec, seed=int(rng.integers(2**31)))
        p_values.append(null.p_value(alike))
        beyond.append(excess(alike, (null.mean - CONVERGENCE[0]) / (1 - CONVERGENCE[0])))
    p, e = np.array(p_values), np.array(beyond)
    return (Tally.of(p <= 0.05), Tally.of(p <= 0.01)), (float(e.mean()), float(e.std()), float(e.max()))


def lineage_table(found: LineageStudy) -> str:
    """The study in Markdown."""
    lines = [
        f"{found.zoo}: the parent among {found.parents}; 95% intervals over children",
        "",
        "| derived by | parent found | by raw weights | called related, 1% | likeness, median and least | 90% within |",
        "|---|---|---|---|---|---|",
    ]
    for row in found.rows:
        middle, least = row.likeness
        lines.append(
            f"| {row.derivation.replace('+', ', ')} | {row.found} | {row.nearest.right / max(1, row.nearest.n):.3f} | "
            f"{row.related} | {middle:.2f}, {least:.2f} | {row.indexed} |"
        )
    five, one = found.false_alarms
    mean, deviation, most = found.excess
    lines += [
        "",
        f"Unrelated pairs called related: at 5% {five}; at 1% {one}.",
        f"Excess likeness of unrelated pairs: {mean:.3f} +- {deviation:.3f}, at most {most:.3f}.",
    ]
    return "\n".join(lines)
