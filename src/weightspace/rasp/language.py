"""RASP expressions and programs, as data: what a program says, apart from what it means and how it is compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

from weightspace.errors import RaspError
from weightspace.rasp.functions import Function, Value, is_value, shown

FunctionLike = Function | str | Mapping[Any, Any] | Callable[..., Any]
"""A function as it may be given in Python: one that was read, its text, a table, or a function of Python's."""
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

    def rebuilt(self, children: Sequence[Expression], label: str | None) -> Expression:  # noqa: ARG002
        """One like it that reads other children and carries another label; itself if it reads nothing."""
        return self


class SOp(Expression):
    """A sequence operation: one value at every place of the input.

    In Python, operators make operations: `tokens + 1` is a Map, `tokens + indices` a SequenceMap, and the weighted sum
    of two numerical S-ops a LinearSequenceMap; the result has the encoding of what it is made of, a comparison is
    categorical. `a & b`, `a | b` and `~a` are `and`, `or` and `not`. `==` and `!=` make a Map where the other side is a
    value, as in `tokens == "a"`; of two S-ops they say whether they are the same object, which lists and sets need.
    """

    __slots__ = ("encoding",)
    encoding: Encoding

    @property
    def numerical(self) -> bool:
        return self.encoding == "numerical"

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> Any:
        return self is other if isinstance(other, Expression) else _operated("==", self, other)

    def __ne__(self, other: object) -> Any:
        return self is not other if isinstance(other, Expression) else _operated("!=", self, other)

    def __add__(self, other: Any) -> SOp:
        return _operated("+", self, other)

    def __radd__(self, other: Any) -> SOp:
        return _operated("+", other, self)

    def __sub__(self, other: Any) -> SOp:
        return _operated("-", self, other)

    def __rsub__(self, other: Any) -> SOp:
        return _operated("-", other, self)

    def __mul__(self, other: Any) -> SOp:
        return _operated("*", self, other)

    def __rmul__(self, other: Any) -> SOp:
        return _operated("*", other, self)

    def __truediv__(self, other: Any) -> SOp:
        return _operated("/", self, other)

    def __rtruediv__(self, other: Any) -> SOp:
        return _operated("/", other, self)

    def __floordiv__(self, other: Any) -> SOp:
        return _operated("//", self, other)

    def __rfloordiv__(self, other: Any) -> SOp:
        return _operated("//", other, self)

    def __mod__(self, other: Any) -> SOp:
        return _operated("%", self, other)

    def __rmod__(self, other: Any) -> SOp:
        return _operated("%", other, self)

    def __lt__(self, other: Any) -> SOp:
        return _operated("<", self, other)

    def __le__(self, other: Any) -> SOp:
        return _operated("<=", self, other)

    def __gt__(self, other: Any) -> SOp:
        return _operated(">", self, other)

    def __ge__(self, other: Any) -> SOp:
        return _operated(">=", self, other)

    def __and__(self, other: Any) -> SOp:
        return _operated("and", self, other)

    def __rand__(self, other: Any) -> SOp:
        return _operated("and", other, self)

    def __or__(self, other: Any) -> SOp:
        return _operated("or", self, other)

    def __ror__(self, other: Any) -> SOp:
        return _operated("or", other, self)

    def __invert__(self) -> SOp:
        return Map("not x", self)

    def __neg__(self) -> SOp:
        return Map("-x", self, encoding=self.encoding)

    def __bool__(self) -> bool:
        raise RaspError(
            "an S-op is neither true nor false, it has a value at every place: write a & b, a | b, ~a instead of and, "
            "or, not, and SequenceMap('x == y', a, b) to compare two"
        )


class Selector(Expression):
    """A matrix of booleans: which key each query selects.

    In Python `a & b`, `a | b` and `~a` are SelectorAnd, SelectorOr and SelectorNot.
    """

    __slots__ = ()

    def __and__(self, other: Selector) -> SelectorAnd:
        return SelectorAnd(self, other)

    def __or__(self, other: Selector) -> SelectorOr:
        return SelectorOr(self, other)

    def __invert__(self) -> SelectorNot:
        return SelectorNot(self)


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
        self, function: FunctionLike, inner: SOp, *, encoding: Encoding = "categorical", label: str | None = None
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
        function: FunctionLike,
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
        self, keys: SOp, queries: SOp, predicate: Comparison | FunctionLike, *, label: str | None = None
    ) -> None:
        named = isinstance(predicate, str) and predicate in COMPARISONS
        self.predicate: Any = predicate if named else _read(predicate, 2)
        self.keys, self.queries, self.label = keys, queries, label

    @property
    def children(self) -> tuple[Expression, ...]:
        return (self.keys, self.queries)

    @property
    def function(self) -> Function:
        """The predicate as a function of x, the key, and y, the query."""
        predicate = self.predicate
        return predicate if isinstance(predicate, Function) else PREDICATES[predicate]


PREDICATES: dict[Comparison, Function] = {name: Function.parse(text, 2) for name, text in SOURCE_OF_COMPARISON.items()}


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


def _read(function: FunctionLike, arity: int) -> Function:
    """A function as a person gives it in Python."""
    if isinstance(function, Function):
        return function
    if isinstance(function, str):
        return Function.parse(function, arity)
    if isinstance(function, Mapping):
        return Function.from_table(function, arity)
    if callable(function):
        return Function.of_callable(function, arity)
    raise RaspError(f"a function is text such as 'x + 1', a table, or a function of Python's, not {function!r}")


_COMPARING = ("==", "!=", "<", "<=", ">", ">=", "and", "or")


def _operated(sign: str, left: Any, right: Any) -> SOp:
    """What an operator of Python's makes of an S-op and a value, or of two S-ops."""
    for side in (left, right):
        if not isinstance(side, SOp) and not is_value(side):
            raise RaspError(f"{sign} of an S-op takes an S-op or a value, not {shown(side)}")
    if isinstance(left, SOp) and isinstance(right, SOp):
        if left.numerical and right.numerical and sign in ("+", "-"):
            return LinearSequenceMap(left, right, 1, 1 if sign == "+" else -1)
        return SequenceMap(f"x {sign} y", left, right)
    sop = left if isinstance(left, SOp) else right
    first, second = (f"x {sign} {right!r}", sop) if sop is left else (f"{left!r} {sign} x", sop)
    return Map(first, second, encoding="categorical" if sign in _COMPARING else sop.encoding)


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
            if all(function.has_expression for function in functions):
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
            return node.rebuilt(children, label)


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
