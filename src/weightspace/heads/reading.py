"""What the heads of a model do, read from its weights: scores, how sure, and the labelled heads that they are like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightspace.errors import NetworkError
from weightspace.heads.behaviour import THRESHOLDS, Behaviour
from weightspace.heads.few_shot import few_shot
from weightspace.heads.fingerprint import Fingerprints, fingerprints, predicted_previous
from weightspace.heads.head_reader import READ, HeadReader, pretrained, soft_targets
from weightspace.heads.invariants import HeadInvariants, head_invariants
from weightspace.transformers.trained import TrainedTransformer

NEAREST = 3
EDGES = 24
Labels = Mapping[str, Mapping[tuple[int, int], bool]]
"""By behaviour, whether some heads (layer, head) have it."""


@dataclass(frozen=True)
class Neighbour:
    """A labelled head that is like another.

    Attributes:
        name: whose head it is.
        distance: between fingerprints, in standard deviations, root mean square over columns.
        behaviours: of which it has at least the threshold.
    """

    name: str
    distance: float
    behaviours: tuple[str, ...]


@dataclass(frozen=True)
class ReadHead:
    """One head.

    Attributes:
        scores: by behaviour, 0 to 1; 1/2 where a head begins to be called so.
        spread: by behaviour, the standard deviation of what the reader's members say; 0 where labels gave the score.
        nearest: labelled heads, the nearest first.
        by_content: how much it attends to the same content, by distance from 0 on, -1 to 1.
        by_place: how much it attends to each distance whatever stands there, by distance from 0 on, sum 1.
    """

    layer: int
    head: int
    scores: Mapping[str, float]
    spread: Mapping[str, float]
    nearest: tuple[Neighbour, ...]
    by_content: tuple[float, ...]
    by_place: tuple[float, ...]

    def record(self) -> dict[str, Any]:
        """Itself as JSON, kernels left out."""
        return {
            "layer": self.layer,
            "head": self.head,
            "scores": {name: round(value, 4) for name, value in self.scores.items()},
            "spread": {name: round(value, 4) for name, value in self.spread.items()},
            "nearest": [
                {"head": each.name, "distance": round(each.distance, 3), "behaviours": list(each.behaviours)}
                for each in self.nearest
            ],
        }


@dataclass(frozen=True)
class Edge:
    """A head that reads what an earlier one wrote.

    Attributes:
        earlier, later: (layer, head).
        strength: how well the later one's keys match what the earlier one moved from the last place; see
            `Composition.matched`, in units of what two random heads would have.
    """

    earlier: tuple[int, int]
    later: tuple[int, int]
    strength: float


@dataclass(frozen=True)
class HeadReading:
    """All heads of a model.

    Attributes:
        where: what was read.
        heads: layer by layer.
        behaviours: those that have scores.
        edges: the strongest of composition, the strongest first.
        labelled: of each behaviour for which labels were given, how many heads were labelled.
    """

    where: str
    layers: int
    width: int
    heads: tuple[ReadHead, ...]
    behaviours: tuple[str, ...]
    edges: tuple[Edge, ...]
    labelled: Mapping[str, int]

    def top(self, behaviour: str, count: int) -> tuple[ReadHead, ...]:
        """The heads with the highest scores of a behaviour."""
        return tuple(sorted(self.heads, key=lambda head: -head.scores[behaviour])[:count])

    def records(self) -> list[dict[str, Any]]:
        """A list for JSON."""
        return [head.record() for head in self.heads]


def read_heads(
    transformer: TrainedTransformer, labels: Labels | None = None, reader: HeadReader | None = None
) -> HeadReading:
    """Scores of every head from its weights; the model is not run.

    Args:
        labels: of some heads, to add a behaviour or to correct one that the reader knows.
        reader: the one that comes with the package unless given.
    Raises:
        NetworkError: if the model's heads cannot be read, or labels name none of them or are all alike.
    """
    judge = reader or pretrained()
    shape, given = transformer.shape, labels or {}
    _check_labels(given, shape.layers, shape.heads)
    found = head_invariants(transformer)
    prints = fingerprints(found)
    values, spread = judge.scores(prints)
    scores = {name: values[:, place] for place, name in enumerate(READ)}
    unsure = {name: spread[:, place] for place, name in enumerate(READ)}
    for name, of_heads in given.items():
        chosen = np.array([layer * shape.heads + head for layer, head in of_heads])
        known: Behaviour | None = next((each for each in READ if each == name), None)
        scores[name] = few_shot(judge, prints, chosen, np.array(list(of_heads.values()), int), known)
        unsure[name] = np.zeros(len(scores[name]))
    near = _neighbours(judge, prints)
    places, contents = _by_place(found), _by_content(found)
    heads = [
        ReadHead(
            layer=place // shape.heads,
            head=place % shape.heads,
            scores={name: float(each[place]) for name, each in scores.items()},
            spread={name: float(each[place]) for name, each in unsure.items()},
            nearest=near[place],
            by_content=contents[place],
            by_place=places[place],
        )
        for place in range(shape.layers * shape.heads)
    ]
    counts = {name: len(each) for name, each in given.items()}
    edges = _edges(found)
    return HeadReading(transformer.where, shape.layers, shape.width, tuple(heads), tuple(scores), edges, counts)


def _check_labels(labels: Labels, layers: int, heads: int) -> None:
    for name, given in labels.items():
        for layer, head in given:
            if not (0 <= layer < layers and 0 <= head < heads):
                raise NetworkError(
                    f"labels of {name} name layer {layer}, head {head}: the model has {layers} layers of {heads} "
                    "heads, counted from 0"
                )
        if len(set(given.values())) < 2:
            raise NetworkError(f"labels of {name} are all alike: give heads that have it and heads that have not")


def _neighbours(reader: HeadReader, prints: Fingerprints) -> list[tuple[Neighbour, ...]]:
    rows = reader.standard(prints.names, prints.rows.numpy())
    known = reader.standard(reader.known.names, reader.known.rows)
    # not the differences of all pairs, which of a large model take gigabytes
    squares = np.square(rows).sum(1)[:, None] + np.square(known).sum(1)[None] - 2 * rows @ known.T
    distances = np.sqrt(squares.clip(min=0) / rows.shape[1])
    having = soft_targets(reader.known.scores) >= 0.5
    found = []
    for row in distances:
        places = np.argsort(row, kind="stable")[:NEAREST]
        found.append(
            tuple(
                Neighbour(
                    reader.known.heads[place],
                    float(row[place]),
                    tuple(name for name, has in zip(READ, having[place], strict=True) if has),
                )
                for place in places
            )
        )
    return found


def _by_place(found: HeadInvariants) -> list[tuple[float, ...]]:
    return [tuple(row) for kernels in found.kernels for row in kernels.own.softmax(1).tolist()]


def _by_content(found: HeadInvariants) -> list[tuple[float, ...]]:
    return [
        tuple(row)
        for kernels in found.kernels
        for row in (kernels.trace / kernels.norm.clamp(min=1e-12) / found.size**0.5).tolist()
    ]


def _edges(found: HeadInvariants) -> tuple[Edge, ...]:
    """The strongest, where the earlier head looks at the last place."""
    strength = found.composition.matched * predicted_previous(found)[:, None] * (found.width * found.size) ** 0.5
    order: Sequence[int] = strength.flatten().argsort(descending=True)[:EDGES].tolist()
    count = len(strength)
    edges = [
        Edge(
            (place // count // found.heads, place // count % found.heads),
            (place % count // found.heads, place % count % found.heads),
            float(strength.flatten()[place]),
        )
        for place in order
    ]
    return tuple(edge for edge in edges if edge.strength > 0)


def threshold_of(name: str) -> float:
    """From which value on a label says yes: a known behaviour's threshold, else one half."""
    return next((value for known, value in THRESHOLDS.items() if known == name), 0.5)
