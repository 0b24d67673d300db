"""The short expression that a table is: `5 * (x - 1) + y`, `2 <= x <= 4`, `(x + y) % 5`, `x in 'aeiou'`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from weightspace.rasp.functions import Function, FunctionError, Value, is_number

LARGEST_TABLE = 20_000
"""A table of more entries stays one."""
LONGEST_EXPRESSION = 60
"""An expression of more characters, or one that is longer than the table, says less than the table."""
MOST_LISTED = 6
"""So many values are listed in `x in (1, 3, 7)`."""
MOST_DIGITS = 50
"""The largest k of which `k * a + b` is tried."""
PLAIN = (
    "x", "y", "x + y", "x - y", "y - x", "x * y", "x == y", "x != y", "x < y", "x <= y", "x > y", "x >= y", "(x, y)",
    "x and y", "x or y", "min(x, y)", "max(x, y)", "abs(x - y)", "x % y", "y % x", "x // y", "y // x", "x / y", "y / x",
)  # fmt: skip
"""Expressions in x and y that are tried as they are."""


def shortest(table: Mapping[Any, Value], arity: int, *, truth: bool = False) -> Function | None:
    """A short expression that gives what a table gives on every argument listed, or None if none is known.

    Args:
        table: from each value, or each pair of values, to what the function gives there.
        arity: 1, or 2 for pairs.
        truth: whether only the truth of a result matters, as in a selector.
    """
    if not 0 < len(table) <= LARGEST_TABLE or None in table.values():
        return None
    return _shortest(tuple(table.items()), tuple(map(type, table.values())), arity, truth)


@lru_cache(maxsize=5_000)
def _shortest(entries: tuple[tuple[Any, Value], ...], _: tuple[type, ...], arity: int, truth: bool) -> Function | None:
    keys: list[Any] = [key if arity == 2 else (key,) for key, _ in entries]
    results = [bool(value) if truth else value for _, value in entries]
    whole = sum(len(repr(entry)) for entry in entries)
    sources = _of_one([key[0] for key in keys], results, "x") if arity == 1 else _of_two(keys, results)
    for source in sources:
        if len(source) <= min(LONGEST_EXPRESSION, whole):
            function = _fitting(source, arity, keys, results)
            if function is not None:
                return function
    return None


def _fitting(source: str, arity: int, keys: Sequence[tuple[Any, ...]], results: Sequence[Value]) -> Function | None:
    """The function of a source, if it gives every result."""
    try:
        function = Function.parse(source, arity)
        return function if all(function.call(*key) == value for key, value in zip(keys, results, strict=True)) else None
    except (ArithmeticError, TypeError, FunctionError):
        return None


# -- one argument ----------------------------------------------------------------------------------------------------


def _of_one(xs: Sequence[Any], results: Sequence[Any], x: str) -> Iterator[str]:
    """Expressions in one variable that may give these results; short and plain ones first.

    Args:
        x: the variable's name.
    """
    distinct = list(dict.fromkeys(results))
    if len(distinct) == 1:
        yield repr(distinct[0])
        return
    if list(results) == list(xs):
        yield x
    if len(distinct) == 2 and set(distinct) == {0, 1}:
        yield from _conditions(xs, [bool(value) for value in results], x)
    elif len(distinct) == 2 and len(xs) > 2:
        first, second = sorted(distinct, key=list(results).count)
        chosen = [value == first for value in results]
        yield from (f"{first!r} if {c} else {second!r}" for c in _conditions(xs, chosen, x))
    if all(map(is_number, xs)) and all(map(is_number, results)):
        yield from _of_number(np.array(xs, float), np.array(results, float), x)
        yield from _piecewise(xs, results, x)
    elif not any(map(is_number, xs)):
        yield from (f"len({x})", f"{x}[0]", f"{x}[-1]")


def _of_number(xs: np.ndarray, results: np.ndarray, x: str) -> Iterator[str]:
    yield from _affine_in(x, xs, results)
    for k in range(2, 11):
        for base, values in ((f"{x} % {k}", xs % k), (f"{x} // {k}", xs // k), (f"({x} + 1) // {k}", (xs + 1) // k)):
            yield from _shifted(base, values, results)
    low, high = results.min(), results.max()
    yield from _shifted(f"abs({x})", np.abs(xs), results)
    for c in sorted(set(xs.tolist())):
        for base, values in (
            (f"min({x}, {_text(c)})", np.minimum(xs, c)),
            (f"max({x}, {_text(c)})", np.maximum(xs, c)),
            (f"abs({_sum([(1, x)], -c)})", np.abs(xs - c)),
        ):
            yield from _shifted(base, values, results)
    if low in xs and high in xs:
        yield f"min(max({x}, {_text(low)}), {_text(high)})"
    yield from _shifted(f"{x} * {x}", xs * xs, results)
    if low == 0 and 2 <= high + 1 <= 100 and len(xs) > 3:
        step = _slope(xs, results, high + 1)
        if step is not None:
            yield f"({_sum([(step, x)], (results[0] - step * xs[0]) % (high + 1))}) % {_text(high + 1)}"


def _affine_in(x: str, xs: np.ndarray, results: np.ndarray) -> Iterator[str]:
    """a x + b."""
    span = xs.max() - xs.min()
    if span == 0:
        return
    factor = (results[xs.argmax()] - results[xs.argmin()]) / span
    offset = results[xs.argmin()] - factor * xs.min()
    if np.allclose(factor * xs + offset, results, rtol=1e-12, atol=1e-12):
        if 0 < abs(factor) < 1 and _is_whole(1 / factor) and _is_whole(offset / factor):
            yield f"{_bracketed(_sum([(1, x)], _rounded(offset / factor)))} / {_text(_rounded(1 / factor))}"
        yield _sum([(_rounded(factor), x)], _rounded(offset))


def _shifted(base: str, values: np.ndarray, results: np.ndarray) -> Iterator[str]:
    """A base plus a constant, or times one, or taken from one."""
    span = values.max() - values.min()
    if span == 0:
        return
    factor = (results[values.argmax()] - results[values.argmin()]) / span
    offset = results[values.argmin()] - factor * values.min()
    if np.allclose(factor * values + offset, results, rtol=1e-12, atol=1e-12):
        text = base if base.startswith(("abs", "min", "max", "(")) and base.endswith(")") else f"({base})"
        yield base if (factor, offset) == (1, 0) else _sum([(_rounded(factor), text)], _rounded(offset))


def _slope(xs: np.ndarray, results: np.ndarray, modulus: float) -> float | None:
    """The factor by which neighbours differ modulo a number, if it is always the same; for whole numbers."""
    order = np.argsort(xs)
    steps, rises = np.diff(xs[order]), np.diff(results[order])
    here = steps == 1
    slopes = set((rises[here] % modulus).tolist())
    if len(slopes) != 1 or not np.array_equal(results, np.rint(results)):
        return None
    slope = slopes.pop()
    return slope if slope <= modulus / 2 else slope - modulus


def _piecewise(xs: Sequence[Any], results: Sequence[Any], x: str) -> Iterator[str]:
    """Steps: `(x > 1) + (x > 4)`, or `0 if x < 2 else 5 if x < 4 else 3`."""
    order = sorted(range(len(xs)), key=lambda i: xs[i])
    runs: list[tuple[Any, Any]] = []
    for i in order:
        if not runs or runs[-1][1] != results[i]:
            runs.append((xs[i], results[i]))
    if not 2 < len(runs) <= 5 or len(runs) == len(xs):
        return
    levels = [level for _, level in runs]
    if all(b - a == 1 for a, b in pairwise(levels)):
        total = " + ".join(f"({x} >= {start!r})" for start, _ in runs[1:])
        yield total if levels[0] == 0 else f"{levels[0]!r} + {total}"
    cases = [f"{level!r} if {x} < {runs[k + 1][0]!r}" for k, level in enumerate(levels[:-1])]
    yield " else ".join([*cases, repr(levels[-1])])


def _conditions(xs: Sequence[Any], chosen: Sequence[bool], x: str) -> Iterator[str]:
    """When a value is one of those chosen, of which there are some and not all."""
    some = [value for value, is_chosen in zip(xs, chosen, strict=True) if is_chosen]
    rest = [value for value, is_chosen in zip(xs, chosen, strict=True) if not is_chosen]
    if list(map(bool, xs)) == [not c for c in chosen]:
        yield f"not {x}"
    if len(some) == 1:
        yield f"{x} == {some[0]!r}"
    if len(rest) == 1:
        yield f"{x} != {rest[0]!r}"
    try:
        order = sorted(zip(xs, chosen, strict=True))
    except TypeError:
        order = []
    if order:
        yield from _intervals([value for value, _ in order], [c for _, c in order], x)
    if all(map(is_number, xs)):
        for k in range(2, 7):
            left = {value % k for value in some}
            if len(left) == 1:
                yield f"{x} % {k} == {left.pop()!r}"
            left = {value % k for value in rest}
            if len(left) == 1:
                yield f"{x} % {k} != {left.pop()!r}"
    for members, sign in ((some, "in"), (rest, "not in")):
        letters = all(isinstance(value, str) and len(value) == 1 for value in members)
        if 1 < len(members) <= (2 * MOST_LISTED if letters else MOST_LISTED):
            if letters and all(isinstance(value, str) and value for value in xs):
                yield f"{x} {sign} {''.join(members)!r}"
            yield f"{x} {sign} {tuple(members)!r}"


def _intervals(xs: Sequence[Any], chosen: Sequence[bool], x: str) -> Iterator[str]:
    changes = [k for k in range(1, len(xs)) if chosen[k] != chosen[k - 1]]
    if len(changes) == 1:
        k = changes[0]
        yield f"{x} < {xs[k]!r}" if chosen[0] else f"{x} > {xs[k - 1]!r}"
        yield f"{x} <= {xs[k - 1]!r}" if chosen[0] else f"{x} >= {xs[k]!r}"
    elif len(changes) == 2:
        a, b = changes
        if chosen[0]:
            yield f"{x} < {xs[a]!r} or {x} > {xs[b - 1]!r}"
        else:
            yield f"{xs[a]!r} <= {x} <= {xs[b - 1]!r}"


# -- two arguments ---------------------------------------------------------------------------------------------------


def _of_two(keys: Sequence[tuple[Any, Any]], results: Sequence[Any]) -> Iterator[str]:
    yield from _of_either(keys, results)
    yield from PLAIN
    numbers = all(is_number(entry) for key in keys for entry in key)
    distinct = list(dict.fromkeys(results))
    if len(distinct) == 2 and len(keys) > 2:
        first, second = sorted(distinct, key=list(results).count)
        if set(distinct) == {0, 1}:
            yield from _relations(keys, [bool(value) for value in results], numbers)
        else:
            chosen = [value == first for value in results]
            yield from (f"{first!r} if {c} else {second!r}" for c in _relations(keys, chosen, numbers))
    if numbers and all(map(is_number, results)):
        xs, ys = (np.array([float(key[k]) for key in keys]) for k in (0, 1))
        yield from _of_numbers(xs, ys, np.array(results, float))


def _of_either(keys: Sequence[tuple[Any, Any]], results: Sequence[Any]) -> Iterator[str]:
    """What depends on one of the two alone."""
    for place, name in ((0, "x"), (1, "y")):
        alone: dict[Any, Any] = {}
        for key, value in zip(keys, results, strict=True):
            alone.setdefault(key[place], value)
        if all(alone[key[place]] == value for key, value in zip(keys, results, strict=True)):
            yield from _of_one([*alone], [*alone.values()], name)


def _of_numbers(xs: np.ndarray, ys: np.ndarray, results: np.ndarray) -> Iterator[str]:
    design = np.stack([xs, ys, np.ones_like(xs)], 1)
    (a, b, c), *_ = np.linalg.lstsq(design, results, rcond=None)
    if np.allclose(design @ (a, b, c), results, rtol=1e-9, atol=1e-9):
        a, b, c = (_rounded(value) for value in (a, b, c))
        if b in (1, -1) and a not in (0, 1, -1) and c and _is_whole(c / a):
            yield f"{_text(a)} * ({_sum([(1, 'x')], _rounded(c / a))}) {'+' if b > 0 else '-'} y"
        if a in (1, -1) and b not in (0, 1, -1) and c and _is_whole(c / b):
            yield f"{_text(b)} * ({_sum([(1, 'y')], _rounded(c / b))}) {'+' if a > 0 else '-'} x"
        yield _sum([(a, "x"), (b, "y")], c)
    yield from _modular(xs, ys, results)
    for base, values in (
        ("x * y", xs * ys),
        ("min(x, y)", np.minimum(xs, ys)),
        ("max(x, y)", np.maximum(xs, ys)),
        ("abs(x - y)", np.abs(xs - ys)),
        ("(x == y)", (xs == ys) * 1.0),
        ("(x < y)", (xs < ys) * 1.0),
        ("(x > y)", (xs > ys) * 1.0),
    ):
        yield from _shifted(base, values, results)


def _modular(xs: np.ndarray, ys: np.ndarray, results: np.ndarray) -> Iterator[str]:
    """(a x + b y + c) % m."""
    modulus = results.max() + 1
    if results.min() != 0 or not 2 <= modulus <= 100:
        return
    slopes: list[float] = []
    for along, fixed in ((xs, ys), (ys, xs)):
        row = fixed == fixed[0]
        slope = _slope(along[row], results[row], modulus)
        if slope is None:
            return
        slopes.append(slope)
    a, b = slopes
    c = (results[0] - a * xs[0] - b * ys[0]) % modulus
    if np.array_equal((a * xs + b * ys + c) % modulus, results):
        yield f"({_sum([(a, 'x'), (b, 'y')], c if c <= modulus / 2 else c - modulus)}) % {_text(modulus)}"


def _relations(keys: Sequence[tuple[Any, Any]], chosen: Sequence[bool], numbers: bool) -> Iterator[str]:
    """When a pair is one of those chosen, of which there are some and not all."""
    if numbers:
        for text, sums in (("x - y", [x - y for x, y in keys]), ("x + y", [x + y for x, y in keys])):
            seen: dict[Any, bool] = {}
            if all(seen.setdefault(total, c) == c for total, c in zip(sums, chosen, strict=True)):
                for condition in _conditions([*seen], [*seen.values()], "x"):
                    yield _of_sum(text, condition)
                spread = {abs(total): c for total, c in seen.items()}
                if text == "x - y" and all(spread[abs(total)] == c for total, c in seen.items()):
                    for condition in _conditions([*spread], [*spread.values()], "x"):
                        yield _replaced(condition, "abs(x - y)")
        yield from _by_digits(keys, chosen)
    yield from _both(keys, chosen)
    yield from _entry_by_entry(keys, chosen)


def _by_digits(keys: Sequence[tuple[Any, Any]], chosen: Sequence[bool]) -> Iterator[str]:
    """Numbers that are pairs, `k * a + b`: of equal a or equal b, and one smaller than the other."""
    xs, ys = (np.array([float(key[place]) for key in keys]) for place in (0, 1))
    wanted = np.array(chosen, bool)
    unequal = {"x < y": xs < ys, "x > y": xs > ys, "x <= y": xs <= ys, "x >= y": xs >= ys, "x != y": xs != ys}
    for k in range(2, min(MOST_DIGITS, len({*xs.tolist()})) + 1):
        for sign, halves in (("//", (xs // k == ys // k)), ("%", (xs % k == ys % k))):
            if np.array_equal(halves, wanted):
                yield f"x {sign} {k} == y {sign} {k}"
            for text, relation in unequal.items():
                if np.array_equal(halves & relation, wanted):
                    yield f"x {sign} {k} == y {sign} {k} and {text}"


def _entry_by_entry(keys: Sequence[tuple[Any, Any]], chosen: Sequence[bool]) -> Iterator[str]:
    """Tuples of which each entry is compared by itself: `x[0] == y[0] and x[1] < y[1]`."""
    sizes = {len(entry) if isinstance(entry, tuple) else 0 for key in keys for entry in key}
    if len(sizes) != 1 or not 1 < (size := sizes.pop()) <= 3:
        return
    some = [key for key, c in zip(keys, chosen, strict=True) if c]
    parts = []
    for k in range(size):
        selected = {(x[k], y[k]) for x, y in some}
        pairs = [*dict.fromkeys((x[k], y[k]) for x, y in keys)]
        if len(selected) < len(pairs):
            found = shortest({pair: pair in selected for pair in pairs}, 2)
            if found is None:
                return
            parts.append(re.sub(r"\b[xy]\b", lambda match, k=k: f"{match[0]}[{k}]", found.source))
    yield " and ".join(f"({part})" if " or " in part else part for part in parts)


def _of_sum(text: str, condition: str) -> str:
    """A condition on x as one on a sum of x and y; `x - y == 1` is written `x == y + 1`."""
    if condition == "not x":
        return "x == y" if text == "x - y" else f"{text} == 0"
    variable, _, rest = condition.partition(" ")
    sign, _, constant = rest.partition(" ")
    if text == "x - y" and variable == "x" and sign in ("==", "!=", "<", "<=", ">", ">="):
        try:
            number = float(constant)
        except ValueError:
            return _replaced(condition, f"({text})")
        return f"x {sign} {_sum([(1, 'y')], number)}"
    return _replaced(condition, text if sign in ("==", "!=", "<", "<=", ">", ">=") else f"({text})")


def _replaced(condition: str, text: str) -> str:
    return " ".join(text if word == "x" else word for word in condition.split(" "))


def _both(keys: Sequence[tuple[Any, Any]], chosen: Sequence[bool]) -> Iterator[str]:
    """Of x one thing and of y another, or either."""
    firsts, seconds = ([*dict.fromkeys(key[k] for key in keys)] for k in (0, 1))
    for wanted, joint in ((True, "and"), (False, "or")):
        some = {key for key, c in zip(keys, chosen, strict=True) if c == wanted}
        x_in, y_in = {x for x, _ in some}, {y for _, y in some}
        if some != {key for key in keys if key[0] in x_in and key[1] in y_in} or not some:
            continue
        of_x = list(_conditions(firsts, [(x in x_in) == wanted for x in firsts], "x"))
        of_y = list(_conditions(seconds, [(y in y_in) == wanted for y in seconds], "y"))
        if of_x and of_y and 0 < len(x_in) < len(firsts) and 0 < len(y_in) < len(seconds):
            yield f"{of_x[0]} {joint} {of_y[0]}"


# -- numbers and sums as text ----------------------------------------------------------------------------------------


def _is_whole(value: float) -> bool:
    return bool(abs(value - round(value)) < 1e-9)


def _rounded(value: float) -> float:
    """A number that rounding has moved, where it was."""
    return float(round(value)) if _is_whole(value) else float(f"{value:.12g}")


def _text(value: int | float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _sum(terms: Sequence[tuple[int | float, str]], constant: int | float) -> str:
    """A sum of multiples and a constant, with as few signs as it needs: `2 * x - y + 1`, `5 - x`."""
    parts = [(factor, name) for factor, name in terms if factor]
    if constant and (constant > 0 and all(factor < 0 for factor, _ in parts)):
        parts = [(constant, ""), *parts]
    else:
        parts = sorted(parts, key=lambda part: part[0] < 0)
        parts += [(constant, "")] if constant else []
    text = ""
    for factor, name in parts:
        size = abs(factor)
        term = _text(size) if not name else name if size == 1 else f"{_text(size)} * {name}"
        text = (f"-{term}" if factor < 0 else term) if not text else f"{text} {'-' if factor < 0 else '+'} {term}"
    return text or "0"


def _bracketed(text: str) -> str:
    return f"({text})" if " " in text else text
