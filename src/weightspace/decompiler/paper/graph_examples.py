"""Programs of the paper's distribution with their weights as graphs: drawn shard by shard, kept on disk, read again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from random import Random
from zipfile import BadZipFile

import numpy as np

from weightspace.decompiler.network.graph import ANCHORS, ANSWER, Graph, graph_of
from weightspace.decompiler.paper.listing import target_lines
from weightspace.decompiler.paper.sampler_record import SamplerRecord, draw_record, program_of
from weightspace.decompiler.paper.settled import settled
from weightspace.errors import RaspError, TaskError
from weightspace.files.atomic import write_atomically
from weightspace.files.progress import progress
from weightspace.files.workers import processes, result
from weightspace.rasp.canonical import canonical_key
from weightspace.rasp.compiler.assemble import assemble
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.language import Selector, SequenceMap, fused, indices, tokens
from weightspace.rasp.program import Program
from weightspace.rasp.validate import NotCompilable, Selection, Traits, analyse, selection_of, settings, traits_of
from weightspace.rasp.values import token_set, value_set
from weightspace.zoo.programs.splits import split_of

SHARD = 1_024
"""Examples of one file."""
MOST_PARAMETERS = 49_999
"""Larger transformers are left out (section 4 of the paper: fewer than 50,000)."""


@dataclass(frozen=True, eq=False)
class GraphExample:
    """One example of the paper's task.

    Attributes:
        lines: (15, 5) int64, the program as it was drawn, see `listing.target_lines`.
        settled: (15, 5) int64, the same with the choices that weights leave open made in one way.
        graph: the weights, without a word on where the answer stands: nothing but parameters is read.
    """

    lines: np.ndarray
    settled: np.ndarray
    graph: Graph


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A program that no training sees, with its weights as the compiler writes them."""

    program: Program
    bare: BareTransformer


def surely_larger(program: Program, most: int = MOST_PARAMETERS) -> bool:
    """Whether a transformer has more parameters for sure, as one of its blocks shows; seen before tables are made."""
    vocab, length = settings(program, None, None)
    known = {id(tokens): Traits(tokens, token_set(vocab), False, 0)}
    known[id(indices)] = Traits(indices, value_set(range(length)), False, 0)
    selections: dict[int, Selection] = {}
    width, hidden, key, depth = len(vocab) + 2 + length, 1, 1, 0
    try:
        for node in program.nodes:
            if isinstance(node, Selector):
                found = selection_of(node, known, selections)
                if found is None:
                    return False
                selections[id(node)] = found
                key = max(key, len(known[id(found[0])].values) + 1, len(known[id(found[1])].values) + 2)
            elif node is not tokens and node is not indices:
                if isinstance(node, SequenceMap) and node.first is not node.second:
                    hidden = max(hidden, len(known[id(node.first)].values) * len(known[id(node.second)].values))
                    if (depth + 1) // 2 * width * 2 * hidden > most:
                        return True
                traits = traits_of(node, known, selections, length, False)  # type: ignore[arg-type]
                if traits is None:
                    return False
                known[id(node)] = traits
                width, depth = width + len(traits.values), max(depth, traits.depth)
            if (depth + 1) // 2 * width * (2 * hidden + 4 * key) > most:
                return True
    except RaspError:
        return False
    return False


def _compiled(program: Program, split: str) -> tuple[BareTransformer, bytes] | None:
    """The weights of a program, Maps of Maps fused, and its canonical form; None if it is not of the split."""
    meant = fused(program)
    if surely_larger(meant):
        return None
    analysis = analyse(meant, *settings(meant, None, None), "tracr_compat")
    if analysis.reasons:
        return None
    key = canonical_key(analysis)
    if split_of(key) != split:
        return None
    try:
        transformer = assemble(analysis)
    except NotCompilable:
        return None
    return None if len(transformer) > MOST_PARAMETERS else (BareTransformer.of(transformer), key)


def _drawn(split: str, seed: int, number: int) -> Iterator[tuple[SamplerRecord, Program, BareTransformer]]:
    """Records of different canonical forms, without end: a pure function of the arguments."""
    random, seen = Random(f"paper graphs {split} {seed} {number}"), set[bytes]()
    while True:
        record = draw_record(random)
        program = None if record is None else program_of(record)
        if record is None or program is None:
            continue
        found = _compiled(program, split)
        if found is not None and found[1] not in seen:
            seen.add(found[1])
            yield record, program, found[0]


def held_out_programs(count: int, seed: int) -> list[HeldOut]:
    """The first `count` test programs of a seed, each with other weights; those of fewer are the first of these.

    Raises:
        TaskError: if `count` is below 1.
    """
    if count < 1:
        raise TaskError(f"{count} programs cannot be drawn: ask for at least 1")
    drawn = _drawn("test", seed, 0)
    return [HeldOut(program, bare) for _, (_, program, bare) in zip(range(count), drawn, strict=False)]


def held_out_records(count: int, seed: int) -> list[SamplerRecord]:
    """All that the sampler chose for the programs of `held_out_programs`."""
    drawn = _drawn("test", seed, 0)
    return [record for _, (record, _, _) in zip(range(count), drawn, strict=False)]


def draw_examples(split: str, seed: int, number: int, count: int) -> list[GraphExample]:
    """`count` examples of a split: a pure function of the arguments."""
    found: list[GraphExample] = []
    for record, program, bare in _drawn(split, seed, number):
        likeliest = program_of(settled(record))
        assert likeliest is not None
        found.append(GraphExample(target_lines(program), target_lines(likeliest), weights_graph(bare)))
        if len(found) == count:
            break
    return found


def weights_graph(bare: BareTransformer) -> Graph:
    """The graph of a transformer without the anchors of its answer, which are not among the parameters."""
    graph = graph_of(bare)
    graph.anchors[:, ANSWER:] = 0
    return graph


# -- shards on disk ---------------------------------------------------------------------------------------------------


def pack(examples: Sequence[GraphExample]) -> bytes:
    """Examples as a compressed npz; of the matrices what is not zero."""
    sizes, layers, heads, counts, places, values = [], [], [], [], [], []
    for example in examples:
        g = example.graph
        flat = np.concatenate([m.ravel() for m in (g.anchors, g.first, g.second, g.scores, g.moves)])
        own = np.flatnonzero(flat)
        sizes.append((*g.first.shape, len(g.head_layer)))
        layers.append(g.unit_layer)
        heads.append(g.head_layer)
        counts.append(len(own))
        places.append(np.diff(own, prepend=0))
        values.append(flat[own].astype(np.float32))
    buffer = BytesIO()
    np.savez_compressed(
        buffer,
        lines=np.array([e.lines for e in examples], np.uint8),
        settled=np.array([e.settled for e in examples], np.uint8),
        sizes=np.array(sizes, np.int32),
        unit_layers=np.concatenate(layers).astype(np.uint8),
        head_layers=np.concatenate(heads).astype(np.uint8),
        counts=np.array(counts, np.int32),
        places=np.concatenate(places).astype(np.uint32),
        values=np.concatenate(values),
    )
    return buffer.getvalue()


def unpack(data: bytes) -> list[GraphExample]:
    """What `pack` has packed.

    Raises:
        TaskError: if it is damaged.
    """
    try:
        with np.load(BytesIO(data), allow_pickle=False) as file:
            part = {name: file[name] for name in file.files}
        examples, unit, head, entry = [], 0, 0, 0
        for row, (d, u, h) in enumerate(part["sizes"].tolist()):
            count = int(part["counts"][row])
            shapes = [(d, ANCHORS), (d, u), (u, d), (h, d, d), (h, d, d)]
            ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
            flat = np.zeros(ends[-1], np.float32)
            flat[np.cumsum(part["places"][entry : entry + count], dtype=np.int64)] = part["values"][
                entry : entry + count
            ]
            anchors, first, second, scores, moves = (
                piece.reshape(shape) for piece, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)
            )
            graph = Graph(
                anchors,
                first,
                second,
                part["unit_layers"][unit : unit + u].astype(np.int64),
                scores,
                moves,
                part["head_layers"][head : head + h].astype(np.int64),
            )
            examples.append(
                GraphExample(part["lines"][row].astype(np.int64), part["settled"][row].astype(np.int64), graph)
            )
            unit, head, entry = unit + u, head + h, entry + count
    except (KeyError, ValueError, OSError, EOFError, IndexError, BadZipFile) as error:
        raise TaskError(f"a shard of drawn programs is damaged ({error}): delete it, and it is drawn again") from error
    return examples


def shard_path(folder: Path, split: str, seed: int, number: int) -> Path:
    return folder / f"{split}-{seed}-{number:05d}.npz"


def write_shard(folder: Path, split: str, seed: int, number: int, count: int = SHARD) -> Path:
    """Draw a shard, unless it is there."""
    path = shard_path(folder, split, seed, number)
    if not path.exists():
        write_atomically(path, pack(draw_examples(split, seed, number, count)))
    return path


def make_shards(folder: Path, split: str, seed: int, numbers: Sequence[int], *, workers: int = 1, show: bool) -> None:
    """Draw shards ahead of a training; killed and called again, it goes on with those that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [number for number in numbers if not shard_path(folder, split, seed, number).exists()]
    done = (len(numbers) - len(missing)) * SHARD
    with progress("drawing programs", len(numbers) * SHARD, "programs", show, done=done) as advance:
        if workers == 0:
            for number in missing:
                write_shard(folder, split, seed, number)
                advance(SHARD)
            return
        with processes(workers) as (pool, _):
            waiting: list[Future[Path]] = [pool.submit(write_shard, folder, split, seed, n) for n in missing]
            for future in waiting:
                result(future)
                advance(SHARD)


@lru_cache(2)
def read_shard(path: Path) -> list[GraphExample]:
    """The examples of a shard's file.

    Raises:
        TaskError: if it is damaged.
    """
    try:
        return unpack(path.read_bytes())
    except TaskError as error:
        raise TaskError(f"{path}: {error}") from error
