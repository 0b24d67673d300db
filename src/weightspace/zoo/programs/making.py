"""Making a zoo of programs: shard by shard by several processes, until there are enough different ones; resumable."""

from __future__ import annotations

import gc
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count, islice
from pathlib import Path
from time import perf_counter

from weightspace import __version__
from weightspace.errors import ZooError
from weightspace.files.lock import writing
from weightspace.files.progress import duration
from weightspace.files.progress import progress as progress_line
from weightspace.files.workers import cores, processes, result
from weightspace.rasp.sampler import attempts
from weightspace.zoo.making import check_place
from weightspace.zoo.programs.config import KIND, ProgramZooConfig
from weightspace.zoo.programs.draws import accepted_draws, compiled_rows
from weightspace.zoo.programs.gathered import Gathered
from weightspace.zoo.programs.program_zoo import ProgramZoo
from weightspace.zoo.programs.shards import Summary, read_summary, shard_file, write_shard
from weightspace.zoo.store import DESCRIPTION, MANIFEST, SHARDS, changed_files, remove_torn, write_description

FRUITLESS = 20_000
"""So many accepted draws without a new program mean that there are no more."""


def make_program_zoo(
    config: ProgramZooConfig, folder: str | Path, workers: int | None = None, *, show: bool = True
) -> ProgramZoo:
    """Make the programs of `config` in `folder`, or what is still missing of them.

    Shard n is a pure function of (configuration, n): so many accepted draws of the distribution, without those that
    cannot be compiled, are too large, or come twice in the shard. The first `count` different programs, shard by shard,
    are the zoo; a program that stood in an earlier shard keeps its bytes in the later one, and no place in the index.
    So a run that was killed and started again, or run by other workers, ends in the same files, byte for byte. What
    grows with the zoo in memory is 30 bytes a program.

    Args:
        workers: processes; one a core unless given, 0 for this one.
        show: print the progress on standard error.
    Raises:
        ZooError: if the folder holds something else, another run writes into it, or the distribution has too few
            different programs.
        OSError: if the disk is full; finished shards stay.
    """
    folder = Path(folder)
    description = {"kind": KIND, "config": config.to_json(), "version": __version__}
    check_place(description, folder)
    with writing(folder):
        check_place(description, folder)  # again: another run may have come first
        if not (folder / DESCRIPTION).exists():
            write_description(folder, description)
        remove_torn(folder)
        with suppress(ZooError):  # a damaged manifest is written again, as a missing one is
            changed = changed_files(folder)
            if not changed:
                return ProgramZoo.open(folder)
            for name in changed:  # only the manifest knows that these are not what was written
                (folder / name).unlink(missing_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
        gathered = _gather(config, folder, cores() if workers is None else workers, show)
        for surplus in (folder / SHARDS).glob("*.parquet"):  # workers run ahead
            if int(surplus.stem) >= gathered.shards:
                surplus.unlink()
        remove_torn(folder)  # of workers that were stopped
        gathered.finish(folder)
    return ProgramZoo.open(folder)


def _gather(config: ProgramZooConfig, folder: Path, workers: int, show: bool) -> Gathered:
    """Take shard after shard until there are as many different programs as are wanted.

    Raises:
        ZooError: if the distribution has too few.
    """
    gathered, fruitless = Gathered(config), 0
    about = f"{config.count:,} programs of {config.distribution}"
    if show and config.count > 1_000:
        about += f", about {duration(config.count * _seconds_a_program(config) / max(1, workers))} at first"
    with (
        progress_line(about, total=config.count, unit="programs", enabled=show) as advance,
        _shards(config, folder, workers) as shards,
    ):
        for summary in shards:
            new = gathered.take(summary)
            advance(new, f"{gathered.known:.0%} had come before")
            if gathered.full:
                break
            fruitless = 0 if new else fruitless + config.shard_size
            if fruitless >= FRUITLESS:
                raise ZooError(
                    f"there are hardly more than {gathered.count:,} different programs of these lengths: ask for "
                    "fewer or for longer ones, in another folder"
                )
    return gathered


def _seconds_a_program(config: ProgramZooConfig) -> float:
    """From a few draws, by which the caches are still cold."""
    start = perf_counter()
    made = len(compiled_rows(config, islice(attempts(config.distribution, 0, config.lengths or None), 200), Counter()))
    return (perf_counter() - start) / max(1, made)


@contextmanager
def _shards(config: ProgramZooConfig, folder: Path, workers: int) -> Iterator[Iterator[Summary]]:
    """Summaries of shard 0, 1, 2, ... in order: read where they are whole, else made, some ahead by other processes."""
    if workers == 0:
        yield (_shard(config, folder, number) for number in count())
        return
    ahead = 2 * workers
    # what is made here has no circles but the sampler's own, which it breaks: looking for garbage would take a third of
    # the time
    with processes(workers, gc.disable) as (pool, stop):

        def in_order() -> Iterator[Summary]:
            waiting = deque(pool.submit(_shard, config, folder, number) for number in range(ahead))
            for number in count(ahead):
                yield result(waiting.popleft())
                waiting.append(pool.submit(_shard, config, folder, number))

        yield in_order()
        stop()  # what they are at is not wanted any more


def _shard(config: ProgramZooConfig, folder: Path, number: int) -> Summary:
    """Make a shard, unless it stands there whole."""
    path = shard_file(folder, number)
    known = read_summary(path, config, number)
    if known is not None:
        return known
    reasons: Counter[str] = Counter()
    accepted = accepted_draws(config, number, reasons)
    rows = compiled_rows(config, accepted, reasons)
    write_shard(path, config, number, rows, reasons)
    summary = read_summary(path, config, number)
    if summary is None:
        raise ZooError(f"{path} cannot be read back: is the disk sound?")
    return summary
