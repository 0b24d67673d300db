"""What a program for a trained transformer has to beat: tables of the last tokens, automata, trees on counts."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable

import numpy as np

from weightspace.decompiler.trained.asked import Asked, Strings

Baseline = Callable[[Strings], np.ndarray]
"""What is answered on strings, as a number for each different answer that was learnt; -1 for none."""
DEPTH = 6
FEW = 6
"""Of more letters than these no differences of counts are made."""


def labels_of(asked: Asked, given: np.ndarray) -> np.ndarray:
    """Answers as one number a place: sets by their bits."""
    if asked.kind == "answers":
        return given.astype(np.int64)
    return given @ (1 << np.arange(given.shape[-1], dtype=np.int64))


def last_tokens(strings: Strings, labels: np.ndarray, tokens: int) -> Baseline:
    """For each way in which the last tokens can stand the commonest answer."""
    seen: dict[Hashable, Counter[int]] = defaultdict(Counter)
    for row, asked, label in zip(strings.codes, strings.asked, labels, strict=True):
        for place in np.flatnonzero(asked):
            seen[_last(row, int(place), tokens)][int(label[place])] += 1
    table = {key: counts.most_common(1)[0][0] for key, counts in seen.items()}

    def answer(others: Strings) -> np.ndarray:
        found = np.full(others.codes.shape, -1, np.int64)
        for number, (row, asked) in enumerate(zip(others.codes, others.asked, strict=True)):
            for place in np.flatnonzero(asked):
                found[number, place] = table.get(_last(row, int(place), tokens), -1)
        return found

    return answer


def _last(row: np.ndarray, place: int, tokens: int) -> bytes:
    return row[max(0, place - tokens + 1) : place + 1].tobytes()


def automaton(strings: Strings, labels: np.ndarray) -> tuple[Baseline, int] | None:
    """The automaton that RPNI learns from the answers at each place, and how many states it has.

    None where AALpy is not installed (`pip install weightspace[automata]`), or no automaton fits.
    """
    try:
        from aalpy.learning_algs import run_RPNI
    except ImportError:
        return None
    data = {}
    for row, asked, label in zip(strings.rows(), strings.asked, labels, strict=True):
        for place in range(len(row)):
            data[tuple(row[: place + 1])] = int(label[place]) if asked[place] else -2
    learnt = run_RPNI([*data.items()], "moore", print_info=False)
    if learnt is None:
        return None

    def answer(others: Strings) -> np.ndarray:
        found = np.full(others.codes.shape, -1, np.int64)
        for number, row in enumerate(others.rows()):
            state = learnt.initial_state
            for place, token in enumerate(row):
                if token not in state.transitions:
                    break
                state = state.transitions[token]
                found[number, place] = state.output
        return found

    return answer, len(learnt.states)


def counts_tree(asked: Asked, strings: Strings, labels: np.ndarray, seed: int) -> Baseline:
    """A tree on how often each token has been seen, by how much more often than others, and which is the last."""
    from sklearn.tree import DecisionTreeClassifier

    model = DecisionTreeClassifier(max_depth=DEPTH, random_state=seed)
    model.fit(_counts(asked, strings)[strings.asked], labels[strings.asked])

    def answer(others: Strings) -> np.ndarray:
        found = np.full(others.codes.shape, -1, np.int64)
        if others.asked.any():
            found[others.asked] = model.predict(_counts(asked, others)[others.asked])
        return found

    return answer


def _counts(asked: Asked, strings: Strings) -> np.ndarray:
    counts = np.cumsum(strings.codes[:, :, None] == np.arange(len(asked.vocab)), axis=1)
    letters = asked.letters if len(asked.letters) <= FEW else ()
    parts = [counts, strings.codes[:, :, None]]
    parts += [(counts[:, :, a] - counts[:, :, b])[:, :, None] for a, b in itertools.combinations(letters, 2)]
    return np.concatenate(parts, 2).astype(np.float32)
