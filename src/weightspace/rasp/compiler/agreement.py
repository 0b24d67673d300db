"""Whether a compiled transformer gives what its program means: on every input, or on a sample of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from weightspace.errors import RaspError
from weightspace.rasp.batch import Batch
from weightspace.rasp.batch_interpreter import evaluate_batch
from weightspace.rasp.compiler.transformer import CompiledTransformer
from weightspace.rasp.functions import Value, is_number
from weightspace.rasp.interpreter import evaluate
from weightspace.rasp.program import Program
from weightspace.rasp.reading import token_text

EVERY = 100_000
"""So many inputs are all tried; of more, a sample."""
SAMPLED = 20_000
WORK = 20_000_000
"""A sample is smaller where inputs are long: so many pairs of places are looked at."""
TOLERANCE = 1e-3
"""Numbers agree within this share of the larger of 1 and the number itself.

A transformer computes in float32, and an MLP that reads a number adds up steps that are hundreds of times as large as
its result: `Map(x + 0.5, v)` of 51 values between -9 and 1 is off by 1.3e-4.
"""


@dataclass(frozen=True)
class Counterexample:
    """An input on which program and transformer differ.

    Attributes:
        input: the tokens.
        expected: what the program means.
        given: what the transformer answers.
    """

    input: tuple[Value, ...]
    expected: tuple[Value, ...]
    given: tuple[Value, ...]


@dataclass(frozen=True)
class Agreement:
    """How a compiled transformer compares with its program.

    Attributes:
        inputs: how many there are, of length 1 to the longest.
        tried: how many of them were tried.
        undefined: on how many of these the program itself has no answer, so that nothing was compared.
        differing: on how many of these they differ.
        counterexample: the first of the shortest of those on which they differ.
        obstacle: why the program has no answer, for the first such input.
    """

    inputs: int
    tried: int
    undefined: int
    differing: int
    counterexample: Counterexample | None
    obstacle: str | None

    @property
    def complete(self) -> bool:
        return self.tried == self.inputs


def agrees(expected: Sequence[Value], given: Sequence[Value]) -> bool:
    """Whether two answers are the same: values equal, numbers within `TOLERANCE`."""
    return len(expected) == len(given) and all(same_value(a, b) for a, b in zip(expected, given, strict=True))


def same_value(a: Value, b: Value) -> bool:
    """Whether two values are the same; numbers within `TOLERANCE`."""
    if a == b:
        return True
    return is_number(a) and is_number(b) and abs(a - b) <= TOLERANCE * max(1.0, abs(a))


def agreement(program: Program, transformer: CompiledTransformer, seed: int = 0) -> Agreement:
    """Compare a transformer with the program that it was compiled from.

    Args:
        program: meant for the transformer's vocabulary and length.
        seed: of the sample, which is drawn where there are more than `EVERY` inputs; all lengths are equally likely.
    """
    vocab, longest = transformer.vocab, transformer.max_seq_len
    count = sum(len(vocab) ** length for length in range(1, longest + 1))
    program = program.meant_for(vocab, longest)
    tried = undefined = differing = 0
    counterexample, obstacle = None, None
    # so much is held in memory at once: the stream of each place, and the scores of each pair
    most = max(1, 4_000_000 // ((longest + 1) * max(transformer.layout.width, longest)))
    for batch in batches(vocab, longest, count, seed, most):
        inputs = batch.inputs()
        tried += len(inputs)
        expected, reason = _meaning(program, batch)
        obstacle = obstacle or reason
        for tokens, meant, given in zip(inputs, expected, transformer.run(inputs), strict=True):
            if meant is None:
                undefined += 1
            elif not agrees(meant, given):
                differing += 1
                if counterexample is None or len(tokens) < len(counterexample.input):
                    counterexample = Counterexample(tokens, tuple(meant), tuple(given))
    return Agreement(count, tried, undefined, differing, counterexample, obstacle)


def batches(
    vocab: tuple[Value, ...], longest: int, count: int, seed: int, most: int, every: int = EVERY
) -> Iterator[Batch]:
    """All inputs, or a sample of them in which all lengths are equally likely.

    Args:
        longest: length of the longest.
        count: how many there are.
        seed: of the sample.
        most: inputs of a batch.
        every: up to so many are all tried.
    """
    if count <= every:
        whole = Batch.every(vocab, longest)
        for start in range(0, count, most):
            yield Batch(whole.codes[start : start + most], whole.lengths[start : start + most], vocab)
        return
    random = Random(f"agreement {seed}")
    sampled = max(50, min(SAMPLED, WORK // longest**2))
    for start in range(0, sampled, most):
        lengths = np.array([1 + int(random.random() * longest) for _ in range(min(most, sampled - start))])
        drawn = np.array([int(random.random() * len(vocab)) for _ in range(len(lengths) * longest)], np.int32)
        codes = np.where(np.arange(longest) < lengths[:, None], drawn.reshape(-1, longest), -1).astype(np.int32)
        yield Batch(codes, lengths, vocab)


def _meaning(program: Program, batch: Batch) -> tuple[list[list[Value] | None], str | None]:
    """What the program gives for each input, None where it has no answer, and why."""
    try:
        return list(evaluate_batch(program, batch).lists()), None
    except RaspError:  # it stops at one of them: which, only a look at each says
        answers: list[list[Value] | None] = []
        reason = None
        for tokens in batch.inputs():
            try:
                answers.append(evaluate(program, tokens))
            except RaspError as error:
                answers.append(None)
                reason = reason or str(error)
        return answers, reason


def report(found: Agreement, seed: int) -> str:
    """An agreement in sentences.

    Args:
        seed: with which it was made.
    """
    if found.complete:
        tried = f"all {found.inputs:,} inputs"
    else:
        tried = f"a sample of {found.tried:,} of the {found.inputs:.4g} inputs (lengths equally likely, seed {seed})"
    lines = []
    if found.differing:
        lines.append(f"the transformer differs from the interpreter on {found.differing:,} of {tried}")
    elif found.undefined == found.tried:
        lines.append(f"nothing to compare: the program has no answer on {tried}")
    else:
        lines.append(f"the transformer agrees with the interpreter on {tried}")
    if found.undefined:
        more = "" if found.undefined == found.tried else f" on {found.undefined:,} of them"
        lines.append(f"the program itself has no answer{more}, as: {found.obstacle}")
    if found.counterexample is not None:
        for name, values in (
            ("input", found.counterexample.input),
            ("interpreter", found.counterexample.expected),
            ("transformer", found.counterexample.given),
        ):
            lines.append(f"  {name:<11}  {token_text(values)}")
    return "\n".join(lines)
