"""Populations of compiled programs: sampled, validated, compiled, freed of duplicates, stored sparsely; resumable."""

from __future__ import annotations

import gc
import hashlib
import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from io import BytesIO
from itertools import count, islice, pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from weightspace import __version__
from weightspace.errors import RaspError, ZooError
from weightspace.files.atomic import write_atomically
from weightspace.files.lock import writing
from weightspace.files.progress import duration
from weightspace.files.progress import progress as progress_line
from weightspace.rasp.canonical import canonical_key
from weightspace.rasp.compiler.assemble import assemble, compile_program
from weightspace.rasp.compiler.transformer import CompiledTransformer, Configuration, Layout, layout_of
from weightspace.rasp.language import Program, fused
from weightspace.rasp.sampler import Distribution, attempts, check_lengths
from weightspace.rasp.validate import Mode, NotCompilable, analyse, settings
from weightspace.zoo.engine import cores, processes, result
from weightspace.zoo.making import ZooFinding, check_place
from weightspace.zoo.store import (
    DESCRIPTION,
    INDEX,
    MANIFEST,
    SHARDS,
    SPLITS,
    changed_files,
    read_description,
    read_index,
    read_manifest,
    remove_torn,
    write_description,
    write_manifest,
)

KIND = "programs"
CONFIGURATION = Configuration._fields
METADATA = b"weightspace"
FRUITLESS = 20_000
"""So many accepted draws without a new program mean that there are no more."""


@dataclass(frozen=True, kw_only=True)
class ProgramZooConfig:
    """A population of compiled programs: data and nothing else.

    Attributes:
        recipe: its name.
        distribution: `paper` or `typed`.
        count: different programs, by canonical form; at least 1.
        seed: of the zoo.
        mode: `tracr_compat` for Tracr's own weights, or `fixed`.
        lengths: lengths that are wanted, equally likely; empty for those published.
        most_parameters: transformers that are larger are dropped.
        shard_size: accepted draws a shard, the unit that is made anew after a kill.
    """

    recipe: str
    distribution: Distribution
    count: int
    seed: int = 0
    mode: Mode = "tracr_compat"
    lengths: tuple[int, ...] = ()
    most_parameters: int = 65_536
    shard_size: int = 5_000

    def __post_init__(self) -> None:
        try:
            check_lengths(self.distribution, self.lengths)
        except RaspError as error:
            raise ZooError(str(error)) from None
        for name, least in (("count", 1), ("most_parameters", 1), ("shard_size", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ZooError(f"{name} is at least {least}, not {getattr(self, name)}")

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "lengths": list(self.lengths)}


# -- making ----------------------------------------------------------------------------------------------------------


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
        workers = cores() if workers is None else workers
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
        for surplus in (folder / SHARDS).glob("*.parquet"):  # workers run ahead
            if int(surplus.stem) >= gathered.shards:
                surplus.unlink()
        remove_torn(folder)  # of workers that were stopped
        gathered.finish(folder)
    return ProgramZoo.open(folder)


def _seconds_a_program(config: ProgramZooConfig) -> float:
    """From a few draws, by which the caches are still cold."""
    start = perf_counter()
    made = len(_compiled(config, islice(attempts(config.distribution, 0, config.lengths or None), 200), Counter()))
    return (perf_counter() - start) / max(1, made)


@dataclass(frozen=True, eq=False)
class Summary:
    """What the index needs of one shard.

    Attributes:
        keys: (n,) uint64, the first half of each program's canonical key.
        lengths, parameters: (n,) of each program and its transformer.
        reasons: how many draws were dropped, by reason.
    """

    keys: np.ndarray
    lengths: np.ndarray
    parameters: np.ndarray
    reasons: Mapping[str, int]


class Gathered:
    """The programs that have come so far, without duplicates."""

    def __init__(self, config: ProgramZooConfig) -> None:
        self.config = config
        self.seen = np.empty(0, dtype=np.uint64)
        self.columns: list[dict[str, np.ndarray]] = []
        self.reasons: Counter[str] = Counter()
        self.count = self.shards = 0
        self.known = 0.0
        """Share of the last shard that stood in an earlier one."""

    @property
    def full(self) -> bool:
        return self.count == self.config.count

    def take(self, summary: Summary) -> int:
        """Add a shard, the next in order; returns how many of its programs are new."""
        keys = summary.keys
        place = np.searchsorted(self.seen, keys)
        known = np.zeros(len(keys), dtype=bool)
        inside = place < len(self.seen)
        known[inside] = self.seen[place[inside]] == keys[inside]
        self.known = float(known.mean()) if len(known) else 0.0
        new = np.flatnonzero(~known)[: self.config.count - self.count]
        order = np.argsort(keys[new])
        self.seen = np.insert(self.seen, place[new][order], keys[new][order])
        self.columns.append(
            {
                "shard": np.full(len(new), self.shards, dtype=np.int32),
                "row": new.astype(np.int32),
                "key": keys[new],
                "length": summary.lengths[new],
                "parameters": summary.parameters[new],
            }
        )
        self.reasons.update(summary.reasons)
        self.reasons["the same program stands in an earlier shard"] += int(known.sum())
        self.count += len(new)
        self.shards += 1
        return len(new)

    def finish(self, folder: Path) -> None:
        """Write the index and the manifest."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {name: np.concatenate([part[name] for part in self.columns]) for name in self.columns[0]}
        split = pa.DictionaryArray.from_arrays(pa.array(splits_of(columns["key"])), pa.array(SPLITS))
        table = pa.table({"network": np.arange(self.count), **columns, "split": split})
        buffer = BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        write_atomically(folder / INDEX, buffer.getvalue())
        dropped = {reason: number for reason, number in sorted(self.reasons.items()) if number}
        facts = {"networks": self.count, "shards": self.shards, "dropped": dropped}
        write_manifest(folder, [shard_file(folder, number) for number in range(self.shards)], facts)


def splits_of(keys: np.ndarray) -> np.ndarray:
    """(n,) int8 places among train, validation and test (60, 15 and 25%) of programs by their keys.

    A program is on the same side in every zoo of one mode, vocabulary and length, of whatever seed.
    """
    mixed = keys * np.uint64(0x9E3779B97F4A7C15)  # the keys' own order decides nothing
    return np.searchsorted((0.6, 0.75), (mixed >> np.uint64(11)).astype(float) / 2**53, side="right").astype(np.int8)


def split_of(key: bytes) -> str:
    """The split of one program by its canonical key, as in every zoo."""
    return SPLITS[int(splits_of(np.frombuffer(key[:8], dtype=">u8").astype(np.uint64))[0])]


def shard_file(folder: Path, number: int) -> Path:
    return folder / SHARDS / f"{number:05d}.parquet"


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
    known = _read_summary(path, config, number)
    if known is not None:
        return known
    reasons: Counter[str] = Counter()
    accepted = _accepted(config, number, reasons)
    rows = _compiled(config, accepted, reasons)
    table = _table(rows)
    facts: dict[str, Any] = {"config": _fingerprint(config), "shard": number, "dropped": dict(reasons)}
    facts["checksum"] = _checksum(table, facts)
    _write(path, table.replace_schema_metadata({METADATA: json.dumps(facts, sort_keys=True)}))
    summary = _read_summary(path, config, number)
    if summary is None:
        raise ZooError(f"{path} cannot be read back: is the disk sound?")
    return summary


def _accepted(config: ProgramZooConfig, number: int, reasons: Counter[str]) -> Iterator[Program]:
    """As many accepted draws as a shard wants; the others are counted."""
    digest = hashlib.blake2b(f"{config.seed} {number}".encode(), digest_size=8).digest()
    drawn = 0
    for draw in attempts(config.distribution, int.from_bytes(digest, "big"), config.lengths or None):
        if isinstance(draw, str):
            reasons[draw] += 1
            continue
        yield draw
        drawn += 1
        if drawn == config.shard_size:
            return


@dataclass(frozen=True, eq=False)
class ProgramRow:
    """A program as it goes into a shard."""

    program: Program
    transformer: CompiledTransformer
    key: bytes


def _compiled(config: ProgramZooConfig, programs: Iterator[Program | str], reasons: Counter[str]) -> list[ProgramRow]:
    """The programs that can be compiled, are small enough, and do not come twice; the others are counted."""
    rows: dict[bytes, ProgramRow] = {}
    for program in programs:
        if isinstance(program, str):
            continue
        meant = fused(program) if config.distribution == "paper" else program
        try:
            vocab, length = settings(meant, None, None)
            analysis = analyse(meant, vocab, length, config.mode)
            if analysis.reasons:
                raise NotCompilable(analysis.reasons)
            key = canonical_key(analysis)
            if key in rows:
                reasons["the same program stands in this shard"] += 1
                continue
            transformer = assemble(analysis)
        except NotCompilable as error:
            reasons[f"cannot be compiled: {error.reasons[0].kind}"] += 1
            continue
        if len(transformer) > config.most_parameters:
            reasons[f"more than {config.most_parameters:,} parameters"] += 1
            continue
        rows[key] = ProgramRow(program, transformer, key)
    return list(rows.values())


def _table(rows: list[ProgramRow]) -> Any:
    """The rows of a shard as an Arrow table."""
    import pyarrow as pa

    def lists(parts: list[np.ndarray], kind: Any) -> Any:
        offsets = np.cumsum([0, *map(len, parts)])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(np.concatenate(parts or [[]]), kind))

    orders = [np.argsort(row.transformer.places) for row in rows]
    shapes = [row.transformer.configuration for row in rows]
    layouts = [row.transformer.layout for row in rows]
    return pa.table(
        {
            "key": pa.array([row.key for row in rows], pa.binary(16)),
            "program": pa.array([str(row.program) for row in rows]),
            "length": pa.array([len(row.program) for row in rows], pa.int16()),
            "parameters": pa.array([len(row.transformer) for row in rows], pa.int32()),
            "tokens": pa.array([layout.tokens for layout in layouts], pa.int32()),
            "positions": pa.array([layout.positions for layout in layouts], pa.int32()),
            "width": pa.array([layout.width for layout in layouts], pa.int32()),
            **{name: pa.array([getattr(shape, name) for shape in shapes]) for name in CONFIGURATION},
            "places": lists([r.transformer.places[o] for r, o in zip(rows, orders, strict=True)], pa.int32()),
            "values": lists([r.transformer.values[o] for r, o in zip(rows, orders, strict=True)], pa.float32()),
        }
    )


def _write(path: Path, table: Any) -> None:
    import pyarrow.parquet as pq

    buffer = BytesIO()
    pq.write_table(
        table,
        buffer,
        row_group_size=1_000,
        compression="zstd",
        compression_level=3,
        use_dictionary=["values.list.element", *CONFIGURATION],  # type: ignore[arg-type] - its stubs know only bool
        column_encoding={"places.list.element": "DELTA_BINARY_PACKED"},
        write_page_checksum=True,
    )
    write_atomically(path, buffer.getvalue())


def _read_summary(path: Path, config: ProgramZooConfig, number: int) -> Summary | None:
    """What the index needs of a shard; None if it is not there, not whole, or another's."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        return None
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        facts = json.loads(table.schema.metadata[METADATA])
        if facts["config"] != _fingerprint(config) or facts["shard"] != number:
            return None
        if facts["checksum"] != _checksum(table, facts):
            return None
        keys = np.frombuffer(b"".join(key.as_py()[:8] for key in table["key"]), dtype=">u8").astype(np.uint64)
        return Summary(keys, table["length"].to_numpy(), table["parameters"].to_numpy(), facts["dropped"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException):
        return None


def _checksum(table: Any, facts: Mapping[str, Any]) -> str:
    """Of every value of a shard and all that its metadata says; the checksums of Parquet leave its footer out."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps({k: v for k, v in facts.items() if k != "checksum"}, sort_keys=True).encode())
    for name in table.column_names:
        column = table[name].combine_chunks()
        digest.update(name.encode())
        if name in ("places", "values"):
            digest.update(np.diff(column.offsets.to_numpy()).tobytes() + column.flatten().to_numpy().tobytes())
        elif name in ("key", "program"):
            for value in column.to_pylist():
                digest.update(value if isinstance(value, bytes) else value.encode() + b"\0")
        else:
            digest.update(column.to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()


def _fingerprint(config: ProgramZooConfig) -> str:
    """Of all that decides what a shard holds; the number of programs does not."""
    facts = {name: value for name, value in config.to_json().items() if name not in ("recipe", "count")}
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()


# -- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Entry:
    """One program of a zoo, with its weights as they are stored.

    Attributes:
        number: in the zoo.
        split: train, validation or test.
        text: the program.
        key: its canonical form in 16 bytes.
        layout: where each parameter stands in the flat vector.
        places, values: of the entries that are not zero.
    """

    number: int
    split: str
    text: str
    key: bytes
    layout: Layout
    places: np.ndarray
    values: np.ndarray

    @property
    def program(self) -> Program:
        return Program.parse(self.text)

    @property
    def flat(self) -> np.ndarray:
        """(parameters,) float32: all weights, in the order of `layout`."""
        flat = np.zeros(self.layout.size, dtype=np.float32)
        flat[self.places] = self.values
        return flat


@dataclass(frozen=True, eq=False)
class ProgramZoo:
    """A complete zoo of compiled programs, opened for reading.

    Attributes:
        folder: where it lies.
        description: what it was asked to be.
        manifest: how many programs and shards it has, what was dropped and why, and the hash of every file.
    """

    folder: Path
    description: dict[str, Any]
    manifest: dict[str, Any]

    @staticmethod
    def open(folder: str | Path) -> ProgramZoo:
        """Open a complete zoo; nothing but its description and manifest is read yet.

        Raises:
            ZooError: if it is no zoo, one of another kind, not complete, or its manifest is damaged.
        """
        folder = Path(folder)
        return ProgramZoo(folder, read_description(folder, KIND), read_manifest(folder))

    def __len__(self) -> int:
        return int(self.manifest["networks"])

    @property
    def config(self) -> ProgramZooConfig:
        facts = dict(self.description["config"])
        return ProgramZooConfig(**{**facts, "lengths": tuple(facts["lengths"])})

    @cached_property
    def index(self) -> Any:
        """An Arrow table: network, shard, row, key (its first 64 bits), length, parameters, split."""
        return read_index(self.folder)

    def entries(self, split: str | None = None) -> Iterator[Entry]:
        """The programs of one split, or all, shard by shard; memory holds the index and one shard.

        Raises:
            ZooError: if a shard is missing or damaged.
        """
        if split not in (None, *SPLITS):
            raise ZooError(f"there is no split {split!r}: choose from {', '.join(SPLITS)}")
        shards, rows = self.index["shard"].to_numpy(), self.index["row"].to_numpy()
        splits = self.index["split"].to_pylist()
        bounds = np.searchsorted(shards, np.arange(self.manifest["shards"] + 1))
        for number, (start, end) in enumerate(pairwise(bounds)):
            wanted = [n for n in range(start, end) if split in (None, splits[n])]
            if not wanted:
                continue
            table = self._shard(number).take([int(rows[n]) for n in wanted])
            columns = {name: table[name].to_pylist() for name in table.column_names if name not in ("places", "values")}
            places, values = table["places"].combine_chunks(), table["values"].combine_chunks()
            for place, n in enumerate(wanted):
                shape = Configuration(*(columns[name][place] for name in CONFIGURATION))
                size = (columns["tokens"][place], columns["positions"][place] - 1, columns["width"][place])
                yield Entry(
                    n,
                    splits[n],
                    columns["program"][place],
                    columns["key"][place],
                    layout_of(*size, shape),
                    places[place].values.to_numpy(),
                    values[place].values.to_numpy(),
                )

    def _shard(self, number: int) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = shard_file(self.folder, number)
        try:
            table = pq.read_table(path, page_checksum_verification=True)
            facts = json.loads(table.schema.metadata[METADATA])
            if facts["checksum"] != _checksum(table, facts):
                raise ValueError("it differs from its checksum")
            return table
        except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
            raise ZooError(
                f"{path} cannot be read ({error}): delete it and {MANIFEST}, and run the same `weightspace zoo make` "
                "again, which makes only what is missing"
            ) from None


def check_program_zoo(folder: str | Path, recompiled: int = 200) -> list[ZooFinding]:
    """Verify every checksum, look for programs that stand on both sides of a split, and compile some again.

    Args:
        recompiled: how many programs are compiled again and compared entry by entry.
    Returns:
        what was found; empty for a sound zoo.
    """
    zoo = ProgramZoo.open(folder)
    found = [
        ZooFinding(
            "damage", f"{name} is missing or has changed: delete it and run the same `weightspace zoo make` again"
        )
        for name in changed_files(zoo.folder)
    ]
    if found:
        return found
    keys = zoo.index["key"].to_numpy()
    if len(np.unique(keys)) < len(keys):
        found.append(ZooFinding("leak", f"{len(keys) - len(np.unique(keys))} programs stand in the index twice"))
    if not np.array_equal(np.array(SPLITS)[splits_of(keys)], zoo.index["split"].to_pylist()):
        found.append(ZooFinding("leak", "the splits are not those that the programs' keys give"))
    config, step = zoo.config, max(1, len(zoo) // max(1, recompiled))
    for entry in zoo.entries():
        if entry.number % step == 0:
            program = entry.program
            meant = fused(program) if config.distribution == "paper" else program
            try:
                same = np.array_equal(compile_program(meant, mode=config.mode).flat, entry.flat)
            except RaspError:
                same = False
            if not same:
                found.append(ZooFinding("damage", f"program {entry.number} does not compile to the weights beside it"))
    return found


def program_zoo_info(folder: str | Path) -> dict[str, Any]:
    """What a zoo of programs holds: counts, splits, drops by reason, sizes, bytes a program."""
    zoo = ProgramZoo.open(folder)
    parameters, lengths = (zoo.index[name].to_numpy() for name in ("parameters", "length"))
    splits = zoo.index["split"].to_pylist()
    size = sum((zoo.folder / name).stat().st_size for name in [*zoo.manifest["sha256"], MANIFEST])
    return {
        "folder": str(folder),
        "recipe": zoo.config.recipe,
        "distribution": zoo.config.distribution,
        "mode": zoo.config.mode,
        "seed": zoo.config.seed,
        "version": zoo.description["version"],
        "programs": len(zoo),
        "dropped": zoo.manifest["dropped"],
        "splits": {name: splits.count(name) for name in SPLITS},
        "operations": {str(n): int((lengths == n).sum()) for n in np.unique(lengths)},
        "parameters": {
            name: int(value)
            for name, value in zip(
                ("mean", "median", "90%", "max"),
                (parameters.mean(), *np.quantile(parameters, [0.5, 0.9, 1.0])),
                strict=True,
            )
        },
        "bytes": size,
        "bytes a program": round(size / len(zoo), 1),
    }
