"""Is one network derived from another, and from which of many?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.files.atomic import file_hash
from weightspace.provenance.candidates import Candidates, candidates_in
from weightspace.provenance.descriptors import descriptors, nearest
from weightspace.provenance.filters import balanced_filters
from weightspace.provenance.matching import Matched, match_filters
from weightspace.provenance.null import Null, candidate_null, surrogate_null
from weightspace.provenance.opening import (
    ComparisonError,
    check_comparable,
    knows_order,
    network_of,
    weights_as,
)
from weightspace.weights.network import Network

ALARMS = 0.01
"""p-value below which two networks are called related, unless given."""
MATCHED_AT_LEAST, MATCHED_SHARE = 500, 0.05
"""Candidates that are matched neuron by neuron: so many, or this share of them where that is more."""
DRAWN = 200
"""Candidates drawn at random that say what likeness unrelated networks have."""


@dataclass(frozen=True)
class Relation:
    """How alike two networks are.

    Attributes:
        name: of the other network.
        likeness: mean cosine of matched filters, 1 for the same network up to order and scale.
        layers: of each hidden layer its name and the mean cosine of its filters.
        p_value: the share of unrelated networks that are at least so alike.
        related: whether that is less than the share of false alarms that is allowed.
    """

    name: str
    likeness: float
    layers: tuple[tuple[str, float], ...]
    p_value: float
    related: bool


@dataclass(frozen=True)
class Lineage:
    """What matching says of a network's origin.

    Attributes:
        network: the network that was asked about.
        relations: to others, the most alike first.
        null: what unrelated networks are like.
        alarms: share of false alarms that is allowed.
        compared: how many networks were looked at, and `matched` how many of them neuron by neuron.
        skipped: what was left out of a folder, by reason.
        notes: what else a reader must know.
    """

    network: str
    relations: tuple[Relation, ...]
    null: Null
    alarms: float
    compared: int = 1
    matched: int = 1
    skipped: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()

    @property
    def related(self) -> bool:
        """Whether the most alike network is called related."""
        return self.relations[0].related

    @property
    def best(self) -> Relation:
        """The network that is most alike."""
        return self.relations[0]

    def to_json(self) -> dict[str, Any]:
        record = asdict(self)
        record["relations"] = [{**asdict(one), "layers": dict(one.layers)} for one in self.relations]
        return {**record, "related": self.related, "skipped": dict(self.skipped or {})}


def lineage(
    first: str | Path | Network, second: str | Path | Network, *, alarms: float = ALARMS, seed: int = 0
) -> Lineage:
    """Whether one of two networks is derived from the other, or both from a third.

    Filters of size 1 are matched layer by layer (`match_filters`), whatever the order and scale of neurons. The p-value
    holds their likeness against surrogates of the second network (`surrogate_null`).

    Args:
        first, second: checkpoints of any kind that is read, or networks.
        alarms: share of false alarms that is allowed, above 0 and below 1.
        seed: of the surrogates.
    Raises:
        ComparisonError: if they are not comparable, one is no trained network, or both are one file; a sentence.
    """
    check_alarms(alarms)
    names = (_name(first, "the first network"), _name(second, "the second network"))
    notes = []
    if isinstance(first, str | Path) and isinstance(second, str | Path):
        _check_two_files(Path(first), Path(second))
    network = network_of(first)
    weights = [network.weights, weights_as(second, network.spec, names[0])]
    for one, name in zip(weights, names, strict=True):
        check_comparable(network.spec, one, name)
    if np.array_equal(weights[0], weights[1]):
        notes.append("Both hold the same weights, number for number.")
    if not knows_order(network.spec):
        notes.append("The order of its layers is not known, so neurons were compared as they stand.")
    filters = balanced_filters(np.stack(weights), network.spec)
    found = match_filters(filters[0], filters[1], network.spec)
    null = surrogate_null(filters[0], filters[1], network.spec, seed=seed)
    return Lineage(names[0], (_relation(names[1], found, null, alarms),), null, alarms, notes=tuple(notes))


def lineage_among(
    child: str | Path | Network,
    folder: str | Path,
    *,
    alarms: float = ALARMS,
    most: int = 5,
    cache: Path | None = None,
    seed: int = 0,
) -> Lineage:
    """From which network of a folder, or of a zoo, a network is derived, or which is derived from it.

    An index of descriptors that no order or scale of neurons changes finds the nearest candidates; these are matched
    neuron by neuron. The p-value holds the best against candidates that are drawn at random (against surrogates where
    there are few), and counts that the best of many was looked for (Bonferroni).

    Args:
        child: a checkpoint, or a network.
        folder: of checkpoints or a zoo.
        alarms: share of false alarms that is allowed in the whole search.
        most: relations that are told.
        cache: a folder where what is read of files is kept by their hashes.
        seed: of the draw.
    Raises:
        ComparisonError: if there is nothing to compare with; a sentence.
    """
    check_alarms(alarms)
    name = _name(child, "the network")
    network = network_of(child)
    check_comparable(network.spec, network.weights, name)
    own = Path(child) if isinstance(child, str | Path) else None
    found = candidates_in(Path(folder), network.spec, whose=name, leaving=own, cache=cache)
    filters = balanced_filters(network.weights[None], network.spec)
    count = min(len(found.names), max(MATCHED_AT_LEAST, round(MATCHED_SHARE * len(found.names))))
    close = nearest(descriptors(filters, network.spec)[0], found.descriptors, count)
    matched = {int(i): match_filters(filters[0], found.filters(int(i)), network.spec) for i in close}
    order = sorted(matched, key=lambda i: -matched[i].likeness)
    null = _null(filters[0], found, matched, order[0], seed)
    relations = [_relation(found.names[i], matched[i], null, alarms, len(found.names)) for i in order[:most]]
    notes = () if knows_order(network.spec) else ("The order of its layers is not known: neurons stand as they are.",)
    return Lineage(name, tuple(relations), null, alarms, len(found.names), len(matched), found.skipped, notes)


def _null(filters: np.ndarray, found: Candidates, matched: Mapping[int, Matched], best: int, seed: int) -> Null:
    """What unrelated candidates are like: others than the best, drawn at random; surrogates where these are few."""
    others = [i for i in range(len(found.names)) if i != best]
    drawn = np.random.default_rng(seed).permutation(others)[:DRAWN]
    alike = [
        (matched[int(i)] if int(i) in matched else match_filters(filters, found.filters(int(i)), found.spec)).likeness
        for i in drawn
    ]
    return candidate_null(np.array(alike)) or surrogate_null(filters, found.filters(best), found.spec, seed=seed)


def _relation(name: str, found: Matched, null: Null, alarms: float, looked_at: int = 1) -> Relation:
    p_value = null.p_value(found.likeness, looked_at)
    return Relation(name, found.likeness, found.layers, p_value, p_value <= alarms)


def _name(source: str | Path | Network, otherwise: str) -> str:
    return str(source) if isinstance(source, str | Path) else otherwise


def check_alarms(alarms: float) -> None:
    """Raise a ComparisonError unless a share of false alarms lies between 0 and 1."""
    if not 0 < alarms < 1:
        raise ComparisonError(f"a share of false alarms lies between 0 and 1, such as 0.01, and {alarms} was given")


def _check_two_files(first: Path, second: Path) -> None:
    for path in (first, second):
        if not path.exists():
            raise ComparisonError(f"there is no file {path}: name one that there is")
    if first.samefile(second) or (first.is_file() and second.is_file() and file_hash(first) == file_hash(second)):
        raise ComparisonError(f"{first} and {second} are the same file: name two different networks")
