"""A trained transformer to a program: inputs, search, proof on all short inputs, and where its S-ops are held."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from weightspace import clock
from weightspace.decompiler.trained.answering import program_answers
from weightspace.decompiler.trained.asked import EOS, Asked, Strings, same
from weightspace.decompiler.trained.drawing import (
    Answers,
    Questions,
    answered,
    corrupted,
    random_strings,
    short_questions,
    walked,
)
from weightspace.decompiler.trained.exhaustive import MOST, Compared, of_language, of_questions, over_alphabet
from weightspace.decompiler.trained.inside import held_sops
from weightspace.decompiler.trained.result import Held, TrainedDecompilation
from weightspace.decompiler.trained.search import Found, search
from weightspace.evaluation.metrics import Tally
from weightspace.rasp.program import Program
from weightspace.rasp.readable import count_lines, readable_text

CHOOSING = 60
"""Inputs by which one of the programs found is chosen, at most a third of those that are not searched on."""
GIVEN = 60
"""With as many short inputs given to judge by, none are drawn."""
OTHERS = 3
"""Other ways to write a program that are tried where not all of its S-ops are located."""
LEAST_WRONG = 0.005
"""Share of them that has to be answered wrong for it."""
REFINING, COUNTEREXAMPLES = 10_000, 40
"""Inputs that are enumerated for a second search, and of those answered wrong so many that it is made on."""
CHOICES = 5
"""Programs among which it is chosen."""
CLOSE = 0.75
"""Weight of wrong answers off the distribution, three of them, below which two programs are as good."""
SHORT_QUESTIONS = 60
"""Of all short questions so many are searched on too: ties and ends show there."""
SHORT = 50
"""Length of the inputs that are searched on: letters, or letters of a question."""


@dataclass(frozen=True)
class Settings:
    """How much is tried.

    Attributes:
        searched: places of inputs that are searched on, about.
        drawn: inputs that are drawn anew to hold the program against.
        most: inputs that are enumerated at most.
        seconds: for each enumeration.
        largest, quota: of the S-ops that are tried, see `search`.
        locate: whether the program's S-ops are looked for inside.
        seed: of whatever is drawn.
    """

    searched: int = 2_400
    drawn: int = 200
    most: int = MOST
    seconds: float = 20.0
    largest: int = 5
    quota: int = 350
    locate: bool = True
    seed: int = 0


def settings_for(seconds: float, seed: int = 0) -> Settings:
    """The settings of a budget: below 5 seconds fewer S-ops are tried too."""
    return Settings(seconds=seconds, quota=int(min(350, max(60, 70 * seconds))), seed=seed)


def decompile_trained(
    asked: Asked, strings: Strings, settings: Settings = Settings(), wanted: np.ndarray | None = None
) -> TrainedDecompilation:
    """The program that answers as a trained transformer does, as far as one was found.

    Args:
        strings: inputs, at least 20; those that are short are searched on, some 100, and the others judge.
        wanted: the right answers, in the form of `Asked.given`, if they are known.
    Raises:
        NetworkError: if an input is longer than the network's positions.
    """
    start = clock.now()
    timing: dict[str, float] = {}

    def lap(name: str) -> None:
        timing[name] = clock.now() - start - sum(timing.values())

    on, held_out, rest = split_inputs(strings, settings)
    off = off_distribution(asked, on, settings.seed)
    if asked.kind == "answers":
        like = Questions.seen(asked, strings)
        short = short_questions(like, SHORT_QUESTIONS)
        on = Strings.joined(on, answered(asked, short, asked.given, like.answers)) if short else on
    found = search(asked, on, off, largest=settings.largest, quota=settings.quota)
    lap("search")
    best = _best(asked, found.programs, strings.take(held_out))
    if best is not None:
        best = _refined(asked, best, on, off, strings, held_out, settings)
    lap("choice")
    if best is None:
        nothing = Tally(0, 0)
        return TrainedDecompilation(None, asked.kind, nothing, nothing, nothing, None, seconds=clock.now() - start)
    program, held = best.program, ()
    if settings.locate:
        program, held = _located(asked, best, strings, settings)
    lap("locating")
    answers = answers_of(asked, program)
    match, longer = _matches(asked, answers, strings.take(rest), settings)
    fresh_off = off_distribution(asked, strings.take(rest[: len(on)]), settings.seed + 1)
    off_share = agreement(asked, answers, fresh_off)
    lap("match")
    every, alphabet = _every(asked, answers, strings, settings)
    lap("proof")
    return TrainedDecompilation(
        program, asked.kind, match, longer, off_share, every, alphabet, held,
        found.tried, found.kept, clock.now() - start, timing=timing,
        in_language=_in_language(asked, strings, wanted),
    )  # fmt: skip


def _in_language(asked: Asked, strings: Strings, wanted: np.ndarray | None) -> float:
    """Of short inputs the share on which the network is right, or at least allows each token, or answers it."""
    short = sizes_of(strings) <= SHORT
    some = strings.take(short)
    if not len(some):
        return 0.0
    given = asked.given(some)
    if wanted is not None:
        return float(same(asked.kind, some, given, wanted[short][:, : some.codes.shape[1]]).all(1).mean())
    after = np.maximum(some.codes[:, 1:], 0)
    real = (some.codes[:, 1:] >= 0) & some.asked[:, :-1]
    if asked.kind == "answers":
        return float(((given[:, :-1] == after) | ~real).all(1).mean())
    allowed = np.take_along_axis(given[:, :-1], after[:, :, None].astype(np.int64), axis=2)[:, :, 0]
    ends = given[:, :, asked.number(EOS)].any() if asked.number(EOS) >= 0 else True
    return float((allowed | ~real).all(1).mean()) if ends else 0.0


def answers_of(asked: Asked, program: Program) -> Answers:
    """What a program answers, as the network is asked."""
    return lambda strings: program_answers(program, asked.vocab, asked.kind, strings)


def sizes_of(strings: Strings) -> np.ndarray:
    """By which inputs are short: tokens after `<bos>`, or of questions and answers those of the longer part."""
    first = strings.asked.argmax(1)
    return np.where(first > 0, np.maximum(first, strings.asked.sum(1)), strings.lengths) - 1


def split_inputs(strings: Strings, settings: Settings) -> tuple[Strings, np.ndarray, np.ndarray]:
    """Short inputs for the search, the numbers of those by which programs are chosen, and of those that judge."""
    order = np.random.default_rng(settings.seed).permutation(len(strings))
    sizes, lengths, asks = sizes_of(strings), strings.lengths, strings.asked.sum(1)
    short = [number for number in order if sizes[number] <= SHORT]
    chosen, places = [], 0
    for number in short:
        if places > settings.searched or len(chosen) >= max(10, len(short) // 2):
            break
        chosen.append(number)
        places += int(lengths[number]) if asks[number] > 3 else int(lengths[number]) // 2
    taken = set(chosen)
    rest = np.array([number for number in order if number not in taken], int)
    choosing = min(CHOOSING, len(rest) // 3)
    return strings.take(np.array(chosen, int)), rest[:choosing], rest[choosing:]


def off_distribution(asked: Asked, strings: Strings, seed: int) -> Strings:
    """Strings off the distribution: random ones, or inputs with a corrupted answer, or else random questions."""
    if asked.kind == "sets":
        return random_strings(asked, max(len(strings) // 2, 20), SHORT, seed)
    like = Questions.seen(asked, strings)
    wrong = corrupted(asked, strings, like.letters, seed)
    if len(wrong):
        return wrong
    generator = np.random.default_rng(seed)
    questions = [generator.choice(like.letters, int(generator.integers(1, SHORT + 1))).tolist() for _ in range(60)]
    return answered(asked, questions, asked.given, like.answers)


def _refined(
    asked: Asked, best: Found, on: Strings, off: Strings, strings: Strings, held_out: np.ndarray, settings: Settings
) -> Found:
    """The program, or that of a second search on inputs too that it answers wrong, if it is wrong on half as many."""
    few = replace(settings, most=REFINING, seconds=min(settings.seconds, 4.0))
    first, _ = _every(asked, answers_of(asked, best.program), strings, few, alphabet=False)
    if first is None or first.examples is None or first.wrong < LEAST_WRONG * first.inputs:
        return best
    order = np.random.default_rng(settings.seed).permutation(len(first.examples))[:COUNTEREXAMPLES]
    more = Strings.joined(on, first.examples.take(order))
    found = search(asked, more, off, largest=settings.largest, quota=settings.quota)
    second = _best(asked, found.programs, strings.take(held_out))
    if second is None:
        return best
    other, _ = _every(asked, answers_of(asked, second.program), strings, few, alphabet=False)
    right, before = (
        agreeing(asked, answers_of(asked, each.program), strings.take(held_out)).mean() for each in (second, best)
    )
    fewer = other is not None and other.wrong * 2 <= first.wrong and other.length >= first.length
    return second if fewer and right >= before - 0.02 else best


def _best(asked: Asked, programs: tuple[Found, ...], held_out: Strings) -> Found | None:
    """Of programs that match inputs not searched on as well as any, the one that is best off the distribution."""
    scored = []
    for place, each in enumerate(_shortest(programs)):
        right = agreeing(asked, answers_of(asked, each.program), held_out)
        scored.append((int(right.sum()), each, place))
    if not scored:
        return None
    most = max(score for score, _, _ in scored)
    near = [entry for entry in scored if entry[0] >= most - 0.02 * len(held_out)]
    least = min(entry[1].off_error for entry in near)
    near = [entry for entry in near if entry[1].off_error <= least + CLOSE]
    return min(near, key=lambda entry: (_lines(entry[1]), entry[1].error, entry[2]))[1]


def _shortest(programs: tuple[Found, ...]) -> list[Found]:
    """The programs proposed, of those that are wrong as often only the shortest, and a few in all."""
    kept: dict[tuple[float, float], Found] = {}
    for each in programs:
        key = (each.error, each.off_error)
        if key not in kept or _lines(each) < _lines(kept[key]):
            kept[key] = each
    return [*kept.values()][:CHOICES]


def _lines(found: Found) -> int:
    return count_lines(readable_text(found.program))


def agreeing(asked: Asked, answers: Answers, strings: Strings) -> np.ndarray:
    """On which inputs network and program agree at every place."""
    return np.asarray(same(asked.kind, strings, asked.given(strings), answers(strings)).all(1))


def agreement(asked: Asked, answers: Answers, strings: Strings) -> Tally:
    """At how many places network and program agree."""
    if not len(strings):
        return Tally(0, 0)
    equal = same(asked.kind, strings, asked.given(strings), answers(strings))
    return Tally(int((equal & strings.asked).sum()), int(strings.asked.sum()))


def _matches(asked: Asked, answers: Answers, rest: Strings, settings: Settings) -> tuple[Tally, Tally]:
    """How often they agree on inputs not searched on, given ones and ones drawn anew: short and long."""
    right, sizes = agreeing(asked, answers, rest), sizes_of(rest)
    short, long = right[sizes <= SHORT], right[sizes > SHORT]
    wanted = settings.drawn if len(short) < GIVEN else 0
    fresh = drawn_anew(asked, answers, rest, wanted, settings.seed + 2) if wanted else rest.take(slice(0, 0))
    more = agreeing(asked, answers, fresh) if len(fresh) else np.zeros(0, bool)
    return (
        Tally(int(short.sum() + more.sum()), len(short) + len(more)),
        Tally(int(long.sum()), len(long)),
    )


def drawn_anew(asked: Asked, answers: Answers, like: Strings, count: int, seed: int) -> Strings:
    """Inputs of length 1 to `SHORT` as those given are made, as far as that can be seen."""
    generator = np.random.default_rng(seed)
    if asked.kind == "sets":
        return walked(asked, answers, generator.integers(1, SHORT + 1, count).tolist(), seed)
    seen = Questions.seen(asked, like)
    lengths = [length for length in seen.lengths if length <= SHORT]
    drawn = [seen.draw(int(generator.choice(lengths)), generator) for _ in range(count)] if lengths else []
    return (
        answered(asked, [question for question in drawn if question], answers, seen.answers)
        if drawn
        else like.take(slice(0, 0))
    )


def _every(
    asked: Asked, answers: Answers, strings: Strings, settings: Settings, alphabet: bool = True
) -> tuple[Compared | None, Compared | None]:
    limits = {"most": settings.most, "seconds": settings.seconds}
    if asked.kind == "sets":
        every = of_language(asked, answers, **limits)
        return every, over_alphabet(asked, answers, **limits) if alphabet else None
    return of_questions(asked, answers, Questions.seen(asked, strings), **limits), None


def _located(asked: Asked, best: Found, strings: Strings, settings: Settings) -> tuple[Program, tuple[Held, ...]]:
    """Of a program, and others that are the same where it was searched, that of which most S-ops are located."""
    end = clock.now() + settings.seconds * 4
    first = answers_of(asked, best.program)
    fresh = drawn_anew(asked, first, strings, 200, settings.seed + 3)
    both = Strings.joined(strings, fresh) if len(fresh) else strings
    right = agreeing(asked, first, both)
    some = both.take(np.flatnonzero(right))
    if len(some) < 16:
        return best.program, ()
    scored: list[tuple[int, int, Program, tuple[Held, ...]]] = []
    for place, program in enumerate(chain((best.program,), _others(best))):
        if place and not agreeing(asked, answers_of(asked, program), some).all():
            continue
        left = max(end - clock.now(), 1.0)
        held = held_sops(asked, program, some, seconds=left, seed=settings.seed)
        missing = sum(not each.located for each in held)
        scored.append((missing, place, program, held))
        if not missing or clock.now() > end:
            break
    _, _, program, held = min(scored, key=lambda entry: entry[:2])
    return program, held


def _others(found: Found) -> Iterator[Program]:
    """The program's other forms, made when they are needed."""
    yield from found.others()[:OTHERS]
