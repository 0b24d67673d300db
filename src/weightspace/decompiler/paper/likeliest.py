"""The listing that the paper's sampler most probably drew, given weights: the best answer that anybody can give.

A program that a decompiler found is one of many with its weights. From records of the sampler with these weights (see
`reconstruction`) a Markov chain walks over all others (see `ceiling`), and what it meets is a sample of the posterior
of the paper's target. The answer is taken from the sample: of the commonest ways in which the lines are wired, each
line as it is written most often, or each field by itself, whichever promises more. What it promises, in tokens and of
being exact, is a ceiling of its own for these weights: nothing that knows the weights and the sampler does better, but
for what the chain has not met.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from time import monotonic

import numpy as np

from weightspace.decompiler.paper.imprint import Numbering, Order, imprint_of
from weightspace.decompiler.paper.listing import FIELDS, target_lines
from weightspace.decompiler.paper.matching import matcher_of
from weightspace.decompiler.paper.reconstruction import reconstructed
from weightspace.decompiler.paper.walk import Walk
from weightspace.decompiler.proof.certificate import Columns
from weightspace.errors import RaspError
from weightspace.rasp.compiler.assemble import compile_program, direction_labels
from weightspace.rasp.lambdas import recognise
from weightspace.rasp.language import Map, Select, SelectorWidth, SequenceMap, SOp, indices, rebuild, tokens
from weightspace.rasp.program import Program
from weightspace.rasp.tokens import MOST_LINES, PAPER, PAPER_ARGUMENTS, PAPER_VARIABLES
from weightspace.rasp.validate import analyse, settings

UNHEARD = 0.2
"""The beginning of a chain that is not counted, while it forgets where it started."""
WIRINGS = 12
"""So many of the commonest wirings are looked at line by line."""
_WIRED = np.array([name in ("tokens", "indices", *PAPER_VARIABLES) for name in PAPER_ARGUMENTS])


@dataclass(frozen=True, eq=False)
class Likeliest:
    """What was most probably drawn.

    Attributes:
        lines: (15, 5) int64, as `listing.target_lines` has them.
        tokens: the share of its tokens that the posterior expects to be right; NaN where there is no posterior.
        exact: the probability that all are, by the lines of its wiring; NaN where there is no posterior.
        targets: different listings met.
        chains: records from which was walked; 0 where none was found and the lines are the program's own.
    """

    lines: np.ndarray
    tokens: float
    exact: float
    targets: int
    chains: int


def numbering_of(program: Program, columns: Columns) -> Numbering:
    """The order in which given weights have the directions of each S-op, by a certificate.

    Args:
        program: that was certified.
        columns: the certificate's permutation.
    """
    analysis = analyse(program, *settings(program, None, None), "tracr_compat")
    labels = direction_labels(program, [t for t in analysis.traits.values() if t.depth], False)
    groups = {group.label: group for group in compile_program(program, mode="tracr_compat").directions}
    found = {}
    for key, t in analysis.traits.items():
        group = groups.get(labels.get(key, ""))
        if t.depth and group is not None and group.values is not None:
            places = columns.directions[group.start : group.start + group.size]
            found[key] = np.argsort(np.argsort(places))
    return found


def likeliest_listing(
    program: Program,
    order: Order,
    *,
    numbering: Numbering | None = None,
    steps: int = 4_000,
    chains: int = 3,
    seed: int = 0,
    seconds: float = float("inf"),
) -> Likeliest:
    """The listing that was most probably drawn, of those with the weights of a program that was found.

    Args:
        program: that was found, and whose own weights are those given.
        order: whether the weights have the directions of each S-op in the order of its values.
        numbering: that order, where it is not the program's own.
        steps: of each chain.
        chains: each from a record of its own.
        seconds: after which no chain goes on; what was met by then is used.
    """
    until = monotonic() + seconds
    imprint = imprint_of(program, order, numbering)
    met: Counter[bytes] = Counter()
    walked = 0
    for number in range(chains if imprint is not None else 0):
        random = Random(f"likeliest {seed} {number}")
        assert imprint is not None
        record = reconstructed(program, imprint, random) if monotonic() < until else None
        if record is None:
            continue
        walk = Walk(record, random, alike=matcher_of(record, order), moves=True)
        path = []
        for _ in range(steps):
            path.append(walk.step())
            if monotonic() > until:
                break
        met.update(path[int(UNHEARD * len(path)) :])
        walked += 1
    if not met:
        return Likeliest(nearest_lines(program), float("nan"), float("nan"), 0, 0)
    lines, expected, exact = chosen(list(met), np.array(list(met.values()), float))
    return Likeliest(lines, expected, exact, len(met), walked)


def chosen(targets: Sequence[bytes], counts: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Of a sample of listings that which promises most, its expected share of right tokens, its chance to be exact."""
    every = np.stack([np.frombuffer(one, np.uint8).reshape(-1, FIELDS)[1 : MOST_LINES + 1] for one in targets])
    every = every.astype(np.int64)
    shares = counts / counts.sum()
    wirings: dict[bytes, list[int]] = {}
    for place, lines in enumerate(every):
        wired = np.where(_WIRED[lines[:, 1:4]], lines[:, 1:4], 0)
        wirings.setdefault(np.column_stack([lines[:, 0], wired]).tobytes(), []).append(place)
    common = sorted(wirings.values(), key=lambda places: -shares[places].sum())[:WIRINGS]
    candidates = [_by_line(every[places], shares[places]) for places in common]
    candidates.append((_by_field(every, shares), 0.0))
    asked = (every != 0).sum((1, 2))
    best = (-1.0, every[0], 0.0, 0.0)
    for lines, exact in candidates:
        expected = float((shares * ((every == lines) & (every != 0)).sum((1, 2)) / asked).sum())
        best = max(best, (expected + exact, lines, expected, exact), key=lambda one: one[0])
    return best[1], best[2], best[3]


def _by_line(every: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, float]:
    """The commonest way to write each line, and how probable all of them are together were lines independent."""
    lines, chance = np.zeros(every.shape[1:], np.int64), float(shares.sum())
    for number in range(every.shape[1]):
        own: dict[bytes, float] = {}
        for line, share in zip(every[:, number], shares, strict=True):
            own[line.tobytes()] = own.get(line.tobytes(), 0.0) + share
        best = max(own, key=own.__getitem__)
        lines[number] = np.frombuffer(best, np.int64)
        chance *= own[best] / float(shares.sum())
    return lines, chance


def _by_field(every: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The commonest token of each field."""
    lines = np.zeros(every.shape[1:], np.int64)
    for place in np.ndindex(lines.shape):
        lines[place] = np.bincount(every[:, *place], weights=shares).argmax()
    return lines


def nearest_lines(program: Program) -> np.ndarray:
    """(15, 5) a program's own lines, where a function or predicate has no token the commonest there is; all padding
    where it is too long."""
    made = {id(tokens): tokens, id(indices): indices}
    for node in program.nodes:
        if node is tokens or node is indices:
            continue
        new = rebuild(node, [made[id(child)] for child in node.children], None)
        if isinstance(new, Map) and recognise(new.function) is None:
            new = Map("3 + x", new.inner)
        elif isinstance(new, SequenceMap) and recognise(new.function) is None:
            new = SequenceMap("x + y", new.first, new.second)
        elif isinstance(new, Select):
            try:
                PAPER.encode(Program.of(_width(new)))
            except RaspError:
                new = Select(new.keys, new.queries, "EQ")
        made[id(node)] = new
    output = made[id(program.output)]
    assert isinstance(output, SOp)
    try:
        return target_lines(Program.of(output))
    except RaspError:
        return np.zeros((MOST_LINES, FIELDS), np.int64)


def _width(selector: Select) -> SOp:
    return SelectorWidth(Select(tokens, tokens, selector.predicate))
