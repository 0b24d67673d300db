"""RASP expressions and programs, as data: what a program says, apart from what it means and how it is compiled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

from weightspace.errors import RaspError
from weightspace.rasp.functions import Function, Value

Encoding = Literal["categorical", "numerical"]
"""How the residual stream holds an S-op: one direction a value, or one direction whose length is the number."""

Comparison = Literal["EQ", "NEQ", "LT", "LEQ", "GT", "GEQ", "TRUE", "FALSE"]
"""A predicate of a key (left) and a query (right)."""
COMPARISONS: tuple[Comparison, ...] = get_args(Comparison)
SOURCE_OF_COMPARISON: dict[Comparison, str] = {
    "EQ": "x == y",
    "NEQ": "x != y",
    "LT": "x < y",
    "LEQ": "x <= y",
    "GT": "x > y",
    "GEQ": "x >= y",
    "TRUE": "True",
    "FALSE": "False",
}
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
BOS, PAD = "compiler_bos", "compiler_pad"
"""The compiler's own tokens: the beginning of every sequence, and what fills a batch."""
EXACTNESS = 100.0
"""Tracr's `mlp_exactness`: how steep the steps are by which an MLP reads a number."""


class Expression:
    """A node of a program's graph. Nodes are compared by identity: the same expression twice is two nodes.

    Attributes:
        label: the name by which Tracr sorts this node's directions, or None to have one made.
    """

    __slots__ = ("label",)
    label: str | None

    @property
    def children(self) -> tuple[Expression, ...]:
        """What it reads, in the order of its arguments."""
        return ()


class SOp(Expression):
    """A sequence operation: one value at every place of the input."""

    __slots__ = ("encoding",)
    encoding: Encoding

    @property
    def numerical(self) -> bool:
        return self.encoding == "numerical"


class Selector(Expression):
    """A matrix of booleans: which key each query selects."""

    __slots__ = ()


class Tokens(SOp):
    """The input itself."""

    __slots__ = ()

    def __init__(self) -> None:
        self.label, self.encoding = "tokens", "categorical"


class Indices(SOp):
    """The places 0, 1, 2, ..."""

    __slots__ = ()

    def __init__(self) -> None:
        self.label, self.encoding = "indices", "categorical"


class Map(SOp):
    """A function of one S-op, at each place by itself."""

    __slots__ = ("function", "inner")

    def __init__(
        self, function: Function | str, inner: SOp, *, encoding: Encoding = "categorical", label: str | None = None
    ) -> None:
        self.function = _read(function, 1)
        self.inner, self.encoding, self.label = inner, encoding, label

    @property
    def children(self) -> tuple[Expression, ...]:
        return (self.inner,)


class SequenceMap(SOp):
    """A function of two S-ops, at each place by itself."""

    __slots__ = ("first", "function", "second")

    def __init__(
        self,
        function: Function | str,
        first: SOp,
        second: SOp,
        *,
        encoding: Encoding = "categorical",
        label: str | None = None,
    ) -> None:
        self.function = _read(function, 2)
        self.first, self.second, self.encoding, self.label = first, second, encoding, label

    @property
    def children(self) -> tuple[Expression, ...]:
        return (self.first, self.second)


class LinearSequenceMap(SOp):
    """A weighted sum of two numerical S-ops."""

    __slots__ = ("first", "first_factor", "second", "second_factor")

    def __init__(
        self,
        first: SOp,
        second: SOp,
        first_factor: int | float,
        second_factor: int | float,
        *,
        encoding: Encoding = "numerical",
        label: str | None = None,
    ) -> None:
        self.first, self.second, self.encoding, self.label = first, second, encoding, label
        self.first_factor, self.second_factor = first_factor, second_factor

    @property
    def children(self) -> tuple[Expression, ...]:
        return (self.first, self.second)


class Select(Selector):
    """Every query selects the keys for which the predicate holds.

    Attributes:
        predicate: a comparison by name, or a `Function` of x, the key, and y, the query.
    """

    __slots__ = ("keys", "predicate", "queries")

    def __init__(
        self, keys: SOp, queries: SOp, predicate: Comparison | Function | str, *, label: str | None = None
    ) -> None:
        if isinstance(predicate, str) and predicate not in COMPARISONS:
            predicate = Function.parse(predicate, 2)
        self.predicate: Any = predicate
        self.keys, self.queries, self.label = keys, queries, label

    @property
    def children(self) -> tuple[Expression, ...]:
        return (self.keys, self.queries)

    @property
    def function(self) -> Function:
        """The predicate as a function of x, the key, and y, the query."""
        predicate = self.predicate
        return predicate if isinstance(predicate, Function) else PREDICATES[predicate]


PREDICATES: dict[str, Function] = {name: Function.parse(text, 2) for name, text in SOURCE_OF_COMPARISON.items()}


class SelectorAnd(Selector):
    """What both selectors select."""

    __slots__ = ("first", "second")

    def __init__(self, first: Selector, second: Selector, *, label: str | None = None) -> None:
        self.first, self.second, self.label = first, second, label

    @property
    def children(self) -> tuple[Expression, ...]:
        return (self.first, self.second)


class SelectorOr(SelectorAnd):
    """What either selector selects."""

    __slots__ = ()


class SelectorNot(Selector):
    """What the selector does not select."""

    __slots__ = ("inner",)

    def __init__(self, inner: Selector, *, label: str | None = None) -> None:
        self.inner, self.label = inner, label

    @property
    def children(self) -> tuple[Expression, ...]:
        return (self.inner,)


class Aggregate(SOp):
    """The mean of an S-op over what a selector selects.

    Attributes:
        default: the value where nothing is selected: None for a categorical, 0 for a numerical Aggregate.
    """

    __slots__ = ("default", "selector", "sop")

    def __init__(
        self,
        selector: Selector,
        sop: SOp,
        *,
        encoding: Encoding = "categorical",
        default: Value | Literal["usual"] = "usual",
        label: str | None = None,
    ) -> None:
        self.selector, self.sop, self.encoding, self.label = selector, sop, encoding, label
        self.default: Value = usual_default(encoding) if default == "usual" else default

    @property
    def children(self) -> tuple[Expression, ...]:
        return (self.selector, self.sop)


def usual_default(encoding: Encoding) -> Value:
    """The default of an Aggregate that can be compiled."""
    return 0 if encoding == "numerical" else None


class SelectorWidth(SOp):
    """How many keys each query selects."""

    __slots__ = ("selector",)

    def __init__(self, selector: Selector, *, encoding: Encoding = "categorical", label: str | None = None) -> None:
        self.selector, self.encoding, self.label = selector, encoding, label

    @property
    def children(self) -> tuple[Expression, ...]:
        return (self.selector,)


tokens, indices = Tokens(), Indices()
"""The two inputs; every program reads these very objects."""


def _read(function: Function | str, arity: int) -> Function:
    if isinstance(function, str):
        return Function.parse(function, arity)
    if not isinstance(function, Function):
        raise RaspError(f"a function is text such as 'x + 1', or a Function, not {function!r}: Python's are not run")
    return function


OPERATIONS: tuple[type[Expression], ...] = (
    Map, SequenceMap, LinearSequenceMap, Select, SelectorAnd, SelectorOr, SelectorNot, Aggregate, SelectorWidth,
)  # fmt: skip
"""Every operation of the language, as a program text names it."""


def walk(output: Expression) -> Iterator[Expression]:
    """Every node that `output` depends on, itself last, each once and after what it reads."""
    done: set[int] = set()
    stack: list[tuple[Expression, bool]] = [(output, False)]
    while stack:
        node, ready = stack.pop()
        if id(node) in done:
            continue
        if ready:
            done.add(id(node))
            yield node
        else:
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(node.children) if id(child) not in done)


P = TypeVar("P", bound="Statements")
"""A program, of whichever class it is."""


@dataclass(frozen=True, eq=False)
class Statements:
    """Named statements in order and the S-op that they compute: what a program says, apart from how it is written.

    Attributes:
        output: the S-op that the program computes.
        statements: (variable, expression) in an order in which each reads only earlier ones; without the inputs. There
            may be statements that the output does not need.
        vocab: the tokens it is meant for, or None.
        max_seq_len: the longest input it is meant for, or None.
        causal: whether a query sees only keys at its own place or before.
        mlp_exactness: how steep the steps are by which an MLP of Tracr's reads a number; `fixed` finds it by itself.
        notes: whatever else came with its record, as it was; JSON-serialisable.
    """

    output: SOp
    statements: tuple[tuple[str, Expression], ...]
    vocab: tuple[Value, ...] | None = None
    max_seq_len: int | None = None
    causal: bool = False
    mlp_exactness: float = EXACTNESS
    notes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls: type[P],
        output: SOp,
        *,
        vocab: Sequence[Value] | None = None,
        max_seq_len: int | None = None,
        causal: bool = False,
        mlp_exactness: float = EXACTNESS,
    ) -> P:
        """The program that computes `output`; its variables are v1, v2, ... in the order in which they are needed."""
        if not isinstance(output, SOp):
            raise RaspError(f"a program's output is an S-op, not {type(output).__name__}")
        nodes = tuple(walk(output))
        operations = [node for node in nodes if node is not tokens and node is not indices]
        program = cls(
            output,
            tuple((f"v{i + 1}", node) for i, node in enumerate(operations)),
            None if vocab is None else tuple(vocab),
            max_seq_len,
            causal,
            mlp_exactness,
        )
        program.__dict__["nodes"] = nodes  # known already
        return program

    @cached_property
    def nodes(self) -> tuple[Expression, ...]:
        """What the output needs, inputs included, itself last, each after what it reads."""
        return tuple(walk(self.output))

    @cached_property
    def names(self) -> dict[int, str]:
        """The variable of each node by its `id`; tokens and indices are called that."""
        return {id(node): name for name, node in self.statements} | {id(tokens): "tokens", id(indices): "indices"}

    def name(self, node: Expression) -> str:
        return self.names[id(node)]

    def __len__(self) -> int:
        """The number of operations that the output needs, selectors included, inputs not."""
        return sum(1 for node in self.nodes if node is not tokens and node is not indices)

    def with_labels(self: P, labels: Mapping[str, str]) -> P:
        """The same program whose variables carry the labels given, by which `tracr_compat` sorts; without its notes."""
        return _rebuilt(self, {name: labels.get(name, node.label) for name, node in self.statements})

    def meant_for(self: P, vocab: Iterable[Value] | None = None, max_seq_len: int | None = None) -> P:
        """The same program with another vocabulary or length, where one is given; notes on what it was are left out."""
        vocab = self.vocab if vocab is None else tuple(vocab)
        length = self.max_seq_len if max_seq_len is None else max_seq_len
        return replace(self, vocab=vocab, max_seq_len=length, notes={})


def fused(program: P) -> P:
    """The program in which a Map of a Map is one Map, as Tracr makes them unless it is told otherwise.

    Only expressions are joined; a Map of a table, or a table of a Map, stays as it is. Statements that nothing reads
    any more are dropped, and variables are named anew.
    """
    made: dict[int, Expression] = {}
    for node in program.nodes:
        children = [made[id(child)] for child in node.children]
        new = rebuild(node, children, node.label) if children else node
        if isinstance(new, Map) and isinstance(new.inner, Map):
            functions = (new.function, new.inner.function)
            if all(function.table is None for function in functions):
                joined = functions[0].after(functions[1])
                new = Map(joined, new.inner.inner, encoding=new.encoding, label=node.label)
        made[id(node)] = new
    output = made[id(program.output)]
    assert isinstance(output, SOp)
    return type(program).of(
        output,
        vocab=program.vocab,
        max_seq_len=program.max_seq_len,
        causal=program.causal,
        mlp_exactness=program.mlp_exactness,
    )


def rebuild(node: Expression, children: Sequence[Expression], label: str | None) -> Expression:
    """A node like `node` that reads other children and carries another label."""
    first: Any = children[0] if children else None
    second: Any = children[1] if len(children) > 1 else None
    match node:
        case Map():
            return Map(node.function, first, encoding=node.encoding, label=label)
        case SequenceMap():
            return SequenceMap(node.function, first, second, encoding=node.encoding, label=label)
        case LinearSequenceMap():
            factors = (node.first_factor, node.second_factor)
            return LinearSequenceMap(first, second, *factors, encoding=node.encoding, label=label)
        case Select():
            return Select(first, second, node.predicate, label=label)
        case SelectorOr():
            return SelectorOr(first, second, label=label)
        case SelectorAnd():
            return SelectorAnd(first, second, label=label)
        case SelectorNot():
            return SelectorNot(first, label=label)
        case Aggregate():
            return Aggregate(first, second, encoding=node.encoding, default=node.default, label=label)
        case SelectorWidth():
            return SelectorWidth(first, encoding=node.encoding, label=label)
        case _:
            return node


def _rebuilt(program: P, labels: Mapping[str, str | None]) -> P:
    made: dict[int, Expression] = {id(tokens): tokens, id(indices): indices}
    statements = []
    for name, node in program.statements:
        made[id(node)] = rebuild(node, [made[id(child)] for child in node.children], labels[name])
        statements.append((name, made[id(node)]))
    output = made[id(program.output)]
    if not isinstance(output, SOp):
        raise RaspError("a program's output is an S-op, not a selector")
    return replace(program, output=output, statements=tuple(statements), notes={})
