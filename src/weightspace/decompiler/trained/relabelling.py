"""Answers that are an S-op under other names: numbers as the tokens written so, and tokens each with another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weightspace.decompiler.trained.answering import value_of
from weightspace.decompiler.trained.pool import Feature
from weightspace.rasp.functions import Value
from weightspace.rasp.language import Map

MOST_VALUES = 40
"""With more different values than these an S-op is not given other names."""
LEAST_SEEN = 6
"""How often a value has to be seen for its name to be believed."""
SURE = 0.8
"""Share of the answers at a value that its name has to be."""
KEPT = 6
"""S-ops of each kind that are kept, those with the fewest errors: more would crowd out the ends of other trees."""
ENTRIES = 2
"""So many entries of a table cost as much as a line."""


def as_tokens(
    numbers: Sequence[Feature], vocab: Sequence[str], given: np.ndarray, weights: np.ndarray
) -> list[Feature]:
    """Numbers whose values are tokens that are written as numbers: of all S-ops those that are right most often.

    Args:
        given: (n, place) answers, numbers of tokens.
        weights: (n, place) what each answer counts.
    """
    written = {value: number for number, text in enumerate(vocab) if isinstance(value := value_of(text), int)}
    if not written:
        return []
    table = np.full(2**16, -1, np.int16)  # numbers below 0 wrap around to its end
    for value, number in written.items():
        if value < 2**15:
            table[value] = number
    found = [Feature("token", table[f.values], f.cost, f.operator, lambda f=f: f.node) for f in numbers]
    return _best(found, given, weights)


def relabelled(
    features: Sequence[Feature], vocab: Sequence[str], given: np.ndarray, weights: np.ndarray
) -> list[Feature]:
    """S-ops with few values, each of which is answered by the token that is answered most often where it stands.

    Args:
        features: tokens and numbers.
    """
    asked = weights > 0
    answers, counts = given[asked].astype(np.int64), weights[asked]
    least = LEAST_SEEN * float(counts.max(initial=0.0))
    found = []
    for feature in features:
        before = float(weights[feature.values != given].sum()) if feature.sort == "token" else np.inf
        known, codes = np.unique(feature.values[asked], return_inverse=True)
        if not 2 <= len(known) <= MOST_VALUES:
            continue
        votes = np.bincount(codes * len(vocab) + answers, counts, len(known) * len(vocab)).reshape(len(known), -1)
        said, seen = votes.argmax(1), votes.sum(1)
        if len(np.unique(said)) < 2:
            continue
        sure = (seen >= least) & (votes.max(1) >= SURE * seen)
        own = known[sure].tolist()
        names = {value: int(token) for value, token in zip(known.tolist(), said.tolist(), strict=True) if value in own}
        changed = _mapped(feature, names, vocab)
        if changed is not None and float(weights[changed.values != given].sum()) + changed.cost < before + feature.cost:
            found.append(changed)
    return _best(found, given, weights)


def _mapped(feature: Feature, names: dict[int, int], vocab: Sequence[str]) -> Feature | None:
    """A feature whose values have these names; others, and most of them, keep theirs or have the commonest."""
    tokens = feature.sort == "token"
    kept = {value: token for value, token in names.items() if tokens and value == token}
    others = {value: token for value, token in names.items() if value not in kept}
    if not others:
        return None
    rest = "x"
    values = feature.values.astype(np.int64)
    answer = values.copy()
    if not kept:  # no value keeps its name: the commonest name needs no entry
        name = max(set(others.values()), key=list(others.values()).count)
        rest, answer = repr(value_of(vocab[name])), np.full(values.shape, name)
        others = {value: token for value, token in others.items() if token != name}
    for value, token in others.items():
        answer[values == value] = token
    source = rest
    for value, token in sorted(others.items(), reverse=True):
        shown: Value = value if not tokens else value_of(vocab[value]) if 0 <= value < len(vocab) else ""
        source = f"{value_of(vocab[token])!r} if x == {shown!r} else {source}"
    cost = feature.cost + 1 + len(others) / ENTRIES
    return Feature("token", answer.astype(np.int16), cost, "relabelled", lambda: Map(source, feature.node))


def _best(found: list[Feature], given: np.ndarray, weights: np.ndarray) -> list[Feature]:
    alike: dict[bytes, Feature] = {}
    for feature in found:
        alike.setdefault(feature.values.tobytes(), feature)
    found = list(alike.values())
    errors = [float(weights[feature.values != given].sum()) for feature in found]
    order = sorted(range(len(found)), key=lambda number: errors[number] + found[number].cost)
    return [found[number] for number in order[:KEPT]]
