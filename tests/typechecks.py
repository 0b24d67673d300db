"""Under test every call is checked against its annotations: by jaxtyping where it names shapes, else by beartype.

The import hook of jaxtyping wraps each function in several calls, to gather the sizes of named axes. Where nothing
names an axis there is nothing to gather, and on programs of many small functions the wrapping takes most of the time.
Beartype by itself checks those annotations alike.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError

_by_jaxtyping = jaxtyping.jaxtyped
_by_beartype = beartype(conf=BeartypeConf(violation_type=TypeCheckError))  # the same error as jaxtyping's
_made: dict[Any, tuple[types.FunctionType, types.FunctionType]] = {}
"""Of functions within functions, which are made anew by every call: the first one, and the check around it."""


def install() -> None:
    """Modules of the import hook that are imported from now on are checked as above."""
    jaxtyping.jaxtyped = _checked  # the name by which the modules of the hook look the decorator up


def _checked(fn: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    if fn is None:
        return functools.partial(_checked, typechecker=typechecker)
    if isinstance(fn, type):
        if dataclasses.is_dataclass(fn) and not hasattr(fn.__init__, "__wrapped__"):
            fn.__init__ = _checked(fn.__init__, typechecker=typechecker)
        return fn
    # what a generator is given would be checked at its first item only
    if not isinstance(fn, types.FunctionType) or inspect.isgeneratorfunction(fn) or inspect.iscoroutinefunction(fn):
        return _by_jaxtyping(fn, typechecker=typechecker)
    key = None
    if "<locals>" in fn.__qualname__ and all(isinstance(hint, str) for hint in fn.__annotations__.values()):
        key = (fn.__code__, fn.__module__, fn.__qualname__, tuple(fn.__annotations__.items()))
        if key in _made:
            return _again(fn, *_made[key])
    hints = {name: _resolved(hint, fn) for name, hint in fn.__annotations__.items()}
    if any(map(_names_axes, hints.values())):
        return _by_jaxtyping(fn, typechecker=typechecker)
    copy = _copy(fn)  # so that the function keeps its annotations as they are written
    copy.__annotations__ = hints
    check = _by_beartype(copy)
    if key is not None and (check is copy or any(value is copy for value in (check.__kwdefaults__ or {}).values())):
        _made[key] = copy, check
    return functools.wraps(fn)(check)


def _again(fn: types.FunctionType, first: types.FunctionType, check: types.FunctionType) -> Any:
    """The check around another function of the same code: beartype's calls what stands in a default of its own."""
    if check is first:
        return fn
    made = _copy(check)
    made.__kwdefaults__ = {
        name: fn if value is first else value for name, value in (check.__kwdefaults__ or {}).items()
    }
    return functools.wraps(fn)(made)


def _copy(fn: types.FunctionType) -> types.FunctionType:
    copy = types.FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    copy.__kwdefaults__ = fn.__kwdefaults__
    copy.__qualname__, copy.__module__ = fn.__qualname__, fn.__module__
    return copy


def _resolved(hint: Any, fn: types.FunctionType) -> Any:
    """An annotation without quotes; like jaxtyping, Any for one that only type checkers can resolve."""
    try:
        return typing.get_type_hints(
            types.SimpleNamespace(__annotations__={"x": hint}), fn.__globals__, include_extras=True
        )["x"]
    except Exception:
        return Any


def _names_axes(hint: Any) -> bool:
    """Whether an array of jaxtyping's stands anywhere in an annotation."""
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
        return issubclass(hint, AbstractArray)
    if isinstance(hint, list | tuple):
        return any(map(_names_axes, hint))
    bounds = (getattr(hint, "__bound__", None), *(getattr(hint, "__constraints__", None) or ()))
    return any(map(_names_axes, (*typing.get_args(hint), *(b for b in bounds if b is not None))))
