"""From a program to a transformer's weights: Tracr's construction, out of blocks that are kept and shifted into place.

Tracr (Lindner et al., 2023, section 3) turns each S-op into an attention head, an MLP or both, over named directions of
the residual stream. Here the entries of such a block are computed once for each function and value set, as arrays of
coordinates relative to the directions that it reads and writes; to compile a program is to look its blocks up, give
every direction its place, and add offsets. `docs/rasp.md` says what `fixed` does otherwise than `tracr_compat`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from weightspace.rasp.compiler.layers import half_layers, slots
from weightspace.rasp.compiler.transformer import (
    FIRST,
    KEY,
    OUT,
    QUERY,
    SECOND,
    VALUE,
    CompiledTransformer,
    Configuration,
    Directions,
    Layout,
    Output,
    layout_of,
)
from weightspace.rasp.functions import Value
from weightspace.rasp.language import (
    BOS,
    EXACTNESS,
    Aggregate,
    Expression,
    LinearSequenceMap,
    Map,
    SelectorWidth,
    SequenceMap,
    SOp,
    Statements,
    indices,
    tokens,
)
from weightspace.rasp.program import Program
from weightspace.rasp.validate import (
    Analysis,
    Mode,
    NotCompilable,
    Reason,
    Traits,
    analyse,
    check_mode,
    settings,
)
from weightspace.rasp.values import KEPT, Table, ValueSet, distinguishable, token_space, value_set

COLDNESS = 100.0
"""Score of a selected key: so large that the softmax is hard (Tracr's `softmax_coldness`)."""
LARGEST_MODEL = 200_000_000
"""A program whose transformer would have more parameters is refused."""

# The groups of directions that a block may read or write.
INPUT, QUERIES, AGGREGATED, ONE, BOS_PLACE, INPUT_NONE, SECOND_NONE, RESULT, RESULT_NONE, SCRATCH = range(10)
KEYS, SECOND_INPUT = INPUT, QUERIES
SCRATCH_NAME, NONE_NAME = "_selector_width_attn_output", "_none"
CLEANING = "clean"
LABELS: dict[type[Expression], str] = {
    Map: "map",
    SequenceMap: "sequence_map",
    LinearSequenceMap: "linear_sequence_map",
    Aggregate: "aggregate",
    SelectorWidth: "selector_width",
}


def compile_program(
    program: Program | SOp,
    *,
    vocab: Sequence[Any] | None = None,
    max_seq_len: int | None = None,
    mode: Mode = "fixed",
) -> CompiledTransformer:
    """The transformer that computes a program.

    Args:
        program: or the S-op that it computes.
        vocab: the tokens, instead of those that the program says it is meant for.
        max_seq_len: the longest input, BOS not counted, instead of the program's.
        mode: `fixed`, whose forward pass gives what the interpreter gives; or `tracr_compat`, which equals Tracr's
            weights matrix by matrix where the S-ops carry Tracr's labels (without them, up to a permutation).
    Raises:
        NotCompilable: with every reason why the program cannot be compiled.
        RaspError: if vocabulary or length are missing or wrong.
    """
    check_mode(mode)
    program = program if isinstance(program, Program) else Program.of(program)
    chosen, length = settings(program, vocab, max_seq_len)
    analysis = analyse(program, chosen, length, mode)
    if analysis.reasons:
        raise NotCompilable(analysis.reasons)
    return assemble(analysis)


def assemble(analysis: Analysis) -> CompiledTransformer:
    """The transformer of a program that has been analysed and found without fault.

    Raises:
        NotCompilable: if it would have more than 200 million parameters, two labels are equal, or Tracr would fail.
    """
    program, fixed, length = analysis.program, analysis.mode == "fixed", analysis.max_seq_len
    traits = analysis.traits
    operations = [t for t in traits.values() if t.depth]
    labels = direction_labels(program, operations, fixed)
    own = [labels[id(t.node)] for t in operations]
    blocks = [_block(t, traits, labels, length, program.mlp_exactness, fixed) for t in operations]
    plan = _plan(program, operations, blocks, own, fixed)

    # where each group of directions stands in the residual stream
    space = token_space(analysis.vocab)
    sizes = {"tokens": len(space), "indices": length}
    if any(block.reads_one for block in blocks):
        sizes["one"] = 1
    for t, block, label in zip(operations, blocks, own, strict=True):
        if label in sizes:
            raise NotCompilable([Reason("", f"two S-ops carry the label {label!r}: give each its own")])
        sizes[label] = 1 if t.node.numerical else len(t.values)
        if block.scratch:
            sizes[label + SCRATCH_NAME] = 1
        if block.writes_none:
            sizes[label + NONE_NAME] = 1
    names = sorted(sizes)
    starts = dict(zip(names, accumulate((sizes[name] for name in names), initial=0), strict=False))
    width = sum(sizes.values())
    configuration = Configuration(plan.heads, plan.layers, plan.key_size, plan.hidden, program.causal)
    layout = layout_of(len(space), length, width, configuration)
    if layout.size > LARGEST_MODEL:
        text = f"its transformer would have {layout.size:,} parameters: at most {LARGEST_MODEL:,} are allowed"
        raise NotCompilable([Reason("", text)])

    # the entries of all blocks by one set of array operations
    bos, one = starts["tokens"] + space.index(BOS), starts.get("one", 0)
    offsets, strides = _offsets(operations, blocks, plan, layout, labels, starts, bos, one)
    lengths = [len(block.codes) for block in blocks]
    code = np.concatenate([block.code for block in blocks])
    code = code + np.repeat([0, *accumulate(lengths[:-1])], [len(block.code) for block in blocks])
    places = np.concatenate([block.along for block in blocks])
    places *= np.array(strides)[code]
    places += np.array(offsets)[code]
    places += np.concatenate([block.across for block in blocks])
    values = np.concatenate([block.values for block in blocks])
    if fixed:  # the forward pass divides scores by this
        queries = [matrix == QUERY for block in blocks for matrix, _, _ in block.codes]
        values *= np.where(queries, np.sqrt(plan.key_size), 1.0)[code]
    cleaning = [
        layout.offset(layer, FIRST) + bos * plan.hidden + unit for layer, unit, _ in plan.cleaning
    ]  # Tracr adds this unit once for each SelectorWidth of the layer
    embedded = _embedding(layout, starts, len(space), length)
    return CompiledTransformer(
        configuration=configuration,
        layout=layout,
        places=np.concatenate([embedded, places, np.array(cleaning, dtype=np.int64)]),
        values=np.concatenate(
            [np.ones(len(embedded)), values, [1.0 if fixed else float(count) for _, _, count in plan.cleaning]],
            dtype=np.float32,
            casting="same_kind",
        ),
        directions=_directions(traits, labels, starts, names, space),
        vocab=analysis.vocab,
        max_seq_len=length,
        output=_output(program, traits, labels, starts, fixed),
        mode=analysis.mode,
    )


def direction_labels(program: Statements, operations: Sequence[Traits], fixed: bool) -> dict[int, str]:
    """The names by which directions are sorted, by the `id` of the S-op.

    Tracr's labels decide where a direction stands; they hold a counter, sorted as text. `fixed` gives names that depend
    on the program alone, zero-padded.
    """
    labels = {id(tokens): "tokens", id(indices): "indices"}
    if fixed:
        digits = max(2, len(str(len(operations))))
        for number, t in enumerate(operations):
            labels[id(t.node)] = f"{LABELS[type(t.node)]}_{number + 1:0{digits}d}"
    else:
        for number, (_, node) in enumerate(program.statements):
            if isinstance(node, SOp):
                labels[id(node)] = node.label or f"{LABELS[type(node)]}_{number + 1}"
    return labels


# -- the plan: which layer, head and hidden units --------------------------------------------------------------------


class Plan(NamedTuple):
    """Where the blocks of a program go.

    Attributes:
        attention, mlp, head: layer of each block's attention and MLP, and its head there; 0 where it has none.
        units: for each block the first hidden unit of each of its groups.
        cleaning: (layer, unit, how many blocks share it) of the units that clean the place of BOS.
        layers, heads, key_size, hidden: sizes of the transformer.
    """

    attention: list[int]
    mlp: list[int]
    head: list[int]
    units: list[list[int]]
    cleaning: list[tuple[int, int, int]]
    layers: int
    heads: int
    key_size: int
    hidden: int


def _plan(
    program: Statements, operations: Sequence[Traits], blocks: Sequence[Block], labels: Sequence[str], fixed: bool
) -> Plan:
    halves = half_layers(program.output, [t.node for t in operations], [t.depth for t in operations])
    count = len(operations)
    attention, mlp, head = [0] * count, [0] * count, [0] * count
    units: list[list[int]] = [[] for _ in range(count)]
    cleaning = []
    heads, key_size, hidden, slot = 1, 1, 1, 0
    for half, slot in slots(halves).items():
        layer = slot // 2
        members = halves[half]
        if half % 2 == 0:
            heads = max(heads, len(members))
            for place, number in enumerate(members):
                attention[number], head[number] = layer, place
        else:
            groups = []
            for number in members:
                mlp[number] = layer
                units[number] = [0] * len(blocks[number].groups)
                for place, (suffix, size) in enumerate(blocks[number].groups):
                    groups.append((_unit_name(labels[number], suffix), number, place, size))
            groups.sort()
            start, shared = 0, -1
            for name, number, place, size in groups:
                if blocks[number].groups[place][0] == CLEANING:
                    if shared < 0:
                        shared, start = start, start + 1
                        sharing = sum(other[0] == name for other in groups)
                        cleaning.append((layer, shared, sharing))
                    units[number][place] = shared
                else:
                    units[number][place] = start
                    start += size
            hidden = max(hidden, start)
    sizes = [block.head for block in blocks if block.head is not None]
    if sizes:
        key_size = max(max(queries, keys) for queries, keys, _ in sizes)
        widest = max(moved for _, _, moved in sizes)
        if fixed:
            key_size = max(key_size, widest)
        elif widest > key_size:
            text = (
                f"Tracr itself fails on it (could not broadcast): a head moves {widest} directions and the key size, "
                f"which it takes from queries and keys alone, is {key_size}; mode='fixed' compiles it"
            )
            raise NotCompilable([Reason("", text)])
    return Plan(attention, mlp, head, units, cleaning, slot // 2 + 1, heads, key_size, hidden)


def _unit_name(label: str, suffix: str | None) -> str:
    """The name by which Tracr sorts hidden units."""
    if suffix is None:
        return label
    return "_hidden_clean_bos_" if suffix == CLEANING else f"_hidden_{label}_{suffix}"


def _offsets(
    operations: Sequence[Traits],
    blocks: Sequence[Block],
    plan: Plan,
    layout: Layout,
    labels: dict[int, str],
    starts: dict[str, int],
    bos: int,
    one: int,
) -> tuple[list[int], list[int]]:
    """For each code of each block: where its part of a matrix begins in the flat vector, and the step between rows."""
    width, hidden, key_size = layout.width, plan.hidden, plan.key_size
    across, relative = plan.heads * key_size, layout.relative
    offsets, strides = [], []
    for number, (t, block) in enumerate(zip(operations, blocks, strict=True)):
        read = [labels[id(sop)] for sop in read_by(t)]
        label = labels[id(t.node)]
        rows = [starts[name] for name in read]
        rows += [0] * (3 - len(rows))
        none = [starts.get(name + NONE_NAME, 0) for name in read[:2]] if block.reads_none else [0]
        rows += [one, bos, none[0], none[-1], starts[label]]
        rows += [starts.get(label + NONE_NAME, 0), starts.get(label + SCRATCH_NAME, 0)]
        units = plan.units[number]
        attention = layout.base + plan.attention[number] * layout.stride
        mlp = layout.base + plan.mlp[number] * layout.stride
        head = plan.head[number] * key_size
        for matrix, group, unit in block.codes:
            if matrix < OUT:
                offsets.append(attention + relative[matrix] + rows[group] * across + head)
                strides.append(across)
            elif matrix == OUT:
                offsets.append(attention + relative[OUT] + head * width + rows[group])
                strides.append(width)
            elif matrix == FIRST:
                offsets.append(mlp + relative[FIRST] + rows[group] * hidden + units[unit])
                strides.append(hidden)
            else:
                offsets.append(mlp + relative[SECOND] + units[unit] * width + rows[group])
                strides.append(width)
    return offsets, strides


def read_by(t: Traits) -> tuple[SOp, ...]:
    """The S-ops that a block reads, in the order of its groups of directions."""
    node = t.node
    if t.selection is not None:
        keys, queries, _ = t.selection
        return (keys, queries, node.sop) if isinstance(node, Aggregate) else (keys, queries)
    if isinstance(node, Map):
        return (node.inner,)
    assert isinstance(node, SequenceMap | LinearSequenceMap)
    return (node.first, node.second)


def _embedding(layout: Layout, starts: dict[str, int], count: int, length: int) -> np.ndarray:
    """Where the token and position embeddings are 1."""
    width = layout.width
    rows = np.arange(count)
    table = layout.positions * width + rows * width
    places = [table + (starts["tokens"] + rows)]
    if "one" in starts:
        places.append(table + starts["one"])
    rows = np.arange(length)
    places.append((rows + 1) * width + starts["indices"] + rows)
    return np.concatenate(places)


def _directions(
    traits: dict[int, Traits],
    labels: dict[int, str],
    starts: dict[str, int],
    names: list[str],
    space: tuple[Value, ...],
) -> tuple[Directions, ...]:
    values = {labels[i]: None if t.node.numerical else t.values.values for i, t in traits.items()}
    values["tokens"] = space
    return tuple(Directions(name, starts[name], values.get(name)) for name in names)


def _output(
    program: Statements, traits: dict[int, Traits], labels: dict[int, str], starts: dict[str, int], fixed: bool
) -> Output:
    t, label = traits[id(program.output)], labels[id(program.output)]
    numerical = t.node.numerical
    return Output(
        label,
        t.node.encoding,
        starts[label],
        None if numerical else t.values.values,
        starts.get(label + NONE_NAME) if numerical else None,
        fixed,
    )


# -- blocks ----------------------------------------------------------------------------------------------------------


class Block:
    """The entries of one S-op's head and MLP, relative to the directions it reads and writes.

    Attributes:
        codes: the (matrix, group of directions, group of units) that occur.
        code, along, across, values: of each entry its place among `codes`, the steps along and across the matrix from
            where that begins, and its value.
        groups: (suffix of the name, number of units) of its hidden units; empty if it has no MLP.
        head: (query directions, key directions, directions moved) as Tracr counts them; None if it has no head.
        bytes: that its arrays take.
        reads_one, reads_none, writes_none, scratch: which special directions it needs.
    """

    __slots__ = (
        "across", "along", "bytes", "code", "codes", "groups", "head", "reads_none", "reads_one", "scratch", "values",
        "writes_none",
    )  # fmt: skip

    def __init__(
        self,
        entries: BlockEntries,
        groups: tuple[tuple[str | None, int], ...] = (),
        head: tuple[int, int, int] | None = None,
        *,
        writes_none: bool = False,
        scratch: bool = False,
    ) -> None:
        self.codes = tuple(entries.codes)
        self.code, self.along, self.across, self.values = entries.arrays()
        self.groups, self.head, self.scratch = groups, head, scratch
        self.bytes = sum(array.nbytes for array in (self.code, self.along, self.across, self.values))
        read = {group for matrix, group, _ in self.codes if matrix not in (OUT, SECOND)}
        self.reads_one = ONE in read
        self.reads_none = INPUT_NONE in read or SECOND_NONE in read
        self.writes_none = writes_none


class BlockEntries:
    """Entries of matrices while a block is made."""

    def __init__(self) -> None:
        self.codes: dict[tuple[int, int, int], int] = {}
        self.parts: list[tuple[np.ndarray, ...]] = []

    def add(self, matrix: int, group: int, along: Any, across: Any, values: Any, units: int = 0) -> None:
        """Add entries; zeros are left out.

        Args:
            matrix: of a layer.
            group: of directions: of the rows, or of the columns where the matrix writes to the stream.
            along, across: row and column, counted from where the group (of directions, units, or the head) begins.
            values: of the entries.
            units: group of hidden units.
        """
        parts = [np.asarray(along, np.int64), np.asarray(across, np.int64), np.asarray(values, np.float64)]
        size = max(1 if part.ndim == 0 else part.size for part in parts)
        if min(part.size for part in parts) == 0:
            return
        along, across, values = (part if part.shape == (size,) else np.full(size, part) for part in parts)
        kept = values != 0
        if not kept.all():
            along, across, values = along[kept], across[kept], values[kept]
        if len(values):
            code = self.codes.setdefault((matrix, group, units), len(self.codes))
            self.parts.append((np.full(len(values), code), along, across, values))

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        code, along, across, values = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        return code, along, across, values


_blocks: dict[Any, Block] = KEPT.store()


def _kept(key: Any, make: Callable[[], Block]) -> Block:
    known = _blocks.get(key)
    if known is None:
        made = make()
        known = KEPT.keep(_blocks, key, made, made.bytes + 1_000)
    return known


def block_of(t: Traits, traits: dict[int, Traits], length: int, fixed: bool, exactness: float = EXACTNESS) -> Block:
    """The block of one operation alone; only the order of a head's columns depends on the program around it.

    Args:
        traits: of what it reads.
        length: of the longest input.
        exactness: how steep Tracr's steps are; `fixed` finds it by itself.
    """
    labels = {id(sop): LABELS.get(type(sop), "") for sop in read_by(t)}
    return _block(t, traits, labels, length, exactness, fixed)


def _block(
    t: Traits, traits: dict[int, Traits], labels: dict[int, str], length: int, exactness: float, fixed: bool
) -> Block:
    node = t.node
    if t.selection is not None:
        keys, queries, mask = t.selection
        key_values, query_values = traits[id(keys)].values, traits[id(queries)].values
        # BOS is among the tokens, whose directions may stand before or after those of the keys
        before = key_values.keys_before_bos if keys is tokens else len(mask) * (labels[id(keys)] < "tokens")
        selected = (key_values, query_values, mask.tobytes(), before)
        if isinstance(node, Aggregate):
            moved = traits[id(node.sop)].values if not node.numerical else None
            key = ("aggregate", moved, *selected)
            return _kept(key, lambda: _aggregate(key_values, query_values, mask, before, moved))
        steep = 4.0 * length * (length + 1) if fixed else exactness  # as steep as the nearest fractions need
        key = ("width", length, steep, node.numerical, *selected)
        return _kept(key, lambda: _width(key_values, query_values, mask, before, length, steep, node.numerical))
    if isinstance(node, LinearSequenceMap):
        first, second = traits[id(node.first)], traits[id(node.second)]
        partial = (first.partial, second.partial) if fixed else (False, False)
        largest = max(1.0, *(part.values.largest for part in (first, second))) if any(partial) else 0
        key = ("linear", node.first_factor, node.second_factor, partial, largest)
        return _kept(key, lambda: _linear(node.first_factor, node.second_factor, partial, largest))
    assert t.table is not None
    table = t.table
    if isinstance(node, SequenceMap) and node.first is not node.second:
        first, second = traits[id(node.first)].values, traits[id(node.second)].values
        return _of_table(table, "pairs", lambda: _pairs(table, first, second))
    inner = traits[id(read_by(t)[0])]
    if inner.node.numerical:
        partial = fixed and inner.partial
        if fixed:
            kind, kept = (
                ("steps", node.numerical, partial, inner.scale),
                distinguishable(table, inner.values, inner.scale),
            )
        else:
            kind, kept = ("steps of Tracr", node.numerical, exactness), np.flatnonzero(table.places >= 0)
        steep = None if fixed else exactness
        return _of_table(table, kind, lambda: _map_number(table, inner.values, kept, node.numerical, steep, partial))
    if node.numerical:
        return _of_table(
            table,
            ("numbers", fixed, fixed and t.partial),
            lambda: _map_to_number(table, inner.values, fixed, fixed and t.partial),
        )
    return _of_table(table, "categories", lambda: _map(table, inner.values))


def _of_table(table: Table, kind: Any, make: Callable[[], Block]) -> Block:
    """A block that is kept with the table of its function."""
    known = table.blocks.get(kind)
    if known is None:
        made = make()
        known = KEPT.keep(table.blocks, kind, made, made.bytes)
    return known


def _map(table: Table, inputs: ValueSet) -> Block:
    """Categorical to categorical: a unit for each result, which the inputs that have it switch on."""
    entries, some = BlockEntries(), table.places >= 0
    entries.add(FIRST, INPUT, inputs.rows[some], table.places[some], 1.0)
    results = np.arange(len(table.values))
    entries.add(SECOND, RESULT, results, results, 1.0)
    return Block(entries, ((None, len(results)),))


def _map_to_number(table: Table, inputs: ValueSet, fixed: bool, partial: bool) -> Block:
    """Categorical to numerical: one unit that is the number; Tracr's clips what is negative, `fixed` has a second."""
    entries, some = BlockEntries(), table.places >= 0
    rows, numbers = inputs.rows[some], table.values.numbers[table.places[some]]
    units = 1
    if fixed and (numbers < 0).any():
        entries.add(FIRST, INPUT, rows, 0, np.maximum(numbers, 0))
        entries.add(FIRST, INPUT, rows, 1, np.maximum(-numbers, 0))
        entries.add(SECOND, RESULT, 1, 0, [-1.0])
        units = 2
    else:
        entries.add(FIRST, INPUT, rows, 0, numbers)
    entries.add(SECOND, RESULT, 0, 0, [1.0])
    if partial:  # 1 where no input that has a result is there, but 0 at BOS
        entries.add(FIRST, ONE, 0, units, [1.0])
        entries.add(FIRST, BOS_PLACE, 0, units, [-1.0])
        entries.add(FIRST, INPUT, rows, units, -1.0)
        entries.add(SECOND, RESULT_NONE, units, 0, [1.0])
        units += 1
    return Block(entries, ((None, units),), writes_none=partial)


def _map_number(
    table: Table, inputs: ValueSet, kept: np.ndarray, numerical: bool, exactness: float | None, partial: bool
) -> Block:
    """Numerical to anything: a step between each two neighbouring inputs, and a unit that is always on.

    Args:
        kept: (n,) places of the inputs that are told apart.
        exactness: how steep the steps are; None for `fixed`, which makes them as steep as the nearest neighbours need,
            is silent at BOS, and knows None.
        partial: whether the input can be None.
    """
    fixed = exactness is None
    numbers, places = inputs.numbers, table.places
    below, above = numbers[kept[1:] - 1] if fixed else numbers[kept[:-1]], numbers[kept[1:]]
    thresholds, places = (below + above) / 2, places[kept]
    if exactness is None:  # no steeper than the nearest neighbours need: float32 rounds what is steep
        exactness = 4.0 / float((above - below).min()) if len(thresholds) else 1.0
    entries = BlockEntries()
    groups = _steps(entries, thresholds, places, table.values, numerical, exactness, INPUT)
    none = numerical and fixed and (partial or bool((places < 0).any()))
    if none:
        _steps_to(entries, (places < 0).astype(float), RESULT_NONE)
    if fixed:  # what the units read from `one` must not reach them at BOS
        pairs = np.arange(len(thresholds))
        entries.add(FIRST, BOS_PLACE, 0, 2 * pairs, exactness * thresholds - 1)
        entries.add(FIRST, BOS_PLACE, 0, 2 * pairs + 1, exactness * thresholds)
        entries.add(FIRST, BOS_PLACE, 0, 0, [-1.0], units=1)
    if partial:  # take back what the steps make of the 0 that stands for None
        groups = (*groups, ("none", 1))
        entries.add(FIRST, INPUT_NONE, 0, 0, [1.0], units=2)
        rises = np.clip(1 - exactness * thresholds, 0, 1)
        shares = np.append(1.0, rises) - np.append(rises, 0.0)
        if numerical:
            made = float(shares @ np.append(table.values.numbers, 0.0)[places])
            entries.add(SECOND, RESULT, 0, 0, [-made], units=2)
            entries.add(SECOND, RESULT_NONE, 0, 0, [1.0 - float(shares @ (places < 0))], units=2)
        else:
            taken: dict[int, float] = {}
            for place, share in zip(places.tolist(), shares.tolist(), strict=True):
                if place >= 0 and share:
                    taken[place] = taken.get(place, 0.0) + share
            for place, share in taken.items():
                entries.add(SECOND, RESULT, 0, place, [-share], units=2)
    return Block(entries, groups, writes_none=none)


def _steps(
    entries: BlockEntries,
    thresholds: np.ndarray,
    places: np.ndarray,
    results: ValueSet,
    numerical: bool,
    exactness: float,
    group: int,
) -> tuple[tuple[str, int], ...]:
    """Units that find out which of `numbers` a direction holds, and what they write; -1 among `places` is nothing.

    ReLU(E(x - t) + 1) - ReLU(E(x - t)) is 0 below t - 1/E and 1 above t, for t half-way between neighbours.
    """
    pairs = np.arange(len(thresholds))
    entries.add(FIRST, group, 0, 2 * pairs, exactness)
    entries.add(FIRST, group, 0, 2 * pairs + 1, exactness)
    entries.add(FIRST, ONE, 0, 2 * pairs, 1 - exactness * thresholds)
    entries.add(FIRST, ONE, 0, 2 * pairs + 1, -exactness * thresholds)
    entries.add(FIRST, ONE, 0, 0, [1.0], units=1)
    if numerical:
        written = np.append(results.numbers, 0.0)[places]
        _steps_to(entries, written, RESULT)
    else:
        for place, sign in ((places[1:], 1.0), (places[:-1], -1.0)):
            changed = (places[1:] != places[:-1]) & (place >= 0)
            entries.add(SECOND, RESULT, 2 * pairs[changed], place[changed], sign)
            entries.add(SECOND, RESULT, 2 * pairs[changed] + 1, place[changed], -sign)
        if places[0] >= 0:
            entries.add(SECOND, RESULT, 0, places[0], [1.0], units=1)
    return (("", 2 * len(pairs)), ("start", 1)) if len(pairs) else (("", 0), ("start", 1))


def _steps_to(entries: BlockEntries, written: np.ndarray, group: int) -> None:
    """Let the steps write numbers to one direction."""
    pairs = np.arange(len(written) - 1)
    entries.add(SECOND, group, 2 * pairs, 0, np.diff(written))
    entries.add(SECOND, group, 2 * pairs + 1, 0, -np.diff(written))
    entries.add(SECOND, group, 0, 0, written[:1], units=1)


def _pairs(table: Table, first: ValueSet, second: ValueSet) -> Block:
    """Two categoricals to one: a unit for each pair, on where both are."""
    entries = BlockEntries()
    rows, columns = np.divmod(np.arange(table.places.size), len(second))
    units = np.arange(table.places.size)
    entries.add(FIRST, INPUT, first.rows[rows], units, 1.0)
    entries.add(FIRST, SECOND_INPUT, second.rows[columns], units, 1.0)
    entries.add(FIRST, ONE, 0, units, -1.0)
    places = table.places.ravel()
    some = places >= 0
    entries.add(SECOND, RESULT, units[some], places[some], 1.0)
    return Block(entries, (("", len(units)),))


def _linear(first: int | float, second: int | float, partial: tuple[bool, bool], largest: int | float) -> Block:
    """A weighted sum: each input's positive and negative part, each by its factor; silent where an input is None."""
    entries = BlockEntries()
    for group, (source, factor) in enumerate(((INPUT, first), (SECOND_INPUT, second))):
        entries.add(FIRST, source, 0, np.arange(2), [-1.0, 1.0], units=group)
        entries.add(SECOND, RESULT, np.arange(2), 0, [-factor, factor], units=group)
        for none, is_partial in ((INPUT_NONE, partial[0]), (SECOND_NONE, partial[1])):
            if is_partial:
                entries.add(FIRST, none, 0, np.arange(2), -2 * largest, units=group)
    groups: tuple[tuple[str | None, int], ...] = (("x", 2), ("y", 2))
    if any(partial):  # None if either is: n - ReLU(n - 1), where n counts them
        for none, is_partial in ((INPUT_NONE, partial[0]), (SECOND_NONE, partial[1])):
            if is_partial:
                entries.add(FIRST, none, 0, np.arange(2), 1.0, units=2)
        entries.add(FIRST, ONE, 0, 1, [-1.0], units=2)
        entries.add(SECOND, RESULT_NONE, np.arange(2), 0, [1.0, -1.0], units=2)
        groups = (*groups, ("none", 2))
    return Block(entries, groups, writes_none=any(partial))


def _scores(
    entries: BlockEntries, keys: ValueSet, queries: ValueSet, mask: np.ndarray, before: int, to_bos: float
) -> None:
    """The queries and keys of a head. `before` of the keys sort before BOS, to which every place looks a little."""
    columns = np.arange(len(keys))
    columns += columns >= before
    chosen = np.nonzero(mask)
    entries.add(QUERY, QUERIES, queries.rows[chosen[1]], columns[chosen[0]], COLDNESS)
    entries.add(QUERY, ONE, 0, before, [to_bos])
    entries.add(KEY, KEYS, keys.rows, columns, 1.0)
    entries.add(KEY, BOS_PLACE, 0, before, [1.0])


def _aggregate(keys: ValueSet, queries: ValueSet, mask: np.ndarray, before: int, moved: ValueSet | None) -> Block:
    """A head that averages an S-op over what is selected, and reads nothing from BOS where nothing is."""
    entries = BlockEntries()
    _scores(entries, keys, queries, mask, before, COLDNESS / 2)
    rows = np.zeros(1, dtype=np.int64) if moved is None else moved.rows
    entries.add(VALUE, AGGREGATED, rows, np.arange(len(rows)), 1.0)
    entries.add(OUT, RESULT, np.arange(len(rows)), np.arange(len(rows)), 1.0)
    return Block(entries, (), (len(queries) + 2, len(keys) + 1, len(rows)))


def _width(
    keys: ValueSet,
    queries: ValueSet,
    mask: np.ndarray,
    before: int,
    length: int,
    exactness: float,
    numerical: bool,
) -> Block:
    """A head that always looks to BOS too and so finds 1 / (width + 1), and an MLP that reads the width from it.

    At BOS itself a further unit takes back what the two have written.
    """
    entries = BlockEntries()
    _scores(entries, keys, queries, mask, before, COLDNESS)
    entries.add(VALUE, BOS_PLACE, 0, 0, [1.0])
    entries.add(OUT, SCRATCH, 0, 0, [1.0])
    widths = value_set(range(length + 1))
    fractions = np.array(sorted({1 / (width + 1) for width in range(length + 1)}))
    places = np.array([round(1 / fraction - 1) for fraction in fractions.tolist()])
    thresholds = (fractions[1:] + fractions[:-1]) / 2
    groups = _steps(entries, thresholds, places, widths, numerical, exactness, SCRATCH)
    entries.add(SECOND, SCRATCH, 0, 0, [-1.0], units=2)
    if not numerical:
        entries.add(SECOND, RESULT, 0, 0, [-1.0], units=2)
    return Block(entries, (*groups, (CLEANING, 1)), (len(queries) + 2, len(keys) + 1, 1), scratch=True)
