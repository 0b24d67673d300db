"""Programs and weights drawn on the fly for the decompiler's training; a batch is a function of seed and number."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import numpy as np

from weightspace.decompiler.network.config import DecompilerConfig
from weightspace.decompiler.network.grammar import Unwritable, Written, write
from weightspace.decompiler.network.graph import ANSWER, Graph, disturbed, graph_of, renamed, squeezed
from weightspace.errors import RaspError
from weightspace.files.workers import processes, result
from weightspace.rasp.canonical import canonical_key
from weightspace.rasp.compiler.assemble import assemble
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import TYPED_LENGTH, TYPED_VOCAB, attempts
from weightspace.rasp.validate import Mode, analyse
from weightspace.zoo.programs.splits import split_of

GROUP = 8
"""So many batches are drawn together and sorted by size, so that little of a batch is padding."""
MOST_PARAMETERS = 200_000


@dataclass(frozen=True, eq=False)
class Pair:
    """A program as tokens, and its weights as a graph."""

    written: Written
    graph: Graph


def split_of_program(program: Program) -> str | None:
    """On which side a program falls, by its canonical form as Tracr compiles it for its own distribution's inputs.

    The form in which it is drawn decides, not the one in which it is compiled: a program is never on one side under one
    vocabulary or mode and on the other under another. None if it has no such form.
    """
    analysis = analyse(program, TYPED_VOCAB, TYPED_LENGTH, "tracr_compat")
    return None if analysis.reasons else split_of(canonical_key(analysis))


def drawn(config: DecompilerConfig, split: str, seed: int, number: int, count: int) -> list[Pair]:
    """`count` pairs of one split: a pure function of the arguments."""
    random = Random(f"pairs {split} {seed} {number}")
    numbers = np.random.default_rng([seed, number, len(split)])
    pairs: list[Pair] = []
    for program in attempts("typed", random.getrandbits(60), config.lengths):
        if isinstance(program, str):
            continue
        pair = _pair(config, program, split, random, numbers)
        if pair is not None:
            pairs.append(pair)
            if len(pairs) == count:
                return pairs
    raise AssertionError("the sampler ends never")


def _pair(
    config: DecompilerConfig, program: Program, split: str, random: Random, numbers: np.random.Generator
) -> Pair | None:
    """The pair of a program, or None if it is of another split, cannot be compiled or written, or is too large."""
    if split_of_program(program) != split:
        return None
    mode: Mode = "fixed" if random.random() < config.fixed else "tracr_compat"
    vocab, length = TYPED_VOCAB, TYPED_LENGTH
    if random.random() < config.other_shapes:
        vocab, length = tuple(range(random.randint(2, 8))), random.randint(2, 8)
    analysis = analyse(program.meant_for(vocab, length), vocab, length, mode)
    if analysis.reasons:
        return None
    if canonical_key(analysis).hex() in config.excluded:
        return None
    try:
        transformer = assemble(analysis)
        if len(transformer) > MOST_PARAMETERS:
            return None
        written = write(analysis, random.randrange(24))
    except (RaspError, Unwritable):
        return None
    graph = graph_of(BareTransformer.of(transformer))
    if graph.nodes > config.most_nodes:
        return None
    kind = random.random()
    if kind < config.squeezed:
        graph = squeezed(graph, random.uniform(0.4, 1.0), numbers)
    if kind < config.squeezed / 3 or config.squeezed <= kind < config.squeezed + config.noisy:
        graph = disturbed(graph, float(np.exp(random.uniform(np.log(0.005), np.log(0.15)))), numbers)
    if random.random() >= config.answer:
        graph.anchors[:, ANSWER:] = 0
    if config.renamed:
        graph = renamed(graph, numbers)
    return Pair(written, graph)


def group(config: DecompilerConfig, split: str, seed: int, number: int) -> list[list[Pair]]:
    """The batches of one group, sorted by size within and in random order among each other."""
    size = config.training.batch_size
    pairs = sorted(drawn(config, split, seed, number, GROUP * size), key=lambda pair: pair.graph.nodes)
    batches = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    Random(f"order {seed} {number}").shuffle(batches)
    return batches


class Stream:
    """Training batches by their step, made ahead by other processes.

    Args:
        pool: where groups are made; None for here and now.
        ahead: how many groups are made ahead.
    """

    def __init__(self, config: DecompilerConfig, pool: ProcessPoolExecutor | None, ahead: int = 2) -> None:
        self.config, self.pool, self.ahead = config, pool, ahead
        self.waiting: deque[tuple[int, Future[list[list[Pair]]]]] = deque()
        self.current: tuple[int, list[list[Pair]]] = (-1, [])

    def __call__(self, step: int) -> Sequence[Pair]:
        """The batch of a step: a pure function of the configuration and the step."""
        number, place = divmod(step, GROUP)
        if self.current[0] != number:
            self.current = (number, self._group(number))
        return self.current[1][place]

    def _group(self, number: int) -> list[list[Pair]]:
        seed = self.config.training.seed
        if self.pool is None:
            return group(self.config, "train", seed, number)
        while self.waiting and self.waiting[0][0] != number:
            self.waiting.popleft()[1].cancel()
        while len(self.waiting) <= self.ahead:
            following = self.waiting[-1][0] + 1 if self.waiting else number
            self.waiting.append((following, self.pool.submit(group, self.config, "train", seed, following)))
        return result(self.waiting.popleft()[1])


@contextmanager
def stream(config: DecompilerConfig, workers: int = 1) -> Iterator[Stream]:
    """Training batches, made by `workers` other processes; 0 for this one."""
    if workers == 0:
        yield Stream(config, None)
        return
    with processes(workers) as (pool, stop):
        yield Stream(config, pool, workers + 1)
        stop()
