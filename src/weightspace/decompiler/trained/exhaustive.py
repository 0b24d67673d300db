"""Every input up to a length: those over the alphabet, and those of the language or the task that inputs show."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from weightspace import clock
from weightspace.decompiler.trained.asked import BOS, SEP, Asked, Strings, same
from weightspace.decompiler.trained.drawing import Answers, Questions, answered

MOST = 1_000_000
"""Inputs that are enumerated at most."""
AT_ONCE = 20_000
EXAMPLES = 40
"""Inputs that are answered differently of which so many of each part are kept."""


@dataclass(frozen=True)
class Compared:
    """A network and a program on every input of some kind up to a length.

    Attributes:
        what: over what the inputs are: `alphabet`, all strings; `language`, those that the program allows token by
            token; `questions`, those like the ones given, with the program's answers.
        length: of the longest, `<bos>` left out and of answers the question alone; 0 if none was reached.
        inputs: how many there are, each beginning of a longer one counted where sets are asked.
        wrong: of them that are answered differently somewhere.
        counterexample: the shortest of these.
        sizes: how many inputs there are of each length from 0 up.
        examples: some of those that are answered differently.
        whole: whether there is no longer input, as the network has no more positions or the language no more strings.
    """

    what: str
    length: int
    inputs: int
    wrong: int
    counterexample: tuple[str, ...] | None
    sizes: tuple[int, ...] = ()
    examples: Strings | None = field(default=None, repr=False, compare=False)
    whole: bool = False

    @property
    def equal(self) -> bool:
        """Whether program and network agree on all, of which there are some."""
        return self.inputs > 0 and self.wrong == 0 and self.length > 0

    @property
    def agreed_length(self) -> int:
        """The length up to which they agree on all; -1 if they do on none."""
        if self.counterexample is None:
            return self.length if self.inputs else -1
        if self.what == "questions":
            separator = self.counterexample.index(SEP) if SEP in self.counterexample else len(self.counterexample)
            return separator - 2
        return len(self.counterexample) - 2

    @property
    def agreed(self) -> int:
        """How many inputs that are."""
        return self.inputs if self.equal else sum(self.sizes[: self.agreed_length + 1])


def over_alphabet(asked: Asked, program: Answers, *, most: int = MOST, seconds: float = 30.0) -> Compared:
    """All strings of letters up to the longest length with at most `most` of them, if there is time for all.

    A causal network answers on each beginning of a string as on the whole, so only the longest are run.
    """
    size = len(asked.letters)
    longest, count = 0, 1
    while count + size ** (longest + 1) <= most and longest + 1 < asked.positions:
        longest += 1
        count += size**longest
    longest = _affordable(asked, program, size, longest, seconds)
    sizes = [size**length for length in range(longest + 1)]
    return compared(asked, program, "alphabet", longest, lambda: _all(asked, longest), sizes)


def _affordable(asked: Asked, program: Answers, size: int, longest: int, seconds: float) -> int:
    """The longest length for whose strings there is time, by that of a few."""
    while longest > 1:
        few = next(_all(asked, longest))
        few = few.take(slice(0, 2_000))
        start = clock.now()
        asked.given(few)
        program(few)
        needed = (clock.now() - start) / len(few) * size**longest
        if needed <= seconds:
            break
        longest -= max(1, int(np.log(needed / seconds) / np.log(max(size, 2))))
    return max(longest, 1)


def _all(asked: Asked, length: int) -> Iterator[Strings]:
    """All strings of a length."""
    size = len(asked.letters)
    letters = np.array(asked.letters, np.int16)
    for start in range(0, size**length, AT_ONCE):
        number = np.arange(start, min(start + AT_ONCE, size**length))
        digits = number[:, None] // size ** np.arange(length - 1, -1, -1) % size
        codes = np.concatenate([np.full((len(number), 1), asked.number(BOS), np.int16), letters[digits]], 1)
        yield Strings(codes, codes >= 0)


def of_language(asked: Asked, program: Answers, *, most: int = MOST, seconds: float = 30.0) -> Compared:
    """All strings whose every token the program allows, up to the longest length with at most `most` of them.

    Where the network allows another token after some string, the two differ there, so that as long as they agree these
    are the strings that the network allows too.
    """
    end = clock.now() + seconds / 2
    cost = 0.0  # seconds of the network for a token
    frontier = np.array([[asked.number(BOS)]], np.int16)
    finished: list[np.ndarray] = []
    count, length, sizes = 1, 0, [1]
    while length + 1 < asked.positions:
        longer, stopped = _extended(asked, program, frontier)
        if len(longer) > 500 and not cost:
            cost = _seconds(asked, longer[:500]) / (500 * longer.shape[1])
        if count + len(longer) > most or clock.now() > end or cost * longer.size > seconds / 2:
            break
        finished += [stopped] if len(stopped) else []
        if not len(longer):
            frontier = longer
            break
        frontier, length, count = longer, length + 1, count + len(longer)
        sizes.append(len(longer))

    def parts() -> Iterator[Strings]:
        for codes in [frontier, *finished]:
            for start in range(0, len(codes), AT_ONCE):
                part = codes[start : start + AT_ONCE]
                yield Strings(part, part >= 0)

    found = compared(asked, program, "language", length, parts, sizes)
    return replace(found, whole=length + 1 >= asked.positions or not len(frontier))


def _seconds(asked: Asked, codes: np.ndarray) -> float:
    """What the network takes for some strings."""
    start = clock.now()
    asked.given(Strings(codes, codes >= 0))
    return clock.now() - start


def _extended(asked: Asked, program: Answers, frontier: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Strings that are one token longer, and those that no letter may follow."""
    longer, stopped = [], []
    for start in range(0, len(frontier), AT_ONCE):
        codes = frontier[start : start + AT_ONCE]
        allowed = program(Strings(codes, codes >= 0))[:, -1]
        stopped.append(codes[~allowed[:, list(asked.letters)].any(1)])
        for letter in asked.letters:
            some = codes[allowed[:, letter]]
            longer.append(np.concatenate([some, np.full((len(some), 1), letter, np.int16)], 1))
    return np.concatenate(longer), np.concatenate(stopped)


def of_questions(
    asked: Asked, program: Answers, like: Questions, *, most: int = MOST, seconds: float = 30.0
) -> Compared:
    """All questions like those given, up to the longest length with at most `most`, with the program's answers.

    An answer of the network that differs is found at the first place where it does, as what stands before is the same.
    """
    letters = [letter for letter in like.letters if letter not in like.once]
    size, longest, total = len(like.letters), 0, 0
    fixed = len(like.lengths) == 1
    for length in range(1, asked.positions):
        if total + size**length > most or (fixed and length > like.lengths[0]):
            break
        longest, total = length, total + (0 if fixed else size**length)
    if not letters or not longest:
        return Compared("questions", 0, 0, 0, None)
    end = clock.now() + seconds
    lengths = [n for n in range(1, longest + 1) if n % like.multiple == 0 and (not fixed or n == like.lengths[0])]
    found = Compared("questions", 0, 0, 0, None)
    for length in lengths:
        start = clock.now()
        part, complete = _questions_of(asked, program, like, length, end)
        if not complete:
            # not all of this length: nothing is said of it but what was found wrong
            return replace(_joined(found, part), length=found.length, sizes=found.sizes)
        found = _joined(found, part)
        if clock.now() + (clock.now() - start) * size**like.multiple > end:
            break
    return found


def _questions_of(asked: Asked, program: Answers, like: Questions, length: int, end: float) -> tuple[Compared, bool]:
    """Program and network on the questions of a length, and whether there was time for all of them."""
    complete = True

    def parts() -> Iterator[Strings]:
        nonlocal complete
        suited = (q for q in itertools.product(like.letters, repeat=length) if like.suits(q))
        size = 500
        while part := list(itertools.islice(suited, size)):
            if clock.now() > end:
                complete = False
                return
            start = clock.now()
            yield answered(asked, part, program, like.answers)
            size = AT_ONCE if clock.now() - start < 1.0 else 500

    return compared(asked, program, "questions", length, parts), complete


def _joined(first: Compared, second: Compared) -> Compared:
    if not second.inputs:
        return first
    counterexample = first.counterexample or second.counterexample
    inputs, wrong = first.inputs + second.inputs, first.wrong + second.wrong
    sizes = (*first.sizes, *[0] * (second.length - len(first.sizes)), second.inputs)
    examples = first.examples or second.examples
    if first.examples is not None and second.examples is not None:
        examples = Strings.joined(first.examples, second.examples)
    return Compared(second.what, second.length, inputs, wrong, counterexample, sizes, examples)


def compared(
    asked: Asked,
    program: Answers,
    what: str,
    length: int,
    parts: Callable[[], Iterator[Strings]],
    sizes: Sequence[int] = (),
) -> Compared:
    """A network and a program on strings that come in parts.

    Args:
        sizes: how many there are of each length, where each beginning of a string is one.
    """
    inputs = sum(sizes)
    wrong: set[bytes] = set()
    worst: tuple[int, tuple[int, ...]] | None = None
    kept: list[Strings] = []
    for strings in parts():
        equal = same(asked.kind, strings, asked.given(strings), program(strings))
        inputs += len(strings) if asked.kind == "answers" else 0
        for place in np.flatnonzero(~equal.all(0)):
            rows = np.unique(strings.codes[~equal[:, place], : place + 1], axis=0)
            if asked.kind == "answers":
                wrong.update(strings.codes[row].tobytes() for row in np.flatnonzero(~equal[:, place]))
            else:
                wrong.update(row.tobytes() for row in rows)
            text = tuple(rows[0].tolist())
            if worst is None or (len(text), text) < worst:
                worst = (len(text), text)
        different = np.flatnonzero(~equal.all(1))
        if len(different):
            kept.append(strings.take(different[:: max(1, len(different) // EXAMPLES)][:EXAMPLES]))
    shown = None if worst is None else tuple(asked.vocab[number] for number in worst[1])
    examples = Strings.joined(*kept) if kept else None
    return Compared(what, length, inputs, len(wrong), shown, tuple(sizes), examples)
