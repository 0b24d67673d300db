"""Interchange accuracy: where a component's value is swapped, does the answer become what the program then gives?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool

from weightspace.circuits.alignment import Alignment, Rows
from weightspace.circuits.hypothesis import Component
from weightspace.circuits.readouts import UNKNOWN, Answers, same_answers
from weightspace.errors import NetworkError
from weightspace.evaluation.metrics import Tally
from weightspace.rasp.language import Expression, Selector, indices, tokens, walk
from weightspace.rasp.program import Program

PAIRS = 256
EVERY_PAIR = 512
"""Up to so many pairs of one length are all taken."""
POOL = 8
"""So many times as many pairs are drawn to find those on which the program's answer changes."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of inputs, what the program answers on the base where a variable has its values on the source, and where.

    Attributes:
        base, source: numbers of inputs, of all pairs that were drawn.
        where: the places at which values are swapped.
        expected: the program's answers on base inputs after the swap.
        changes: the places at which they are asked and differ from those before.
        every: positions of pairs as they were drawn, for shares over all pairs.
        changed: positions of pairs whose answer changes.
        undefined: drawn pairs that were left out because the program has no answer after the swap.
    """

    base: Rows
    source: Rows
    where: Bool[np.ndarray, "pairs places"]
    expected: Answers
    changes: Bool[np.ndarray, "pairs places"]
    every: Rows
    changed: Rows
    undefined: int


@dataclass(frozen=True)
class Interchange:
    """How often the answer becomes what the program gives where a variable has the values of another input.

    An answer is right where all places are at which something is asked, and the program says what can be answered.

    Attributes:
        changed: pairs whose answer changes by the program: the interchange accuracy.
        every: all pairs, those whose answer stays among them.
        control: the pairs of `changed` with a random subspace of the same size; of a whole component, with what it
            holds on a third input. None if it was not asked for, or there are no such pairs.
        places: single places whose answer changes by the program.
        undefined: pairs that were left out, because the program has no answer after the swap.
    """

    changed: Tally
    every: Tally
    control: Tally | None
    places: Tally
    undefined: int

    @property
    def share(self) -> float | None:
        """The interchange accuracy; None if no answer changes."""
        return self.changed.share


def interchange_accuracy(
    alignment: Alignment, component: Component, pairs: Pairs, *, control: int | None = None
) -> Interchange:
    """The interchange accuracy of a variable and a component on pairs that were drawn for the variable.

    Args:
        control: the seed of the random subspace; None for no control.
    Raises:
        NetworkError: if the transformer has no such component.
    """
    component.check(alignment.transformer.shape)
    chosen = np.union1d(pairs.every, pairs.changed)
    right = np.zeros(pairs.changes.shape, bool)
    right[chosen] = _right(alignment, component, pairs, chosen)
    whole = np.asarray(right.all(1))
    other = None
    if control is not None and len(pairs.changed):
        other = Tally.of(np.asarray(_control(alignment, component, pairs, control).all(1)))
    return Interchange(
        Tally.of(whole[pairs.changed]),
        Tally.of(whole[pairs.every]),
        other,
        Tally.of(right[pairs.changed][pairs.changes[pairs.changed]]),
        pairs.undefined,
    )


def _right(alignment: Alignment, component: Component, pairs: Pairs, chosen: Rows) -> Bool[np.ndarray, "pairs places"]:
    """Where the transformer answers as the program does after the swap, or nothing is asked."""
    base, source = pairs.base[chosen], pairs.source[chosen]
    given = alignment.swapped_answers(component, base, source, pairs.where[chosen])
    wanted = pairs.expected[chosen]
    return same_answers(wanted, given) | ~alignment.asked[base] | (wanted == UNKNOWN)


def _control(alignment: Alignment, component: Component, pairs: Pairs, seed: int) -> Bool[np.ndarray, "pairs places"]:
    """Where answers are right, of pairs that change, with a random subspace or the value of a third input."""
    chosen = pairs.changed
    if component.directions is not None:
        return _right(alignment, random_component(component, seed), pairs, chosen)
    wrong = replace(pairs, source=pairs.source[np.random.default_rng(seed).permutation(len(pairs.source))])
    wrong = replace(wrong, where=wrong.where & alignment.common(wrong.base, wrong.source))
    return _right(alignment, component, wrong, chosen)


def random_component(component: Component, seed: int) -> Component:
    """A random subspace of the same size at the same place."""
    if component.directions is None:
        raise NetworkError(f"{component.place} as a whole has no random subspace of its size")
    drawn = torch.randn(component.directions.shape, generator=torch.Generator().manual_seed(seed))
    return Component(component.place, drawn)


def draw_pairs(
    alignment: Alignment, variable: str, *, count: int = PAIRS, seed: int = 0, rows: Rows | None = None
) -> Pairs:
    """Pairs of inputs for a variable: a sample of all pairs, and as many whose answer changes where it is swapped.

    The two inputs of a pair are of one length where there are several of it, else of lengths as near as may be. Where
    there are few inputs every pair is taken.

    Where the program after the swap says what no transformer can, as nothing is there to be picked, nothing is asked.

    A variable that a place makes of what stands there is swapped at all places. Another is swapped at about half of
    them, drawn for each pair: swapped everywhere, it could not be told from what it is made of at other places.

    Args:
        variable: an S-op of the program, `tokens` or `indices`.
        count: pairs of either kind.
        rows: numbers of the inputs that are paired; all unless given.
    Raises:
        NetworkError: if there is no such S-op, or only one input.
    """
    if variable not in alignment.values:
        raise NetworkError(f"the answer needs no S-op {variable!r}: it needs {', '.join(alignment.values)}")
    rows = np.arange(len(alignment)) if rows is None else rows
    generator = np.random.default_rng(seed)
    base, source, complete = _paired(alignment.batch.lengths, rows, count, generator)
    where = alignment.common(base, source)
    if not is_local(alignment.program, variable):
        where &= _some_places(where, generator)
    parts: list[tuple[Answers, np.ndarray]] = []
    changed = 0
    for start in range(0, len(base), count):  # until there are enough whose answer changes
        part = slice(start, start + count)
        found, defined = alignment.swapped_meaning(variable, base[part], source[part], where[part])
        changes = _changes(alignment, base[part], found)
        parts.append((found, defined))
        changed += int((defined & changes.any(1)).sum())
        if changed >= count and not complete:
            break
    expected = np.concatenate([part[0] for part in parts])
    defined = np.concatenate([part[1] for part in parts])
    base, source, where = base[: len(expected)], source[: len(expected)], where[: len(expected)]
    changes = _changes(alignment, base, expected)
    every = np.flatnonzero(defined)[: None if complete else count]
    altered = np.flatnonzero(defined & changes.any(1))[: None if complete else count]
    return Pairs(base, source, where, expected, changes, every, altered, int((~defined).sum()))


def _changes(alignment: Alignment, base: Rows, expected: Answers) -> Bool[np.ndarray, "pairs places"]:
    """Where an answer is asked, is another after the swap, and is one that the transformer can give."""
    return ~same_answers(alignment.expected[base], expected) & alignment.asked[base] & (expected != UNKNOWN)


def is_local(program: Program, variable: str) -> bool:
    """Whether an S-op is a function of what stands at its own place: no selector is part of it."""
    nodes: dict[str, Expression] = {"tokens": tokens, "indices": indices, **dict(program.statements)}
    return not any(isinstance(node, Selector) for node in walk(nodes[variable]))


def _some_places(
    common: Bool[np.ndarray, "pairs places"], generator: np.random.Generator
) -> Bool[np.ndarray, "pairs places"]:
    """About half of the places of each pair, at least one."""
    drawn = np.where(common, generator.random(common.shape), 1.0)
    return drawn <= np.maximum(0.5, drawn.min(1, keepdims=True))


def _paired(lengths: np.ndarray, rows: Rows, count: int, generator: np.random.Generator) -> tuple[Rows, Rows, bool]:
    """Base and source inputs: every pair of one length where these are few, else a sample; and whether it is every."""
    if len(rows) < 2:
        raise NetworkError("interchanges need at least two inputs")
    order = rows[np.argsort(lengths[rows], kind="stable")]
    sizes = lengths[order]
    first, last = np.searchsorted(sizes, sizes, "left"), np.searchsorted(sizes, sizes, "right")
    group = last - first
    if int((group - 1).sum()) <= EVERY_PAIR and int(group.min()) > 1:
        found = [(b, s) for b in range(len(order)) for s in range(first[b], last[b]) if s != b]
        drawn = np.array(found)[generator.permutation(len(found))]
        return order[drawn[:, 0]], order[drawn[:, 1]], True
    base = generator.integers(0, len(order), POOL * count)
    alone = group[base] == 1
    # the other inputs of its length, or where there is none the neighbours in length
    start = np.where(alone, np.clip(base - 1, 0, max(len(order) - 3, 0)), first[base])
    width = np.where(alone, min(3, len(order)), group[base])
    source = start + (base - start + 1 + (generator.random(len(base)) * (width - 1)).astype(int)) % width
    return order[base], order[source], False
