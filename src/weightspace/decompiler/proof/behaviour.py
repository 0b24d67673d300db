"""Whether a program's transformer answers as a given one does, on every input or on a sample of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from weightspace.decompiler.proof.certificate import Certificate, compiled_for, modes_of
from weightspace.rasp.compiler.agreement import EVERY, TOLERANCE, Counterexample, batches, same_value
from weightspace.rasp.compiler.bare import BareTransformer, Readout
from weightspace.rasp.compiler.transformer import CompiledTransformer, Output
from weightspace.rasp.functions import Value, is_number
from weightspace.rasp.language import BOS
from weightspace.rasp.program import Program
from weightspace.rasp.validate import Mode


@dataclass(frozen=True)
class Behaviour:
    """How a program's compiled forward pass compares with a target's.

    Attributes:
        inputs: how many there are, of length 1 to the longest.
        tried: how many of them were tried; of a sample, in which all lengths are equally likely, some may be the same.
        differing: on how many of these the two answers differ at any place.
        places, differing_places: places of these inputs, and on how many of them the answers differ.
        counterexample: the first of the shortest inputs on which they differ: what the target answers, and what the
            program does.
        seed: of the sample.
        mode: how the program was compiled.
        readout: how it was known where the target's answer stands: `given`, by the `certificate`'s permutation,
            `matched` (of the directions that are written and never read those that fit best, with the program's own
            values), or `none`: no directions that could be the program's answer, so that nothing was tried.
    """

    inputs: int
    tried: int
    differing: int
    places: int
    differing_places: int
    counterexample: Counterexample | None
    seed: int
    mode: str
    readout: str

    @property
    def exhaustive(self) -> bool:
        return self.tried >= self.inputs

    @property
    def equal(self) -> bool:
        """Whether something was compared, and no two answers differed."""
        return self.differing == 0 and self.readout != "none"

    @property
    def bound(self) -> float:
        """At 95% fewer than this share of inputs drawn like the sample, lengths equally likely, differ.

        0 if every input was tried, 1 if some differed or nothing was tried. It is no share of all inputs, of which most
        are long.
        """
        if self.differing or not self.tried:
            return 1.0
        return 0.0 if self.exhaustive else min(1.0, 3 / self.tried)

    def explain(self) -> str:
        """What was found, in one or two sentences."""
        if self.readout == "none":
            return "No directions that the given weights write and never read could hold such an answer."
        if self.exhaustive:
            tried = "the only input" if self.inputs == 1 else f"all {self.inputs:,} inputs"
        else:
            many = f"{self.inputs:,}" if self.inputs < 10**12 else f"{float(self.inputs):.3g}"
            tried = f"a sample of {self.tried:,} of the {many} inputs (lengths equally likely, seed {self.seed})"
        if self.differing:
            text = f"The two answer differently on {self.differing:,} of {tried}"
            text += f", at {self.differing_places:,} of {self.places:,} places."
        else:
            text = f"The two give the same answer on {tried}"
            text += "." if self.exhaustive else f": at 95% fewer than {self.bound:.2g} of inputs drawn so differ."
        if self.readout == "matched":
            text += (
                " Where the answer stands, and which values it has, was inferred: it is taken from directions that "
                "nothing reads, with the program's own values."
            )
        return text

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        c = self.counterexample
        shown = None if c is None else {"input": c.input, "expected": c.expected, "given": c.given}
        return {
            "inputs": self.inputs if self.inputs < 2**53 else float(self.inputs),
            "inputs_checked": self.tried,
            "exhaustive": self.exhaustive,
            "differing": self.differing,
            "places": self.places,
            "differing_places": self.differing_places,
            "bound": self.bound,
            "counterexample": None if shown is None else {name: list(values) for name, values in shown.items()},
            "seed": self.seed,
            "mode": self.mode,
            "readout": self.readout,
        }


def behaviour(
    program: Program,
    target: BareTransformer,
    *,
    seed: int = 0,
    most: int = EVERY,
    mode: Mode | None = None,
    certificate: Certificate | None = None,
    tolerance: float = TOLERANCE,
) -> Behaviour | None:
    """Compare the forward pass of a compiled program with that of a target, on every input or on a sample.

    What the target answers is kept, so that asking about another program costs only that program's forward pass.

    Args:
        seed: of the sample.
        most: up to so many inputs are all tried; of more a sample, which is no larger either.
        mode: how the program is compiled; unless given the certificate's, else the first of the target's in which it
            can be.
        certificate: of this program, which says where the answer stands if the target does not.
        tolerance: numbers agree within this share of the larger of 1 and the target's number.
    Returns:
        None if the program cannot be compiled.
    """
    if mode is None and certificate is not None:
        mode = "fixed" if certificate.mode == "fixed" else "tracr_compat"
    for chosen in modes_of(target, mode):
        candidate = compiled_for(program, target, chosen)
        if candidate is not None:
            return compare_behaviour(
                candidate, target, seed=seed, most=most, certificate=certificate, tolerance=tolerance
            )
    return None


def compare_behaviour(
    candidate: CompiledTransformer,
    target: BareTransformer,
    *,
    seed: int = 0,
    most: int = EVERY,
    certificate: Certificate | None = None,
    tolerance: float = TOLERANCE,
) -> Behaviour:
    """As `behaviour` of a program that has been compiled for the target's vocabulary and length."""
    size, longest = len(target.vocab), target.max_seq_len
    chosen = _inputs(size, longest, seed, most)
    rows = np.array([target.space.index(token) for token in target.vocab])
    own = [_read_own(candidate, rows[positions]) for positions in chosen]
    readout, how = target.readout, "given"
    if readout is None and certificate is not None:
        readout, how = _readout_by(certificate, candidate, target.width), "certificate"
    if readout is None or readout.values == ():
        readout, how = _matched(candidate.output, own, target, chosen, (seed, most), tolerance)
        if how == "matched" and len(np.unique(np.concatenate([answer.ravel() for answer in own]))) < 2:
            readout = None  # an answer that is always the same fits any direction that is
    count = sum(size**length for length in range(1, longest + 1))
    tried, places = sum(map(len, chosen)), sum(positions.size for positions in chosen)
    if readout is None:
        return Behaviour(count, 0, 0, 0, 0, None, seed, candidate.mode, "none")
    wanted = _answers(target, readout, chosen, (seed, most))
    differing = differing_places = 0
    counterexample = None
    for positions, meant, given in zip(chosen, wanted, own, strict=True):
        wrong = _differ(meant, readout.values, given, candidate.output.values, tolerance)
        some = wrong.any(1)
        differing, differing_places = differing + int(some.sum()), differing_places + int(wrong.sum())
        if counterexample is None and some.any():
            first = int(some.argmax())
            counterexample = Counterexample(
                tuple(target.vocab[place] for place in positions[first].tolist()),
                _values(meant[first], readout.values),
                _values(given[first], candidate.output.values),
            )
    return Behaviour(count, tried, differing, places, differing_places, counterexample, seed, candidate.mode, how)


@lru_cache(8)
def _inputs(size: int, longest: int, seed: int, most: int) -> tuple[np.ndarray, ...]:
    """(n, length) positions in the vocabulary of all inputs, or of a sample, for each length that occurs."""
    count = sum(size**length for length in range(1, longest + 1))
    whole = list(batches(tuple(range(size)), longest, count, seed, EVERY, most))
    parts = zip(*((batch.codes[:most], batch.lengths[:most]) for batch in whole), strict=True)
    codes, lengths = (np.concatenate(part)[:most] for part in parts)
    return tuple(codes[lengths == length, :length] for length in np.unique(lengths).tolist())


def _pieces(positions: np.ndarray, wide: int) -> Iterator[np.ndarray]:
    """Inputs of one length in pieces whose streams fit in some 16 MB."""
    step = max(1, 4_000_000 // ((positions.shape[1] + 1) * max(wide, positions.shape[1])))
    for start in range(0, len(positions), step):
        yield positions[start : start + step]


def _read_own(candidate: CompiledTransformer, rows: np.ndarray) -> np.ndarray:
    """(n, length) what a compiled transformer answers: places among its values (-1 is None), or numbers (or nan)."""
    output = candidate.output
    wide = max(candidate.layout.width, candidate.configuration.mlp_hidden_size)
    read = []
    for piece in _pieces(rows, wide):
        stream = candidate.forward(piece)
        if output.values is None:
            number = stream[..., output.start].astype(float)
            none = None if output.none is None else stream[..., output.none]
            read.append(number if none is None else np.where(none > 0.5, np.nan, number))
        else:
            read.append(_longest(stream[..., output.start : output.start + len(output.values)], output.strict))
    return np.concatenate(read)


NEAR = 1e-4
"""Lengths of directions that differ by less are the same but for rounding, which another order of sums changes."""


def _longest(lengths: np.ndarray, strict: bool) -> np.ndarray:
    """The first of the longest directions, rounding apart; -1 where none is longer than 1/2 and that means None."""
    largest = lengths.max(-1)
    best = (lengths >= largest[..., None] - NEAR).argmax(-1)
    return np.where(largest > 0.5 + NEAR, best, -1) if strict else best


_answered: WeakKeyDictionary[BareTransformer, dict[Any, list[np.ndarray]]] = WeakKeyDictionary()


def _answers(
    target: BareTransformer, readout: Readout, chosen: Sequence[np.ndarray], key: tuple[int, int]
) -> list[np.ndarray]:
    """What a target answers, as `_read_own` gives it, for each array of inputs; kept if it is its own readout."""
    directions = readout.directions
    if readout.none is not None:
        directions = np.concatenate([directions, readout.none[:, None]], axis=1)
    kept = _answered.setdefault(target, {})
    if readout is target.readout and ("own", *key) in kept:
        return kept["own", *key]
    answers = []
    for read in _streams(target, directions, chosen):
        if readout.values is None:
            number = read[..., 0].astype(float)
            answers.append(number if readout.none is None else np.where(read[..., 1] > 0.5, np.nan, number))
        else:
            answers.append(_longest(read, readout.strict))
    if readout is target.readout:
        kept["own", *key] = answers
    return answers


def _streams(target: BareTransformer, directions: np.ndarray, chosen: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """(n, length, some) the final stream on some directions, without the place of BOS."""
    rows = np.array([target.space.index(token) for token in target.vocab], np.int64)
    bos = target.space.index(BOS)
    wide = max(target.width, target.hidden_size, target.num_heads * target.width)
    for positions in chosen:
        parts = []
        for piece in _pieces(positions, wide):
            codes = np.concatenate([np.full((len(piece), 1), bos), rows[piece]], axis=1)
            parts.append(target.forward(codes)[:, 1:] @ directions)
        yield np.concatenate(parts)


def _differ(
    meant: np.ndarray,
    meanings: tuple[Value, ...] | None,
    given: np.ndarray,
    values: tuple[Value, ...] | None,
    tolerance: float,
) -> np.ndarray:
    """(n, length) where two answers, as `_read_own` gives them, are not the same."""
    if meanings is not None and values is not None:
        same = [[same_value(meaning, value) for value in (*values, None)] for meaning in (*meanings, None)]
        return ~np.array(same)[meant, given]
    numbers = [
        codes if names is None else np.array([float(v) if is_number(v) else np.inf for v in (*names, np.nan)])[codes]
        for codes, names in ((meant, meanings), (given, values))
    ]
    none = [np.isnan(array) for array in numbers]
    with np.errstate(invalid="ignore"):
        near = np.abs(numbers[0] - numbers[1]) <= tolerance * np.maximum(1.0, np.abs(numbers[0]))
    return ~np.where(none[0] | none[1], none[0] == none[1], near)


def _values(answer: np.ndarray, names: tuple[Value, ...] | None) -> tuple[Value, ...]:
    if names is None:
        return tuple(None if math.isnan(number) else number for number in answer.tolist())
    return tuple((*names, None)[code] for code in answer.tolist())


def _readout_by(certificate: Certificate, candidate: CompiledTransformer, width: int) -> Readout:
    """Where the target's answer stands, by the place to which a certificate moves the candidate's output."""
    output, places = candidate.output, certificate.columns.directions
    eye = np.eye(width, dtype=np.float32)
    count = 1 if output.values is None else len(output.values)
    none = None if output.none is None else eye[places[output.none]]
    return Readout(eye[:, places[output.start : output.start + count]], output.values, none, output.strict)


SHARES = (1e-6, 1e-4, 1e-3, 0.01, 0.03, 0.1)
"""Shares of the largest row or column of a matrix up to which a direction counts as not written, or not read."""


ACTIVE = 0.25
"""A direction that changes by more than this share of what another does is no noise."""


def unread_directions(target: BareTransformer, at_least: int = 1) -> np.ndarray:
    """Residual directions that the last half-layer in use writes and that no layer reads: where an answer can stand.

    Every S-op of a program is read by another but for its output, which therefore is the last that is written. What
    counts as nothing is raised until there are enough directions: noise makes each a little written and read.

    Args:
        at_least: so many are looked for; all there are at the highest threshold if there are fewer.
    """
    halves = [matrix for pair in zip(target.linear, target.second, strict=True) for matrix in pair]
    written = [np.sqrt((matrix.astype(float) ** 2).sum(0)) for matrix in halves]
    most = max(float(size.max()) for size in written)
    read = np.zeros(target.width)
    for matrix in (target.query, target.key, target.value, target.first):
        size = np.sqrt((matrix.astype(float) ** 2).sum(2))  # (layers, width)
        read = np.maximum(read, (size / np.maximum(size.max(1, keepdims=True), 1e-30)).max(0))
    found = np.zeros(0, np.int64)
    for share in SHARES:
        last = next((size for size in reversed(written) if size.max() > share * most), np.zeros(target.width))
        found = np.flatnonzero((last > share * last.max()) & (read <= share))
        if len(found) >= at_least:
            break
    return found


def _matched(
    output: Output,
    own: Sequence[np.ndarray],
    target: BareTransformer,
    chosen: Sequence[np.ndarray],
    key: tuple[int, int],
    tolerance: float,
) -> tuple[Readout | None, str]:
    """Where the target's answer stands if it is the candidate's: the directions on which the two agree most often."""
    readout = target.readout
    eye = np.eye(target.width, dtype=np.float32)
    count = 1 if output.values is None else len(output.values)
    unread = unread_directions(target, count) if readout is None else np.zeros(0, np.int64)
    directions = eye[:, unread] if readout is None else readout.directions
    if not directions.shape[1]:
        return None, "none"
    kept = _answered.setdefault(target, {})
    if (*key, *unread) not in kept:
        kept[*key, *unread] = list(_streams(target, directions, chosen))
    streams = kept[*key, *unread]
    flat = np.concatenate([stream.reshape(-1, stream.shape[-1]) for stream in streams])
    answers = np.concatenate([answer.ravel() for answer in own])
    if output.values is None:
        found = _matched_number(output, flat, answers, directions, tolerance)
        return found, "none" if found is None else "matched"
    from scipy.optimize import linear_sum_assignment

    together = np.zeros((count + 1, flat.shape[1]))
    np.add.at(together, answers, flat)  # how long each direction is where the candidate gives each value
    told = together[:count] / np.maximum(np.bincount(answers[answers >= 0], minlength=count), 1)[:, None]
    places, columns = linear_sum_assignment(told, maximize=True)
    values: list[Value] = [output.values[place] for place in places]
    # what is left may be the answer too, though the candidate has no such value
    left = np.setdiff1d(np.arange(flat.shape[1]), columns) if readout is None else np.zeros(0, np.int64)
    values += [f"(direction {direction})" for direction in unread[left].tolist()]
    return Readout(directions[:, [*columns, *left]], tuple(values), None, output.strict), "matched"


def _matched_number(
    output: Output, flat: np.ndarray, answers: np.ndarray, directions: np.ndarray, tolerance: float
) -> Readout | None:
    """The direction that holds the candidate's numbers most often, and the one that is 1 where they are None.

    None if another changes nearly as much: then the answer is no single number.
    """
    none = np.isnan(answers)
    wanted = np.where(none, 0.0, answers)[:, None]
    near = np.abs(flat - wanted) <= tolerance * np.maximum(1.0, np.abs(flat))
    best = int((near | none[:, None]).mean(0).argmax())
    missing, taken = None, [best]
    if output.none is not None and flat.shape[1] > 1:
        right = ((flat > 0.5) == none[:, None]).mean(0)
        right[best] = -1.0
        taken.append(int(right.argmax()))
        missing = directions[:, taken[1]]
    spread = flat.std(0)
    if (np.delete(spread, taken) > ACTIVE * spread[best]).any():
        return None
    return Readout(directions[:, [best]], None, missing, output.strict)
