"""The functions inside a program: a small, safe expression language, parsed and never run as Python, or tables."""

from __future__ import annotations

import ast
import inspect
import math
import operator
import reprlib
import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, TypeGuard, cast

from weightspace.errors import RaspError

Value = None | bool | int | float | str | tuple[Any, ...]
"""What one place of a sequence holds, a tuple being made of such values; None is no value at all."""

LARGEST = 2**53
"""Numbers beyond it are refused: neighbours can no longer be told apart in double precision."""
LONGEST_SOURCE = 2_000
DEEPEST = 40
LONGEST_VALUE, DEEPEST_VALUE = 1_000, 8
"""So many characters or entries a text or a tuple may have, and so deep tuples may be nested in each other."""


class FunctionError(RaspError):
    """A function that cannot be read, or that a value does not suit."""


class Undefined(ArithmeticError):
    """A function has no value here, as 1 / x at 0."""


def is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float)


class Raised(ArithmeticError):
    """What a function of Python's has raised: it has no value there."""


def is_value(value: object, depth: int = 0) -> bool:
    """Whether it is something that one place of a sequence can hold, apart from how large its numbers are."""
    if isinstance(value, tuple):
        return len(value) <= LONGEST_VALUE and depth < DEEPEST_VALUE and all(is_value(v, depth + 1) for v in value)
    if isinstance(value, str):
        return len(value) <= LONGEST_VALUE
    return value is None or isinstance(value, bool | int | float)


def is_bounded(value: Value) -> bool:
    """Whether every number in it is finite and within +-2^53."""
    if isinstance(value, tuple):
        return all(map(is_bounded, value))
    return not is_number(value) or -LARGEST <= value <= LARGEST


class Function:
    """A function of one or two values: an expression in `x` and `y`, a table, or a function of Python's.

    Read `Function.parse("x + 1")`; names, attributes and anything but the arithmetic below are refused, so that a
    program from a stranger's file can do nothing. Two functions of the same source are one and the same object.

    Allowed: numbers, strings, True, False, None, tuples, `x`, `y`, `+ - * / // % **`, comparisons (chained too), `in`,
    `is None`, `and`, `or`, `not`, `a if c else b`, `x[0]`, `x[:3]`, and int, float, bool, abs, round, min, max, len.
    They mean what they mean in Python; a number is in no text.

    A function of Python's (`Function.of_callable`) can only come from Python: no text and no file holds one. It is
    called on the values that its inputs can have, and becomes a table of these (`rasp.callables`).

    Attributes:
        source: canonical text, such as `x + 1` or `{0: 1, 1: 0}`; parsing it gives the function back.
        arity: 1 or 2.
        table: the values of a table by their arguments, else None.
        call: the bare function: its results are not checked, and what it raises is not explained.
        native: whether it is a function of Python's, which has no text.
    """

    __slots__ = ("arity", "call", "native", "source", "table")

    source: str
    arity: int
    table: Mapping[Any, Value] | None
    call: Callable[..., Any]
    native: bool

    def __init__(
        self,
        source: str,
        arity: int,
        call: Callable[..., Any],
        table: Mapping[Any, Value] | None = None,
        native: bool = False,
    ) -> None:
        self.source, self.arity, self.call, self.table, self.native = source, arity, call, table, native

    @staticmethod
    def parse(source: str, arity: int | None = None) -> Function:
        """The function that an expression describes.

        Args:
            source: `x + 1`, `lambda x: x + 1`, or a table such as `{0: 1, 1: 0}` or `{(0, 1): 2}`.
            arity: how many arguments it has; unless given 2 if `y` occurs in it, else 1.
        Raises:
            FunctionError: on anything else, with what stands where.
        """
        known = _known.get((source, arity))
        if known is None:
            if len(source) > LONGEST_SOURCE:
                raise FunctionError(f"a function of {len(source)} characters is too long: at most {LONGEST_SOURCE}")
            known = _from_tree(parse_expression(source), arity)
            known = _interned(known)
            if len(_known) > 10_000:
                _known.clear()
            _known[source, arity] = known
        return known

    @staticmethod
    def from_tree(tree: ast.expr, arity: int | None = None) -> Function:
        """The function of an expression that Python's parser has read as part of something larger.

        Raises:
            FunctionError: if anything occurs in it that the language does not know.
        """
        return _interned(_from_tree(tree, arity))

    @staticmethod
    def from_table(table: Mapping[Any, Any], arity: int | None = None) -> Function:
        """The function that is given value by value; arguments that are not listed have no value.

        Args:
            table: from a value, or a pair of values, to a value.
            arity: 1 or 2; unless given, keys that are tuples are pairs of values and no values themselves.
        Raises:
            FunctionError: if it is empty, mixes values with pairs, or holds something that is no value.
        """
        if not table:
            raise FunctionError("a table needs at least one entry")
        if arity is None:
            pairs = {isinstance(key, tuple) for key in table}
            if len(pairs) > 1:
                raise FunctionError("a table maps single values or pairs of values, not both")
            arity = 2 if pairs == {True} else 1
        for key, value in table.items():
            if arity == 2 and not (isinstance(key, tuple) and len(key) == 2):
                raise FunctionError(f"a table maps values or pairs of values, not {shown(key)}")
            for entry in (*(key if arity == 2 else (key,)), value):
                if not is_value(entry):
                    raise FunctionError(
                        f"a table holds numbers, strings, True, False, None and tuples of them, not {shown(entry)}"
                    )
                if not is_bounded(entry):
                    raise FunctionError(f"a table holds finite numbers within +-2^53, not {shown(entry)}")
        entries = dict(table)
        source = "{" + ", ".join(f"{key!r}: {value!r}" for key, value in entries.items()) + "}"
        if arity == 2:
            return _interned(Function(source, 2, lambda x, y: entries.get((x, y)), entries))
        return _interned(Function(source, 1, lambda x: entries.get(x), entries))

    @staticmethod
    def of_callable(function: Callable[..., Any], arity: int) -> Function:
        """A function of Python's, which is called and never printed; what it raises is no value.

        Raises:
            FunctionError: if it takes another number of arguments.
        """
        name = shown(getattr(function, "__name__", type(function).__name__)).strip("'")
        try:
            inspect.signature(function).bind(*range(arity))
        except ValueError:  # some of Python's own have no signature to be asked for
            pass
        except TypeError:
            raise FunctionError(f"a function of {arity} arguments is wanted here, which {name} is not") from None

        def call(*values: Any) -> Any:
            try:
                result = function(*values)
                if type(result).__module__ == "numpy" and hasattr(result, "item"):
                    result = result.item()
            except Exception as error:
                raise Raised(f"it raised {type(error).__name__}: {shown(str(error))}") from None
            if not is_value(result):
                raise FunctionError(f"it gives {shown(result)}, which is no value,")
            return result

        return Function(f"<function {name}>", arity, call, native=True)

    def after(self, inner: Function) -> Function:
        """The function of one value that applies `inner` and then this one, as one expression.

        Raises:
            FunctionError: if one of the two is a table or takes two values, or the result is too long.
        """
        if self.arity != 1 or inner.arity != 1 or not self.has_expression or not inner.has_expression:
            raise FunctionError(f"{self.source!r} and {inner.source!r} cannot be joined in one expression")
        argument = parse_expression(inner.source)
        tree = _Substitution(argument).visit(parse_expression(self.source))
        return Function.parse(ast.unparse(ast.fix_missing_locations(tree)), 1)

    @property
    def has_expression(self) -> bool:
        """Whether it is an expression, neither a table nor a function of Python's."""
        return self.table is None and not self.native

    def __call__(self, *values: Value) -> Value:
        """The value at `values`; None if the function has none there.

        Raises:
            Undefined: on division by zero and the like.
            FunctionError: if the values are of a kind that the function cannot take, or the result is not a finite
                number within +-2^53.
        """
        try:
            result = self.call(*values)
        except FunctionError as error:
            raise FunctionError(f"{error} in {self.source!r} at {_listed(values)}") from None
        except ArithmeticError as error:
            raise Undefined(f"{error} in {self.source!r} at {_listed(values)}") from None
        except TypeError:
            raise FunctionError(f"{self.source!r} cannot take {_listed(values)}") from None
        if not (result is None or isinstance(result, int | float | str)) and not is_value(result):
            raise FunctionError(f"{self.source!r} at {_listed(values)} gives a tuple that is too long or too deep")
        if isinstance(result, float) and not math.isfinite(result):
            raise Undefined(f"no finite result in {self.source!r} at {_listed(values)}")
        if not is_bounded(result):
            raise FunctionError(f"{self.source!r} at {_listed(values)} grows beyond 2^53")
        return result

    def __repr__(self) -> str:
        return f"Function({self.source!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self.native:
            raise FunctionError(f"{self.source!r} is a function of Python's, which cannot be stored: make it a table")
        # A table may be longer than any source that `parse` takes.
        if self.table is None:
            return (Function.parse, (self.source, self.arity))
        return (_of_table, (dict(self.table), self.arity))


class _Substitution(ast.NodeTransformer):
    """Puts an expression in the place of x."""

    def __init__(self, argument: ast.expr) -> None:
        self.argument = argument

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.argument if node.id == "x" else node


_known: dict[tuple[str, int | None], Function] = {}
_functions: dict[tuple[str, int], Function] = {}


def _interned(function: Function) -> Function:
    if len(_functions) > 10_000:
        _functions.clear()
    return _functions.setdefault((function.source, function.arity), function)


def _of_table(table: dict[Any, Value], arity: int | None = None) -> Function:
    return Function.from_table(table, arity)


def counted(number: int, what: str) -> str:
    """Such as `1 layer`, `2 layers`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def shown(value: object) -> str:
    """A value as an error message shows it: short, whatever a stranger's file holds."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "an integer of thousands of digits"


def _listed(values: tuple[Value, ...]) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in zip("xy", values, strict=False))


def parse_expression(source: str) -> ast.expr:
    """Python's own parser, made safe against what it does on hostile input.

    Raises:
        FunctionError: if it is not an expression.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source.strip(), mode="eval").body
    except SyntaxError as error:
        where = f" (column {error.offset})" if error.offset else ""
        raise FunctionError(f"{source!r} is not an expression in x and y{where}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise FunctionError(f"{source[:60]!r} cannot be read: {error}") from None


def _from_tree(tree: ast.expr, arity: int | None) -> Function:
    if isinstance(tree, ast.Lambda):
        arguments = tree.args
        names = [argument.arg for argument in arguments.args]
        others = (arguments.posonlyargs, arguments.kwonlyargs, arguments.defaults, arguments.vararg, arguments.kwarg)
        if any(others) or names not in (["x"], ["x", "y"]):
            raise FunctionError(f"a function's arguments are x, or x and y: write 'lambda x: ...', not {_text(tree)!r}")
        if arity not in (None, len(names)):
            raise FunctionError(f"{_text(tree)!r} takes {len(names)} arguments where {arity} are wanted")
        tree, arity = tree.body, len(names)
    if isinstance(tree, ast.Dict):
        entries = _literal_table(tree)
        pairs = {isinstance(key, tuple) for key in entries}
        if arity == 2 and pairs == {False}:
            raise FunctionError(f"{_text(tree)!r} is a table of 1 arguments where 2 are wanted")
        return Function.from_table(entries, arity if len(pairs) == 1 else None)
    call = _closure(tree, 0)
    uses = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in ("x", "y")}
    text = ast.unparse(tree)
    if arity is None:
        arity = 2 if "y" in uses else 1
    if arity == 1:
        if "y" in uses:
            raise FunctionError(f"{text!r} uses y, but a function of one argument is wanted here")
        return Function(text, 1, lambda x: call(x, None))
    return Function(text, 2, call)


def _text(tree: ast.expr) -> str:
    """The beginning of a tree's text; printing a stranger's tree can fail in Python's own printer."""
    try:
        return ast.unparse(tree)[:60]
    except (RecursionError, ValueError):
        return "..."


def _literal_table(tree: ast.Dict) -> dict[Any, Any]:
    table = {}
    for key, value in zip(tree.keys, tree.values, strict=True):
        try:
            arguments, result = ast.literal_eval(key or value), ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise FunctionError("a table's keys and values are numbers, strings, True, False or None") from None
        if key is None:
            raise FunctionError("a table lists its entries one by one: ** is not known")
        try:
            table[arguments] = result
        except TypeError:
            raise FunctionError(f"a table maps values or pairs of values, not {shown(arguments)}") from None
    return table


# -- evaluation: each node of the tree becomes a closure over its parts ---------------------------------------------

Closure = Callable[[Any, Any], Any]


def _numeric(apply: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """An arithmetic operation that takes numbers only: strings would let `%` and `*` fill the memory."""

    def checked(a: Any, b: Any) -> Any:
        if not (is_number(a) and is_number(b)):
            raise TypeError
        return apply(a, b)

    return checked


def _add(a: Any, b: Any) -> Any:
    if is_number(a) and is_number(b):
        return a + b
    if (isinstance(a, str) and isinstance(b, str)) or (isinstance(a, tuple) and isinstance(b, tuple)):
        if len(a) + len(b) > LONGEST_VALUE:
            raise FunctionError(f"a text or tuple of more than {LONGEST_VALUE:,} entries")
        return cast(Any, a) + b
    raise TypeError


def _power(a: Any, b: Any) -> Any:
    if abs(b) > 64 or abs(a) > 1e6:
        raise FunctionError("a power with a base beyond a million or an exponent beyond 64")
    result = a**b
    if isinstance(result, complex):
        raise ZeroDivisionError("a root of a negative number")
    return result


def _round(a: Any, *places: Any) -> Any:
    if places and abs(places[0]) > 64:  # Python would write out ten to that power
        raise FunctionError("a rounding to more than 64 places")
    return round(a, *places)


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: _add,
    ast.Sub: _numeric(operator.sub),
    ast.Mult: _numeric(operator.mul),
    ast.Div: _numeric(operator.truediv),
    ast.FloorDiv: _numeric(operator.floordiv),
    ast.Mod: _numeric(operator.mod),
    ast.Pow: _numeric(_power),
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def _contains(a: Any, b: Any) -> bool:
    if isinstance(b, str):
        return isinstance(a, str) and a in b
    if isinstance(b, tuple):
        return a in b
    raise TypeError


def _check_is(kinds: list[ast.cmpop], parts: list[ast.expr]) -> None:
    """`is` means something for None alone: of other values it depends on how Python stores them."""
    for kind, sides in zip(kinds, pairwise(parts), strict=True):
        none = any(isinstance(side, ast.Constant) and side.value is None for side in sides)
        if isinstance(kind, ast.Is | ast.IsNot) and not none:
            raise FunctionError("'is' compares with None alone: write == for other values")


_COMPARE |= {
    ast.In: _contains,
    ast.NotIn: lambda a, b: not _contains(a, b),
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_CALLS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "int": (int, 1, 1),
    "float": (float, 1, 1),
    "bool": (bool, 1, 1),
    "abs": (abs, 1, 1),
    "round": (_round, 1, 2),
    "min": (min, 2, 4),
    "max": (max, 2, 4),
}


def _closure(tree: ast.expr, depth: int) -> Closure:
    if depth > DEEPEST:
        raise FunctionError(f"a function is nested deeper than {DEEPEST}")
    below = depth + 1
    match tree:
        case ast.Name(id="x"):
            return lambda x, y: x  # noqa: ARG005 - every closure takes both
        case ast.Name(id="y"):
            return lambda x, y: y  # noqa: ARG005
        case ast.Constant(value=value) if value is None or isinstance(value, bool | int | float | str):
            if is_number(value) and not abs(value) <= LARGEST:
                raise FunctionError(f"the number {_text(tree)} is beyond 2^53")
            return lambda x, y: value  # noqa: ARG005
        case ast.BinOp(left=left, op=kind, right=right) if type(kind) in _BINARY:
            return _binary(_BINARY[type(kind)], _closure(left, below), _closure(right, below))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = _closure(operand, below)
            return lambda x, y: not inner(x, y)
        case ast.UnaryOp(op=(ast.USub() | ast.UAdd()) as kind, operand=operand):
            number, sign = _closure(operand, below), 1 if isinstance(kind, ast.UAdd) else -1
            return lambda x, y: _numeric(operator.mul)(sign, number(x, y))
        case ast.BoolOp(op=kind, values=values):
            return _boolean(isinstance(kind, ast.And), [_closure(value, below) for value in values])
        case ast.Compare(left=left, ops=kinds, comparators=right) if all(type(kind) in _COMPARE for kind in kinds):
            _check_is(kinds, [left, *right])
            parts = [_closure(part, below) for part in (left, *right)]
            return _comparison([_COMPARE[type(kind)] for kind in kinds], parts)
        case ast.IfExp(test=test, body=body, orelse=otherwise):
            choose, yes, no = (_closure(part, below) for part in (test, body, otherwise))
            return lambda x, y: yes(x, y) if choose(x, y) else no(x, y)
        case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
            parts = [_closure(element, below) for element in elements]
            return lambda x, y: tuple(part(x, y) for part in parts)
        case ast.Subscript(value=value, slice=place):
            return _subscript(_closure(value, below), place, below)
        case ast.Call(func=ast.Name(id="len"), args=[argument], keywords=[]):
            return _length(_closure(argument, below))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _CALLS:
            apply, fewest, most = _CALLS[name]
            if not fewest <= len(arguments) <= most:
                raise FunctionError(f"{name} takes {fewest} to {most} arguments, not {len(arguments)}")
            parts = [_closure(argument, below) for argument in arguments]
            return _call(apply, parts)
    raise FunctionError(
        f"{_text(tree)!r} is not part of the function language: it knows x, y, numbers, strings, arithmetic, "
        f"comparisons, and, or, not, if-else, in, is None, tuples, x[0], x[:3], {', '.join(_CALLS)}, len"
    )


def _binary(apply: Callable[[Any, Any], Any], left: Closure, right: Closure) -> Closure:
    return lambda x, y: apply(left(x, y), right(x, y))


def _subscript(value: Closure, place: ast.expr, depth: int) -> Closure:
    """One entry of a text or a tuple, or some in a row."""

    def sequence(x: Any, y: Any) -> Any:
        found = value(x, y)
        if not isinstance(found, str | tuple):
            raise TypeError
        return found

    def number(part: ast.expr | None) -> Closure:
        if part is None:
            return lambda x, y: None  # noqa: ARG005
        inner = _closure(part, depth)

        def whole(x: Any, y: Any) -> Any:
            found = inner(x, y)
            if not isinstance(found, int):
                raise TypeError
            return found

        return whole

    if isinstance(place, ast.Slice):
        first, last, step = number(place.lower), number(place.upper), number(place.step)

        def some(x: Any, y: Any) -> Any:
            by = step(x, y)
            if by == 0:
                raise ZeroDivisionError("a step of 0")
            return sequence(x, y)[first(x, y) : last(x, y) : by]

        return some
    at = number(place)

    def one(x: Any, y: Any) -> Any:
        found, where = sequence(x, y), at(x, y)
        if not -len(found) <= where < len(found):
            raise ZeroDivisionError(f"no entry {where} of {len(found)}")
        return found[where]

    return one


def _length(value: Closure) -> Closure:
    def run(x: Any, y: Any) -> int:
        found = value(x, y)
        if not isinstance(found, str | tuple):
            raise TypeError
        return len(found)

    return run


def _boolean(every: bool, parts: list[Closure]) -> Closure:
    def run(x: Any, y: Any) -> Any:
        result = None
        for part in parts:
            result = part(x, y)
            if bool(result) is not every:
                return result
        return result

    return run


def _comparison(kinds: list[Callable[[Any, Any], bool]], parts: list[Closure]) -> Closure:
    if len(kinds) == 1:
        compare, (left, right) = kinds[0], parts
        return lambda x, y: compare(left(x, y), right(x, y))

    def run(x: Any, y: Any) -> bool:
        values = [part(x, y) for part in parts]
        return all(compare(a, b) for compare, a, b in zip(kinds, values, values[1:], strict=False))

    return run


def _call(apply: Callable[..., Any], parts: list[Closure]) -> Closure:
    def run(x: Any, y: Any) -> Any:
        values = [part(x, y) for part in parts]
        if not all(is_number(value) for value in values):
            raise TypeError
        try:
            return cast(Any, apply)(*values)
        except FunctionError:
            raise
        except ValueError as error:  # int(nan)
            raise ZeroDivisionError(str(error)) from None

    return run
