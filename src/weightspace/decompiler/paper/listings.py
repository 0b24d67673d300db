"""Training batches of listings by their step: out of a zoo, epoch by epoch, or drawn on the fly by other processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager

import numpy as np

from weightspace.decompiler.paper.flat_config import FlatConfig
from weightspace.decompiler.paper.listing import Listing, draw_listings
from weightspace.files.workers import processes, result
from weightspace.metamodels.learner import epoch_batch

GROUP = 16
"""So many batches are sorted by size together, so that little of a batch is padding."""

Batches = Callable[[int], Sequence[Listing]]
"""From a step to its examples: a pure function, so that a run can be resumed."""


def _cut(listings: Sequence[Listing], size: int, seed: int, number: int) -> list[list[Listing]]:
    """The batches of one group, alike in size within and in random order among each other."""
    listings = sorted(listings, key=lambda listing: len(listing.chunks))
    batches = [list(listings[start : start + size]) for start in range(0, len(listings), size)]
    order = np.random.default_rng([seed, number, 7]).permutation(len(batches))
    return [batches[place] for place in order]


def from_listings(listings: Sequence[Listing], config: FlatConfig) -> Batches:
    """Each listing once an epoch, every epoch in another order."""
    size, seed = config.training.batch_size, config.training.seed
    kept: dict[int, list[list[Listing]]] = {}

    def batch(step: int) -> Sequence[Listing]:
        number, place = divmod(step, GROUP)
        if number not in kept:
            kept.clear()
            chosen = epoch_batch(len(listings), GROUP * size, number, seed)
            kept[number] = _cut([listings[i] for i in chosen], size, seed, number)
        return kept[number][place]

    return batch


def _drawn(config: FlatConfig, number: int) -> list[list[Listing]]:
    size, seed = config.training.batch_size, config.training.seed
    listings = draw_listings(
        GROUP * size,
        split="train",
        seed=seed,
        number=number,
        chunking=config.chunking,
        most_parameters=config.most_parameters,
    )
    return _cut(listings, size, seed, number)


@contextmanager
def on_the_fly(config: FlatConfig, workers: int = 1) -> Iterator[Batches]:
    """New training programs at every step, made ahead by `workers` other processes; 0 for this one."""
    if workers == 0:
        yield _GroupStream(config, None, 0)
        return
    with processes(workers) as (pool, stop):
        yield _GroupStream(config, pool, workers + 1)
        stop()  # what they are at is not wanted any more


class _GroupStream:
    """Groups of batches, of which some are made ahead."""

    def __init__(self, config: FlatConfig, pool: ProcessPoolExecutor | None, ahead: int) -> None:
        self.config, self.pool, self.ahead = config, pool, ahead
        self.waiting: deque[tuple[int, Future[list[list[Listing]]]]] = deque()
        self.current: tuple[int, list[list[Listing]]] = (-1, [])

    def __call__(self, step: int) -> Sequence[Listing]:
        number, place = divmod(step, GROUP)
        if self.current[0] != number:
            self.current = (number, self._group(number))
        return self.current[1][place]

    def _group(self, number: int) -> list[list[Listing]]:
        if self.pool is None:
            return _drawn(self.config, number)
        while self.waiting and self.waiting[0][0] != number:
            self.waiting.popleft()[1].cancel()
        while len(self.waiting) <= self.ahead:
            following = self.waiting[-1][0] + 1 if self.waiting else number
            self.waiting.append((following, self.pool.submit(_drawn, self.config, following)))
        return result(self.waiting.popleft()[1])
