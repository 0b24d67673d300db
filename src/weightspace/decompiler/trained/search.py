"""From a network's answers to programs: S-ops are tried on some strings, and trees of them explain each answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from weightspace.decompiler.trained.answering import value_of
from weightspace.decompiler.trained.asked import EOS, SPECIAL, Asked, Strings
from weightspace.decompiler.trained.grammar import Grammar
from weightspace.decompiler.trained.naming import named
from weightspace.decompiler.trained.relabelling import as_tokens, relabelled
from weightspace.decompiler.trained.trees import Fit, Leaf, Table, Tree, fitted, varied
from weightspace.rasp.choices import NextTokens
from weightspace.rasp.language import walk
from weightspace.rasp.program import Program

OFF_WEIGHT = 0.25
"""What an answer off the distribution counts, beside 1 of one on it."""
MOST_CONSTANTS = 12
"""With more different answers than these, no leaf is one of them but `<eos>`."""
ALTERNATIVES = 8


@dataclass(frozen=True, eq=False)
class Found:
    """A program that the search proposes.

    Attributes:
        error, off_error: weights of wrong answers on the strings of the search, and off their distribution.
        others: programs that are the same on these strings, with one S-op written in another way.
    """

    program: Program
    error: float
    off_error: float
    others: Callable[[], list[Program]] = list


@dataclass(frozen=True, eq=False)
class Searched:
    """What a search has found.

    Attributes:
        programs: the best first.
        tried: S-ops that were made.
        kept: of these, those that differ.
    """

    programs: tuple[Found, ...]
    tried: int
    kept: int


def search(
    asked: Asked,
    on: Strings,
    off: Strings,
    *,
    off_weight: float = OFF_WEIGHT,
    depth: int = 3,
    line: float | None = None,
    largest: int = 5,
    quota: int = 350,
) -> Searched:
    """Programs that answer as the network does, the best first.

    Args:
        on: strings of the distribution, some 100.
        off: strings off it; by how well it explains these, a program that explains the others is chosen.
        off_weight: what an answer on those counts, beside 1; with 0 behaviour on the distribution alone decides.
        depth: of trees of conditions.
        line: wrong answers that a line more has to repair; unless given 1 of 1,500, but from 0.5 to 1.5.
        largest: cost of an S-op.
        quota: S-ops of one operator and cost.
    """
    both = Strings.joined(on, off) if len(off) else on
    given = asked.given(both)
    grammar = Grammar(both, asked.vocab, asked.kind, asked.letters, largest=largest, quota=quota)
    pool = grammar.fill()
    weights = both.asked.astype(np.float32)
    weights[len(on) :] *= off_weight
    line = float(np.clip(weights.sum() / 1_500, 0.5, 1.5)) if line is None else line
    table = Table(pool.features["bool"], weights)
    if asked.kind == "answers":
        tokens, numbers = pool.features["token"], pool.features["number"]
        renamed = relabelled([*tokens, *numbers], asked.vocab, given, weights)
        known = [*tokens, *as_tokens(numbers, asked.vocab, given, weights), *renamed]
        ends = sorted((Leaf(feature) for feature in known), key=lambda leaf: leaf.cost)
        fits = fitted(table, given, _constants(asked, given[both.asked]), ends, depth=depth, line=line)
        programs = [
            Found(
                named(fit.tree.node()),
                *_errors(np.asarray(fit.tree.values() != given), weights, len(on)),
                lambda tree=fit.tree: [named(other.node()) for (other,) in _others([tree])],
            )
            for fit in fits[: 2 * ALTERNATIVES]
        ]
    else:
        programs = _sets(asked, table, given, weights, len(on), depth, line)
    return Searched(tuple(programs), pool.tried, len(pool))


def _errors(wrong: np.ndarray, weights: np.ndarray, on: int) -> tuple[float, float]:
    weighted = wrong * weights
    return float(weighted[:on].sum()), float(weighted[on:].sum())


def _constants(asked: Asked, answers: np.ndarray) -> list[Leaf]:
    numbers = np.unique(answers)
    if len(numbers) > MOST_CONSTANTS:
        numbers = np.array([asked.number(EOS)] if asked.number(EOS) >= 0 else [], int)
    return [Leaf(None, int(number), shown=value_of(asked.vocab[number])) for number in numbers]


def _sets(
    asked: Asked, table: Table, given: np.ndarray, weights: np.ndarray, on: int, depth: int, line: float
) -> list[Found]:
    """Programs with a boolean S-op for each token; those that several tokens can share are preferred."""
    choices = {}
    known: dict[bytes, list[Fit]] = {}
    for number in range(len(asked.vocab)):
        target = given[:, :, number].astype(np.uint8)
        own = target[:on][weights[:on] > 0]
        if not own.any() or (asked.vocab[number] in SPECIAL and asked.vocab[number] != EOS):
            continue
        key = target[weights > 0].tobytes()
        if key not in known:
            constants = [Leaf(None, 0, shown=False), Leaf(None, 1, shown=True)]
            known[key] = fitted(table, target, constants, depth=depth, line=line)
        choices[number] = known[key]
    found, seen = [], set()
    for skipped in range(ALTERNATIVES):
        chosen = _shared(choices, skipped, line)
        key = tuple(id(fit.tree) for fit in chosen.values())
        if key in seen:
            continue
        seen.add(key)
        wrong = np.zeros(weights.shape, bool)
        for number, fit in chosen.items():
            wrong |= fit.tree.values() != given[:, :, number]
        tokens = [value_of(asked.vocab[number]) for number in chosen]
        trees = [fit.tree for fit in chosen.values()]
        output = NextTokens(tokens, [tree.node() for tree in trees])
        found.append(
            Found(
                named(output),
                *_errors(wrong, weights, on),
                lambda trees=trees, tokens=tokens: [
                    named(NextTokens(tokens, [tree.node() for tree in other])) for other in _others(trees)
                ],
            )
        )
    best = min((each.error + each.off_error for each in found), default=0.0)
    return [each for each in found if each.error + each.off_error <= best + 2 * line] or found


def _shared(choices: dict[int, list[Fit]], skipped: int, line: float) -> dict[int, Fit]:
    """For each token one of its best fits, such that all need few different S-ops.

    Args:
        skipped: how many of the best fits of the token with the most lines are left out.
    """
    chosen: dict[int, Fit] = {}
    used: set[int] = set()
    order = sorted(choices, key=lambda number: -choices[number][0].tree.cost)
    for place, number in enumerate(order):
        fits = choices[number][skipped if place == 0 else 0 :] or choices[number][-1:]
        near = [fit for fit in fits[:12] if fit.error <= fits[0].error + 0.5 * line]

        ranked = [(len(_nodes(fit) - used), fit.rank(line)[0], place) for place, fit in enumerate(near)]
        fit = near[min(ranked)[2]]
        chosen[number] = fit
        used |= _nodes(fit)
    return {number: chosen[number] for number in choices}


def _nodes(fit: Fit) -> set[int]:
    """The S-ops that a fit reads."""
    return {id(node) for feature in fit.tree.features() for node in walk(feature.node)}


def _others(trees: list[Tree]) -> list[list[Tree]]:
    """The trees with one feature in another of its expressions, the features that are read most first."""
    counts = Counter(id(feature) for tree in trees for feature in tree.features())
    features = {id(feature): feature for tree in trees for feature in tree.features()}
    found = []
    for key, _ in counts.most_common():
        for make in features[key].others:
            other = replace(features[key], make=make, others=[])
            found.append([varied(tree, features[key], other) for tree in trees])
    return found[:ALTERNATIVES]
