"""Where a transformer holds each S-op of a program: found on some inputs, judged by interchange on others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from weightspace.circuits.alignment import Alignment, Rows
from weightspace.circuits.directions import fitted_directions
from weightspace.circuits.hypothesis import Component
from weightspace.circuits.interchanging import PAIRS, Interchange, Pairs, draw_pairs, interchange_accuracy, is_local
from weightspace.circuits.readouts import Readout
from weightspace.errors import NetworkError
from weightspace.rasp.functions import Value
from weightspace.rasp.program import Program
from weightspace.transformers.places import Place
from weightspace.transformers.trained import TrainedTransformer

ROUNDS = ((8, 12), (32, 3), (128, 0))
"""Of each round on how many pairs a candidate is tried, and how many of the best go on; the last takes one."""
SAME_LINE = 0.9995
"""Lines with a larger cosine are tried once."""
NO_TEXT_SEEN = (Place("embed"), Place("pos_embed"), Place("resid_pre", 0))
"""Places at which nothing can stand that is made of other places of the text."""
CLOSE = 0.01
"""Of candidates whose shares differ by less, the smallest subspace is taken, and of these the first place."""


@dataclass(frozen=True, eq=False)
class Located:
    """Where an S-op is held, as far as interchanges say.

    Attributes:
        variable: of the program.
        component: the place and the directions, the best that was found; None where nothing could be tried.
        interchange: judged on inputs on which nothing was fitted or chosen; None where nothing could be tried.
        tried: subspaces that were tried.
    """

    variable: str
    component: Component | None
    interchange: Interchange | None
    tried: int

    @property
    def share(self) -> float | None:
        """The interchange accuracy."""
        return None if self.interchange is None else self.interchange.share

    def to_record(self) -> dict[str, Any]:
        """The variable, its component without directions, shares with their intervals; JSON-serialisable."""
        record: dict[str, Any] = {"variable": self.variable, "component": None, "interchange": None}
        if self.component is None or self.interchange is None:
            return record
        found, place = self.interchange, self.component.place
        bounds = found.changed.interval
        record["component"] = {"kind": place.kind, "layer": place.layer, "head": place.head}
        record["component"]["rank"] = self.component.rank
        record |= {"interchange": found.share, "n": found.changed.n}
        if bounds is not None:
            record |= {"low": bounds.low, "high": bounds.high}
        record["random"] = None if found.control is None else found.control.share
        record |= {"every": found.every.share, "places": found.places.share}
        return record


def locate(
    transformer: TrainedTransformer,
    program: Program,
    inputs: Sequence[Sequence[Value]],
    readout: Readout,
    *,
    asked: Sequence[Sequence[bool]] | None = None,
    variables: Iterable[str] | None = None,
    places: Iterable[Place] | None = None,
    pairs: int = PAIRS,
    seed: int = 0,
) -> list[Located]:
    """For each S-op of a program the place and the subspace of a transformer that hold it.

    Directions are fitted on half of the inputs, chosen by interchange on pairs of these, and judged on pairs of the
    other half.

    Args:
        inputs: of the program, which the transformer's vocabulary has; at least 8, better some hundreds, several
            of each length.
        readout: how answers are read off both: `TokenSet`, `GreedyToken`.
        asked: for each place of each input whether an answer counts; unless given, at each place.
        variables: which are located; unless given all that the answer needs, without `tokens` and `indices`.
        places: where they may be; unless given, `usual_places`.
        pairs: on which the best candidate is judged.
    Returns:
        one for each variable, in the program's order.
    Raises:
        NetworkError: if a token is unknown, an input too long, inputs too few, or a variable none of the program's.
    """
    return locate_aligned(
        Alignment(transformer, program, inputs, readout, asked=asked),
        variables=variables,
        places=places,
        pairs=pairs,
        seed=seed,
    )


def locate_aligned(
    alignment: Alignment,
    *,
    variables: Iterable[str] | None = None,
    places: Iterable[Place] | None = None,
    pairs: int = PAIRS,
    seed: int = 0,
) -> list[Located]:
    """`locate` of a program and a transformer that are on the same inputs already."""
    if len(alignment) < 8:
        raise NetworkError(f"{len(alignment)} inputs are too few to locate anything: give at least 8")
    order = np.random.default_rng(seed).permutation(len(alignment))
    fit, judge = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    names = list(alignment.values if variables is None else variables)
    if variables is None:
        names = [name for name in names if name not in ("tokens", "indices")]
    drawn = {name: draw_pairs(alignment, name, count=pairs, seed=seed, rows=fit) for name in names}
    places = usual_places(alignment.transformer) if places is None else list(places)
    candidates: dict[str, list[_Candidate]] = {name: [] for name in names}
    for number, place in enumerate(places):  # place by place, as what stands there is held only for some of them
        for name in names:
            if len(drawn[name].changed) and (is_local(alignment.program, name) or place not in NO_TEXT_SEEN):
                candidates[name] += _candidates(alignment, name, place, number, fit, _first(drawn[name], ROUNDS[0][0]))
    found = []
    for name in names:
        best = _best(alignment, candidates[name], drawn[name])
        judged = None
        if best is not None:
            held_out = draw_pairs(alignment, name, count=pairs, seed=seed + 1, rows=judge)
            judged = interchange_accuracy(alignment, best, held_out, control=seed)
        found.append(Located(name, best, judged, len(candidates[name])))
    return found


def usual_places(transformer: TrainedTransformer) -> list[Place]:
    """The stream between half-layers and what each head and MLP adds to it, in the order of the forward pass."""
    shape = transformer.shape
    found = [Place("resid_pre", 0)]
    for layer in range(shape.layers):
        if shape.heads > 1:
            found += [Place("result", layer, head) for head in range(shape.heads)]
        found += [Place("attn_out", layer), Place("resid_mid", layer)]
        if shape.hidden:
            found += [Place("mlp_out", layer), Place("resid_post", layer)]
    return [*found, Place("logits")]


def _first(pairs: Pairs, count: int) -> Pairs:
    """Only the first pairs whose answer changes."""
    kept = pairs.changed[:count]
    numbers = np.arange(len(kept))
    base, source, where = pairs.base[kept], pairs.source[kept], pairs.where[kept]
    return Pairs(base, source, where, pairs.expected[kept], pairs.changes[kept], numbers, numbers, 0)


class _Candidate(NamedTuple):
    """A component, its place's number in the order of the pass, and its score so far."""

    score: float
    number: int
    component: Component


def _candidates(
    alignment: Alignment, variable: str, place: Place, number: int, rows: Rows, pairs: Pairs
) -> list[_Candidate]:
    """What may hold a variable at a place, scored on few pairs; directions that are nearly the same only once."""
    components = [] if place.kind.startswith("resid") or place.kind == "logits" else [Component(place)]
    lines: list[Tensor] = []
    for directions in fitted_directions(alignment, variable, place, rows):
        if directions.shape[1] == 1:
            line = directions[:, 0] / directions.norm()
            if any(abs(float(line @ other)) > SAME_LINE for other in lines):
                continue
            lines.append(line)
        components.append(Component(place, directions))
    return [_Candidate(_score(alignment, component, pairs), number, component) for component in components]


def _score(alignment: Alignment, component: Component, pairs: Pairs) -> float:
    """The interchange accuracy; where it is the same, the share of single places decides."""
    found = interchange_accuracy(alignment, component, pairs)
    return (found.changed.share or 0.0) + 0.01 * (found.places.share or 0.0)


def _best(alignment: Alignment, candidates: list[_Candidate], pairs: Pairs) -> Component | None:
    """The best candidate after rounds on ever more pairs."""
    if not candidates:
        return None
    for (_, kept), (count, _) in pairwise(ROUNDS):
        candidates = sorted(candidates, key=lambda each: (-each.score, _size(each), each.number))[:kept]
        some = _first(pairs, count)
        candidates = [each._replace(score=_score(alignment, each.component, some)) for each in candidates]
    most = max(each.score for each in candidates)
    close = [each for each in candidates if each.score > most - CLOSE]
    return min(close, key=lambda each: (_size(each), each.number)).component


def _size(candidate: _Candidate) -> float | int:
    rank = candidate.component.rank
    return float("inf") if rank is None else float(rank)
