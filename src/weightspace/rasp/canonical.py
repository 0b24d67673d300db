"""When two programs are the same, and the order of a program's lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from struct import pack
from typing import Any

import numpy as np

from weightspace.errors import RaspError
from weightspace.rasp.functions import Function, Value
from weightspace.rasp.lambdas import ONE_ARGUMENT, SEQUENCE, recognise
from weightspace.rasp.language import (
    COMPARISONS,
    PREDICATES,
    Aggregate,
    Comparison,
    Expression,
    LinearSequenceMap,
    Map,
    Select,
    SelectorWidth,
    SequenceMap,
    SOp,
    indices,
    rebuild,
    tokens,
)
from weightspace.rasp.program import Program
from weightspace.rasp.validate import Analysis, NotCompilable, Traits, analyse, settings
from weightspace.rasp.values import Table, predicate_table, tabulate_pairs

# -- what the weights know of a program ------------------------------------------------------------------------------


def canonical_key(analysis: Analysis) -> bytes:
    """16 bytes that are equal for programs whose weights are, up to the order of groups of directions, units and heads.

    Every function counts as its table: a categorical result as its place among the sorted results, since weights do not
    hold the values; a numerical one as a float64; tokens and indices by how many there are. Dead code does not count,
    operands of SequenceMap and LinearSequenceMap have no order, and what is computed twice counts once. Names,
    `causal` and the vocabulary's own values are not in the weights. The encodings, the exactness where it is used, the
    mode, and the number of tokens and places are.

    So programs with equal keys have, once what they compute twice is merged, equal weights up to a permutation. The
    reverse holds as long as the values of each categorical S-op keep their order: `x` and `4 - x` have different keys.

    Raises:
        NotCompilable: if the program cannot be compiled.
    """
    if analysis.reasons:
        raise NotCompilable(analysis.reasons)
    digests, twice = _digests(analysis)
    if twice:
        analysis = merged(analysis)
        digests, _ = _digests(analysis)
    head = f"{analysis.mode} {len(analysis.vocab)} {analysis.max_seq_len} ".encode()
    return _hash(head + digests[id(analysis.program.output)])


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


_TOKENS, _INDICES = _hash(b"tokens"), _hash(b"indices")
_KINDS: dict[Any, bytes] = {
    (operation, encoding): f"{operation.__name__} {encoding} ".encode()
    for operation in (Map, SequenceMap, LinearSequenceMap, Aggregate, SelectorWidth)
    for encoding in ("categorical", "numerical")
}


def _digests(analysis: Analysis) -> tuple[dict[int, bytes], bool]:
    """The digest of each S-op by the `id` of its node, and whether an operation reads the same thing as two.

    Such an operation has a smaller table than the analysis gives it.
    """
    digests, twice = {id(tokens): _TOKENS, id(indices): _INDICES}, False
    exactness = pack("d", analysis.program.mlp_exactness)
    for key, t in analysis.traits.items():
        node = t.node
        kind = type(node)
        if kind is Map or (kind is SequenceMap and node.first is node.second):  # type: ignore[attr-defined]
            inner = node.inner if kind is Map else node.first  # type: ignore[attr-defined]
            data = _KINDS[Map, node.encoding] + digests[id(inner)] + _table_digest(t)
            if unmet := _unmet(t):
                data += pack("q", unmet)
            if inner.numerical:
                data += exactness
        elif kind is SequenceMap:
            first, second = digests[id(node.first)], digests[id(node.second)]  # type: ignore[attr-defined]
            twice |= first == second
            if second < first:
                first, second = second, first
                table = _kept(t.table, "transposed", lambda table: table.places.T.tobytes())
            else:
                table = _kept(t.table, "straight", lambda table: table.places.tobytes())
            data = _KINDS[SequenceMap, node.encoding] + first + second + table
        elif kind is LinearSequenceMap:
            reads = [
                digests[id(node.first)] + pack("d", node.first_factor + 0.0),  # type: ignore[attr-defined]
                digests[id(node.second)] + pack("d", node.second_factor + 0.0),  # type: ignore[attr-defined]
            ]
            data = _KINDS[LinearSequenceMap, node.encoding] + min(reads) + max(reads)
        elif t.selection is not None:
            keys, queries, mask = t.selection
            twice |= keys is not queries and digests[id(keys)] == digests[id(queries)]
            read = digests[id(node.sop)] if kind is Aggregate else exactness  # type: ignore[attr-defined]
            data = _KINDS[kind, node.encoding] + digests[id(keys)] + digests[id(queries)] + read + mask.tobytes()
        else:
            continue
        digests[key] = _hash(data)
    return digests, twice


def _unmet(t: Traits) -> int:
    """How many values there are that f(x, x) never gives: Tracr has those of all f(x, y)."""
    if type(t.node) is not SequenceMap or t.table is None:
        return 0
    return len(t.table.values) - len(np.unique(t.table.places[t.table.places >= 0]))


def _table_digest(t: Traits) -> bytes:
    """Of a function of one value. Numbers that come in, whose midpoints are weights, follow from what is read."""
    if not t.node.numerical:
        return _kept(t.table, "places", lambda table: table.places.tobytes())
    # adding 0 turns -0.0 into 0.0, which is the same weight
    return _kept(
        t.table, "numbers", lambda table: (np.append(table.values.numbers, np.nan)[table.places] + 0.0).tobytes()
    )


def _kept(table: Table | None, name: Any, make: Callable[[Table], bytes]) -> bytes:
    """The digest of a table, kept with it."""
    assert table is not None
    found = table.blocks.get(("digest", name))
    if found is None:
        found = table.blocks["digest", name] = _hash(make(table))
    return found


def merged(analysis: Analysis) -> Analysis:
    """The program that the weights know of: what is computed twice is merged, all values and functions are tables.

    Two S-ops are the same if weights cannot tell them apart, as `x + 1` and `x - 1` of the tokens, which have other
    values. So every categorical value is replaced by its place among the sorted ones, and every function by its table.
    Where nothing is computed twice, its compiled weights are those of the program given. Its functions have no source:
    it is there to be compiled, not to be written down.
    """
    while True:
        digests, _ = _digests(analysis)
        traits, made, new = analysis.traits, dict[bytes, SOp](), dict[int, SOp]()
        for key, t in traits.items():
            digest = digests[key]
            if digest not in made:
                made[digest] = t.node if t.node is tokens or t.node is indices else _tabulated(t, traits, new)
            new[key] = made[digest]
        program = analysis.program
        program = Program.of(
            new[id(program.output)], causal=program.causal, mlp_exactness=program.mlp_exactness
        ).meant_for(range(len(analysis.vocab)), analysis.max_seq_len)
        found = analyse(program, tuple(range(len(analysis.vocab))), analysis.max_seq_len, analysis.mode)
        if found.reasons:  # f(x, x) can be undefined everywhere where f(x, y) is not
            return analysis
        if len(found.traits) == len(traits):
            return found
        analysis = found


def _tabulated(t: Traits, traits: dict[int, Traits], new: dict[int, SOp]) -> SOp:
    node, encoding = t.node, t.node.encoding
    match node:
        case Map(inner=inner) | SequenceMap(first=inner) if isinstance(node, Map) or inner is node.second:
            assert t.table is not None
            if _unmet(t) and isinstance(node, SequenceMap):
                both = tabulate_pairs(node.function, traits[id(inner)].values, traits[id(inner)].values).places
                return SequenceMap(
                    Function("a table", 2, lambda x, y: None if both[x, y] < 0 else int(both[x, y])),
                    new[id(inner)],
                    new[id(inner)],
                )
            entries = dict(zip(_plain(traits[id(inner)]), _results(t), strict=True))
            return Map(Function("a table", 1, entries.get), new[id(inner)], encoding=encoding)
        case SequenceMap():
            assert t.table is not None
            rows = np.reshape(np.array(_results(t), dtype=object), t.table.places.shape)
            first = new[id(node.first)]
            if first is new[id(node.second)]:  # of what was two, only equal values meet
                entries = {x: rows[x, x] for x in range(len(rows))}
                return Map(Function("a table", 1, entries.get), first, encoding=encoding)
            function = Function("a table", 2, lambda x, y: rows[x, y])
            return SequenceMap(function, new[id(node.first)], new[id(node.second)])
        case LinearSequenceMap():
            return rebuild(node, [new[id(child)] for child in node.children], None)  # type: ignore[return-value]
    assert t.selection is not None
    keys, queries, mask = t.selection
    select = Select(new[id(keys)], new[id(queries)], Function("a table", 2, lambda x, y: bool(mask[x, y])))
    if isinstance(node, Aggregate):
        return Aggregate(select, new[id(node.sop)], encoding=encoding)
    return SelectorWidth(select, encoding=encoding)


def _plain(t: Traits) -> Sequence[Value]:
    return t.values.values if t.node.numerical else range(len(t.values))


def _results(t: Traits) -> list[Value]:
    assert t.table is not None
    results = [*_plain(t), None]
    return [results[place] for place in t.table.places.ravel().tolist()]


# -- the same program, in one way of writing it ----------------------------------------------------------------------


def canonical_program(
    program: Program, vocab: Sequence[Value] | None = None, max_seq_len: int | None = None
) -> Program:
    """The same program in one way of writing it: its lines by depth, its variables v1, v2, ..., nothing dead or twice.

    Where vocabulary and length are known, from the arguments or the program, expressions are also equal if their
    functions are on the values that can come; otherwise only if they are written alike. A comparison that is written as
    a function gets its name, and factors are floats, as in a program that comes from a text.

    Raises:
        RaspError: if vocabulary or length are not as they must be.
    """
    known = program.meant_for(vocab, max_seq_len)
    if known.vocab is not None and known.max_seq_len is not None:
        chosen, length = settings(known, None, None)
    else:
        chosen, length = None, 0
    while True:
        traits = {} if chosen is None else analyse(known, chosen, length, "fixed", whole=False).traits
        merged = _without_copies(known, traits)
        if len(merged) == len(known):
            break
        known = merged
    lines = [node for level in by_depth(merged) for node in level]
    return replace(merged, statements=tuple((f"v{number}", node) for number, node in enumerate(lines, 1)))


def _without_copies(program: Program, traits: dict[int, Traits]) -> Program:
    made: dict[Any, Expression] = {}
    new: dict[int, Expression] = {id(tokens): tokens, id(indices): indices}
    for node in program.nodes:
        if node is tokens or node is indices:
            continue
        children = [new[id(child)] for child in node.children]
        meaning = _meaning(node, traits)
        encoding = node.encoding if isinstance(node, SOp) else None
        default = repr(node.default) if isinstance(node, Aggregate) else None
        key = (type(node), meaning, encoding, default, *map(id, children))
        if key not in made:
            made[key] = _rewritten(node, children)
        new[id(node)] = made[key]
    output = new[id(program.output)]
    assert isinstance(output, SOp)
    nodes = [*made.values()]
    return replace(program, output=output, statements=tuple((f"v{i}", node) for i, node in enumerate(nodes, 1)))


def _meaning(node: Expression, traits: dict[int, Traits]) -> Any:
    """What an operation does besides what it reads."""
    match node:
        case Map() | SequenceMap():
            t = traits.get(id(node))
            if t is None or t.table is None:
                return node.function
            values, places = t.table.values.values, t.table.places
            return values, tuple(map(type, values)), places.shape, places.tobytes()
        case LinearSequenceMap():
            return node.first_factor, node.second_factor
        case Select():
            keys, queries = traits.get(id(node.keys)), traits.get(id(node.queries))
            if keys is None or queries is None:
                return node.function
            try:
                return predicate_table(node.function, keys.values, queries.values).tobytes()
            except RaspError:  # it cannot be compiled, but it can be written
                return node.function
    return None


def _rewritten(node: Expression, children: Sequence[Expression]) -> Expression:
    match node:
        case LinearSequenceMap():
            first, second = children
            assert isinstance(first, SOp) and isinstance(second, SOp)
            factors = (float(node.first_factor), float(node.second_factor))
            return LinearSequenceMap(first, second, *factors, encoding=node.encoding, label=node.label)
        case Select() if node.function.source in COMPARISON_NAMES:
            keys, queries = children
            assert isinstance(keys, SOp) and isinstance(queries, SOp)
            return Select(keys, queries, COMPARISON_NAMES[node.function.source], label=node.label)
    same = len(children) == len(node.children) and all(a is b for a, b in zip(children, node.children, strict=True))
    return node if same else rebuild(node, children, node.label)


COMPARISON_NAMES: dict[str, Comparison] = {PREDICATES[name].source: name for name in COMPARISONS}
"""The name of each comparison by the source of its function."""


# -- the paper's order of lines --------------------------------------------------------------------------------------

PREDICATE_NAMES = tuple(f"PRED_{name}" for name in ("EQ", "FALSE", "TRUE", "GEQ", "GT", "LEQ", "LT", "NEQ"))
OPERATION_NAMES = ("Map", "Select", "SequenceMap", "Aggregate", "SelectorWidth")
INPUT_NAMES = ("tokens", "indices")
"""Predicates, operations and inputs of the paper's programs, in the order of its code."""


def _scores() -> dict[str, int]:
    scores = dict(zip(PREDICATE_NAMES, range(len(PREDICATE_NAMES)), strict=True))
    for names in (SEQUENCE, ONE_ARGUMENT, OPERATION_NAMES, INPUT_NAMES):
        least = 4 * max(scores.values())
        scores |= {name: least + place for place, name in enumerate(names)}
    return scores


SCORES = _scores()
"""What each token of a line adds to its score; variables, and what the paper does not know, add nothing."""
_ARGUMENTS = {
    name: place for place, name in enumerate((*ONE_ARGUMENT, *SEQUENCE, *PREDICATE_NAMES, "indices", "tokens"))
}


def argument_order(argument: str) -> int:
    """Where an argument stands in a line of the paper: lambdas, predicates, indices, tokens, v1, v2, ..., NA."""
    known = _ARGUMENTS.get(argument)
    if known is not None:
        return known
    return len(_ARGUMENTS) + int(argument[1:]) if argument[1:].isdecimal() else 1_000_000


def paper_detail(node: Expression) -> str | None:
    """The lambda or predicate of a line, as the paper writes it; None if it has none, "" if the paper knows no such."""
    if isinstance(node, Map | SequenceMap):
        found = recognise(node.function)
        return "" if found is None else found.published
    if isinstance(node, Select):
        name = COMPARISON_NAMES.get(node.function.source)
        return "" if name is None else f"PRED_{name}"
    return None


def by_depth(program: Program) -> list[list[Expression]]:
    """The operations of a program by depth, selectors included (Langosco et al., Figure 12), dead code left out.

    Tokens and indices have depth 0, every operation one more than the deepest that it reads. Within a depth, lines
    stand by the sum of their tokens' scores as in the published code. Where that leaves a tie the published order is
    left to a sorting algorithm that is not stable; here it goes by the arguments in their order, and then by the whole
    text of the line, in which variables are numbered by the order of the depths before. Copies of a line stand in the
    order in which the output's operands lead to them.
    """
    depths = {id(tokens): 0, id(indices): 0}
    levels: list[list[Expression]] = []
    for node in program.nodes:
        if node is not tokens and node is not indices:
            depth = depths[id(node)] = 1 + max(depths[id(child)] for child in node.children)
            if depth > len(levels):
                levels.append([])
            levels[depth - 1].append(node)
    names, count = {id(tokens): "tokens", id(indices): "indices"}, 0
    for level in levels:
        ranks = {id(node): _rank(node, [names[id(child)] for child in node.children]) for node in level}
        level.sort(key=lambda node: ranks[id(node)])
        for node in level:
            count += 1
            names[id(node)] = f"v{count}"
    return levels


def _rank(node: Expression, reads: list[str]) -> tuple[Any, ...]:
    operation, detail = type(node).__name__, paper_detail(node)
    arguments = reads if detail is None else [detail, *reads]
    score = SCORES.get(operation, 0) + sum(SCORES.get(argument, 0) for argument in arguments)
    text = ""
    match node:
        case Map() | SequenceMap() | Select():
            text = node.function.source
        case LinearSequenceMap():
            text = f"{float(node.first_factor)} {float(node.second_factor)}"
        case Aggregate():
            text = repr(node.default)
    encoding = node.encoding if isinstance(node, SOp) else ""
    return (score, operation, sorted(map(argument_order, arguments)), [*map(argument_order, reads)], text, encoding)
