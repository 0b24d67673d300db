"""Strings that are drawn: as those given are made, as far as that can be seen, and off their distribution."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from weightspace.decompiler.trained.asked import BOS, EOS, SEP, Asked, Strings

LONGEST_ANSWER = 100
"""Tokens after which an answer without `<eos>` is cut, where its question is shorter than half of that."""
Answers = Callable[[Strings], np.ndarray]
"""What somebody, a network or a program, answers on strings."""


@dataclass(frozen=True)
class Questions:
    """What the questions of some inputs have in common.

    Attributes:
        letters: that occur in them.
        lengths: that occur.
        distinct: whether no letter stands twice in a question.
        fresh_pairs: whether no pair of neighbours does.
        rising: whether numbers rise.
        once: letters that stand exactly once in each, and neither first nor last.
        answers: how many tokens an answer has, where that is always the same number; else it ends with `<eos>`.
        multiple: a number of which all lengths are multiples.
    """

    letters: tuple[int, ...]
    lengths: tuple[int, ...]
    distinct: bool
    fresh_pairs: bool
    rising: bool
    once: tuple[int, ...]
    answers: int | None
    multiple: int

    @staticmethod
    def seen(asked: Asked, strings: Strings) -> Questions:
        """What the strings given show."""
        separator = asked.number(SEP)
        questions = [row[1 : row.index(separator)] if separator in row else row[1:] for row in strings.rows()]
        letters = sorted({token for question in questions for token in question})
        lengths = tuple(sorted({len(question) for question in questions}))
        counts = {int(count) for count in strings.asked.sum(1)}
        many = [question for question in questions if len(question) > 1]
        once = tuple(
            letter for letter in letters
            if many and all(q.count(letter) == 1 and letter not in (q[0], q[-1]) for q in many)
        )  # fmt: skip
        values = {i: int(asked.vocab[i]) for i in letters if asked.vocab[i].isdigit()}
        numeric = len(values) == len(letters) and len(letters) > 2
        return Questions(
            tuple(letters) if len(letters) * 2 <= len(asked.letters) else asked.letters,
            lengths,
            len(letters) > 2 and all(len(set(question)) == len(question) for question in many),
            len(letters) > 2 and all(len(set(_pairs(question))) == len(question) - 1 for question in many),
            numeric and bool(many) and all(values[a] < values[b] for q in many for a, b in _pairs(q)),
            once,
            counts.pop() if len(counts) == 1 else None,
            int(np.gcd.reduce(lengths)) if len(lengths) > 2 else 1,
        )

    def suits(self, question: Sequence[int]) -> bool:
        """Whether a question is like those seen, apart from its length."""
        pairs = _pairs(question)
        return not (
            (self.distinct and len(set(question)) < len(question))
            or (self.fresh_pairs and len(set(pairs)) < len(pairs))
            or (self.rising and any(a >= b for a, b in pairs))
            or any(question.count(x) != 1 or x in (question[0], question[-1]) for x in self.once)
        )

    def draw(self, length: int, generator: np.random.Generator) -> list[int] | None:
        """A question of a length, or None if luck has none."""
        letters = [letter for letter in self.letters if letter not in self.once]
        for _ in range(50):
            if self.distinct:
                if length > len(letters):
                    return None
                question = generator.permutation(letters)[:length].tolist()
            else:
                question = self._walk(letters, length, generator)
            for letter in self.once if length > 2 else ():
                question[int(generator.integers(1, length - 1))] = letter
            if self.rising:
                question.sort()
            if self.suits(question):
                return question
        return None

    def _walk(self, letters: list[int], length: int, generator: np.random.Generator) -> list[int]:
        """Letters one by one, without pairs that were there where these are fresh; as unequal as inputs often are."""
        weights = generator.dirichlet(np.ones(len(letters))) if len(letters) <= 4 else None
        question, used = [], set()
        for _ in range(length):
            options = [
                x for x in letters if not (self.fresh_pairs and question and (question[-1], x) in used)
            ] or letters
            chance = None if weights is None or len(options) < len(letters) else weights
            letter = int(generator.choice(options, p=chance))
            if question:
                used.add((question[-1], letter))
            question.append(letter)
        return question


def _pairs(row: Sequence[int]) -> list[tuple[int, int]]:
    return list(itertools.pairwise(row))


# -- on the distribution --------------------------------------------------------------------------------------------


def answered(asked: Asked, questions: Sequence[Sequence[int]], answers: Answers, count: int | None) -> Strings:
    """Questions with the answers that somebody gives, token by token.

    Args:
        answers: who gives them.
        count: of an answer's tokens; None if it ends with `<eos>`.
    """
    bos, separator, end = (asked.number(text) for text in (BOS, SEP, EOS))
    rows = [[bos, *question, separator] for question in questions]
    first = [len(row) - 1 for row in rows]
    growing = list(range(len(rows)))
    step = 0
    while growing:
        part = Strings.of([rows[i] for i in growing])
        given = answers(part)
        kept = []
        for row, i in enumerate(growing):
            token = int(given[row, len(rows[i]) - 1])
            rows[i].append(max(token, 0))
            full = len(rows[i]) >= asked.positions or step > max(2 * len(questions[i]), LONGEST_ANSWER)
            if token >= 0 and not full and (step + 1 < count if count else token != end):
                kept.append(i)
        growing, step = kept, step + 1
    return Strings.of(rows, [range(start, len(row) - 1) for start, row in zip(first, rows, strict=True)])


def walked(asked: Asked, answers: Answers, lengths: Sequence[int], seed: int) -> Strings:
    """Strings whose every token was allowed by somebody where it stands, each cut where it may end.

    Args:
        answers: who says what is allowed.
        lengths: of each string, `<bos>` left out; some become shorter.
    """
    generator = np.random.default_rng(seed)
    rows = [[asked.number(BOS)] for _ in lengths]
    end = asked.number(EOS)
    ends = [0 for _ in rows]
    growing = list(range(len(rows)))
    shape = [generator.dirichlet(np.ones(len(asked.letters))) for _ in rows]
    while growing:
        given = answers(Strings.of([rows[i] for i in growing]))
        kept = []
        for row, i in enumerate(growing):
            allowed = given[row, len(rows[i]) - 1]
            if end >= 0 and allowed[end]:
                ends[i] = len(rows[i])
            chance = shape[i] * allowed[list(asked.letters)]
            if len(rows[i]) <= min(lengths[i], asked.positions - 1) and chance.sum() > 0:
                rows[i].append(int(generator.choice(asked.letters, p=chance / chance.sum())))
                kept.append(i)
        growing = kept
    whole = [row[:cut] for row, cut in zip(rows, ends, strict=True) if cut > 1]
    return Strings.of(whole or [row for row in rows if len(row) > 1])


def short_questions(like: Questions, most: int) -> list[list[int]]:
    """All questions like those given up to a length, the short first."""
    found: list[list[int]] = []
    for length in range(1, 6):
        if length not in like.lengths and not (len(like.lengths) > 5 and length % like.multiple == 0):
            continue
        if len(like.letters) ** length > 4 * most:
            break
        found += [list(q) for q in itertools.product(like.letters, repeat=length) if like.suits(q)]
    return found[:most]


# -- off the distribution -------------------------------------------------------------------------------------------


def random_strings(asked: Asked, count: int, longest: int, seed: int) -> Strings:
    """Letters drawn one by one after `<bos>`, of lengths from 1 up."""
    generator = np.random.default_rng(seed)
    longest = min(longest, asked.positions - 1)
    bos = asked.number(BOS)
    lengths = generator.integers(1, longest + 1, count)
    return Strings.of([[bos, *generator.choice(asked.letters, length).tolist()] for length in lengths])


def corrupted(asked: Asked, strings: Strings, letters: Sequence[int], seed: int) -> Strings:
    """Inputs with one token of the answer replaced by a random letter; asked from there on."""
    generator = np.random.default_rng(seed)
    rows, places = [], []
    for row, chosen in zip(strings.rows(), strings.asked, strict=True):
        answer = np.flatnonzero(chosen)
        inside = [int(place) for place in answer[1:] if place < len(row) - 1 or row[place] != asked.number(EOS)]
        if not inside:
            continue
        where = int(generator.choice(inside))
        row[where] = int(generator.choice([letter for letter in letters if letter != row[where]] or list(letters)))
        rows.append(row)
        places.append([int(place) for place in answer if place >= where])
    return Strings.of(rows, places) if rows else strings.take(slice(0, 0))
