"""Tracr's own RASP objects as ours, read by the names of their classes and fields: Tracr need not be installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weightspace.errors import RaspError
from weightspace.rasp.forms import FORMS
from weightspace.rasp.functions import Function, is_value, shown
from weightspace.rasp.language import (
    COMPARISONS,
    Aggregate,
    Encoding,
    Expression,
    LinearSequenceMap,
    Map,
    Select,
    SelectorAnd,
    SelectorNot,
    SelectorOr,
    SelectorWidth,
    SequenceMap,
    SOp,
    indices,
    tokens,
    usual_default,
)

KNOWN = ("TokensType", "IndicesType", "ConstantSOp", *FORMS)
"""Classes of `tracr.rasp.rasp` that are read; of a class that is none of them, the nearest above it is taken."""
MOST_NODES = 5_000


def sop_of(given: object) -> SOp:
    """The S-op that one of Tracr's is; what it reads twice is one node.

    Encodings are those that Tracr's objects are annotated with, numerical where none is said of a LinearSequenceMap and
    categorical elsewhere; names are not kept, since Tracr's labels hold a counter.

    Raises:
        RaspError: if it is none of Tracr's S-ops, or something in it is unknown; it says which class was found.
    """
    made = _Reader().read(given)
    if not isinstance(made, SOp):
        raise RaspError(f"a program's output is an S-op, and {type(given).__name__} is a selector")
    return made


class _Reader:
    """A graph of Tracr's objects on its way to ours, each object once."""

    def __init__(self) -> None:
        self.made: dict[int, Expression] = {}
        self.kept: list[object] = []  # an object is known by its `id`, which must not be given to another

    def read(self, given: object) -> Expression:
        """An expression, all that it reads first; without recursion, so that depth does not matter."""
        stack: list[object] = [given]
        while stack:
            node = stack[-1]
            if id(node) in self.made:
                stack.pop()
                continue
            if len(stack) > MOST_NODES or len(self.made) > MOST_NODES:
                raise RaspError(f"it has more than {MOST_NODES:,} operations, or one that reads itself")
            missing = [part for part in self._parts(node) if id(part) not in self.made]
            if missing:
                stack.extend(missing)
                continue
            self.made[id(node)] = self._made(node)
            self.kept.append(stack.pop())
        return self.made[id(given)]

    def _parts(self, node: object) -> list[object]:
        match _class_of(node):
            case "Map":
                return [_field(node, "inner")]
            case "SequenceMap" | "LinearSequenceMap":
                return [_field(node, "fst"), _field(node, "snd")]
            case "Select":
                return [_field(node, "keys"), _field(node, "queries")]
            case "SelectorAnd" | "SelectorOr":
                return [_field(node, "fst"), _field(node, "snd")]
            case "SelectorNot":
                return [_field(node, "inner")]
            case "Aggregate":
                return [_field(node, "selector"), _field(node, "sop")]
            case "SelectorWidth":
                return [_field(node, "selector")]
        return []

    def _made(self, node: object) -> Expression:
        name = _class_of(node)
        parts = [self.made[id(part)] for part in self._parts(node)]
        for part, wanted in zip(parts, FORMS[name].reads if name in FORMS else (), strict=True):
            if not isinstance(part, wanted):
                what = "an S-op" if wanted is SOp else "a selector"
                raise RaspError(f"a {name} of Tracr's reads {what}, and this one has a {type(part).__name__} there")
        first: Any = parts[0] if parts else None
        second: Any = parts[1] if len(parts) > 1 else None
        encoding = _encoding(node, "numerical" if name == "LinearSequenceMap" else "categorical")
        match name:
            case "TokensType":
                return tokens
            case "IndicesType":
                return indices
            case "ConstantSOp":
                return Map(_constant(_field(node, "value")), tokens, encoding=encoding)
            case "Map":
                return Map(_callable(node, "f", 1), first, encoding=encoding)
            case "SequenceMap":
                return SequenceMap(_callable(node, "f", 2), first, second, encoding=encoding)
            case "LinearSequenceMap":
                factors = (_factor(node, "fst_fac"), _factor(node, "snd_fac"))
                return LinearSequenceMap(first, second, *factors, encoding=encoding)
            case "Select":
                return Select(first, second, _predicate(_field(node, "predicate")))
            case "SelectorAnd":
                return SelectorAnd(first, second)
            case "SelectorOr":
                return SelectorOr(first, second)
            case "SelectorNot":
                return SelectorNot(first)
            case "Aggregate":
                default = getattr(node, "default", usual_default(encoding))
                if not is_value(default):
                    raise RaspError(f"the default of an Aggregate is {shown(default)}, which is no value")
                return Aggregate(first, second, encoding=encoding, default=_default(default, encoding))
        return SelectorWidth(first, encoding=encoding)


def _class_of(node: object) -> str:
    """The class of Tracr's that an object is of."""
    if isinstance(node, Expression):
        raise RaspError("it is an operation of weightspace's own: Program.of makes a program of it")
    for kind in type(node).__mro__:
        if kind.__name__ in KNOWN:
            return kind.__name__
    raise RaspError(
        f"{shown(type(node).__name__)} is none of the classes of Tracr's RASP that are known: {', '.join(KNOWN)}"
    )


def _field(node: object, name: str) -> Any:
    try:
        return getattr(node, name)
    except AttributeError:
        raise RaspError(
            f"a {type(node).__name__} of Tracr's has no {name!r}: it is of another version of Tracr than is known"
        ) from None


def _callable(node: object, name: str, arity: int) -> Function:
    function = _field(node, name)
    if not callable(function):
        raise RaspError(f"{name!r} of a {type(node).__name__} is no function: {shown(function)}")
    return Function.of_callable(function, arity)


def _predicate(predicate: Any) -> Any:
    """A comparison by the name of Tracr's, or a function of key and query."""
    name = getattr(predicate, "name", None)
    if isinstance(name, str) and name in COMPARISONS:
        return name
    if not callable(predicate):
        raise RaspError(f"the predicate of a Select is no function: {shown(predicate)}")
    return Function.of_callable(predicate, 2)


def _factor(node: object, name: str) -> Any:
    factor = _field(node, name)
    if hasattr(factor, "item"):
        factor = factor.item()
    if not isinstance(factor, int | float):
        raise RaspError(f"{name!r} of a LinearSequenceMap is no number: {shown(factor)}")
    return factor


def _constant(value: Any) -> Callable[[Any], Any]:
    return lambda _: value


def _default(value: Any, encoding: Encoding) -> Any:
    """Tracr leaves the default of a numerical Aggregate at None, which it takes for 0."""
    return 0 if value is None and encoding == "numerical" else value


def _encoding(node: object, usual: Encoding) -> Encoding:
    """The encoding that an object is annotated with."""
    annotations = getattr(node, "annotations", None)
    try:
        given = annotations["encoding"] if annotations is not None and "encoding" in annotations else None
    except (TypeError, KeyError):
        given = None
    if given is None:
        return usual
    name = getattr(given, "value", given)
    if name in ("categorical", "numerical"):
        return name
    raise RaspError(f"the encoding {shown(given)} of a {type(node).__name__} is neither categorical nor numerical")
