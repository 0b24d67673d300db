"""What a verb takes: its operands and options, read off the signature and the docstring of its function."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True)
class Operand:
    """Marks a parameter that is given by its place, without a word before it."""


@dataclass(frozen=True)
class Named:
    """Marks a parameter whose option has another name than the parameter, such as `id`."""

    name: str


@dataclass(frozen=True)
class Repeated:
    """Marks an option that takes one value and may be given several times."""


Positional: TypeAlias = Annotated[T, Operand()]
"""An operand: `zoo: Positional[Path]` is shown as ZOO."""

OPERANDS = {
    "files": "FILE",
    "networks": "FILE",
    "run": "MODEL",
    "sources": "SOURCE",
    "targets": "TARGET",
    "to": "PLACE",
}
"""What operands are called, where that is not the name of the parameter."""
REQUIRED: Any = object()
"""The default of what has to be given."""
KINDS = {int: "N", float: "NUMBER", Path: "PATH", str: "TEXT"}
"""What stands for a value in a usage line."""


@dataclass(frozen=True)
class Argument:
    """One operand or option of a verb.

    Attributes:
        path: the parameter, and below it the fields, that get the value.
        name: of an operand such as ZOO, of an option without its dashes.
        kind: int, float, str, Path or bool; what each value is made into.
        choices: the only values, if there is a list of them.
        count: values that it takes; None for any number.
        default: the value if it is not given; REQUIRED if it has to be given.
        help: what the docstring says of it.
        operand: whether it is given by its place.
        repeated: whether the option may be given several times, one value each.
        nothing: whether `none` is a value.
    """

    path: tuple[str, ...]
    name: str
    kind: type
    choices: tuple[str, ...] = ()
    count: int | None = 1
    default: Any = REQUIRED
    help: str = ""
    operand: bool = False
    repeated: bool = False
    nothing: bool = False

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    @property
    def value(self) -> str:
        """What stands for its values in a usage line, such as `N` or `PATH...`; nothing for a flag."""
        if self.kind is bool:
            return ""
        one = self.name if self.operand else "|".join(self.choices) if self.choices else KINDS[self.kind]
        return f"{one}..." if self.count is None and not self.repeated else " ".join([one] * (self.count or 1))


EVERYWHERE = (
    Argument(("config",), "config", Path, default=None, help="options in a TOML file; words on the line win."),
    Argument(("verbose",), "verbose", bool, default=False, help="say more while it works, and how long it took."),
    Argument(("quiet",), "quiet", bool, default=False, help="no progress lines; results and errors are printed."),
    Argument(("help",), "help", bool, default=False, help="this text."),
)
"""Options of every verb."""
SHORT = {"-h": "--help", "-q": "--quiet", "-v": "--verbose"}


def arguments(verb: Callable[..., int], defaults: Mapping[str, Any] | None = None) -> list[Argument]:
    """The operands and options of a verb, in the order of its signature; fields of a dataclass are options each.

    Args:
        verb: a function whose docstring has an entry under `Args:` for each parameter.
        defaults: of parameters, instead of those of the signature.
    """
    said = described(verb).parameters
    hints = get_type_hints(verb, include_extras=True)
    found: list[Argument] = []
    for name, parameter in inspect.signature(verb).parameters.items():
        default = REQUIRED if parameter.default is parameter.empty else parameter.default
        default = (defaults or {}).get(name, default)
        if is_dataclass(default) and not isinstance(default, type):
            found += _fields((name,), default)
        else:
            found.append(_argument((name,), hints[name], default, said.get(name, "")))
    return found


def _fields(path: tuple[str, ...], value: Any) -> list[Argument]:
    """An option for each field of a dataclass, and of those in it."""
    hints, said = get_type_hints(type(value), include_extras=True), _field_docstrings(type(value))
    found: list[Argument] = []
    for field in fields(value):
        below, default = (*path, field.name), getattr(value, field.name)
        if is_dataclass(default) and not isinstance(default, type):
            found += _fields(below, default)
        else:
            found.append(_argument(below, hints[field.name], default, said.get(field.name, "")))
    return found


def _argument(path: tuple[str, ...], hint: Any, default: Any, text: str) -> Argument:
    marks: list[Any] = []
    while get_origin(hint) is Annotated:
        hint, *more = get_args(hint)
        marks += more
    unknown = [mark for mark in marks if not isinstance(mark, Operand | Named | Repeated)]
    assert not unknown, f"{path[-1]} has a mark of another kind: {unknown[0]!r}"
    operand = any(isinstance(mark, Operand) for mark in marks)
    named = [mark.name for mark in marks if isinstance(mark, Named)]
    name = named[0] if named else path[-1].rstrip("_").replace("_", "-")
    if operand:
        name = OPERANDS.get(path[-1], name.upper())
    nothing = get_origin(hint) in (Union, UnionType)
    if nothing:
        (hint,) = (one for one in get_args(hint) if one is not NoneType)
    count: int | None = 1
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        count, hint = (None, parts[0]) if parts[-1] is Ellipsis else (len(parts), parts[0])
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    kind = str if choices else hint
    assert kind is bool or kind in KINDS, f"{path[-1]} is of the type {hint!r}, which no word can give"
    repeated = any(isinstance(mark, Repeated) for mark in marks)
    if operand and count is None and default is REQUIRED:
        default = ()  # the verb itself says what is missing
    return Argument(path, name, kind, choices, count, default, text, operand, repeated, nothing)


@dataclass(frozen=True)
class Description:
    """A docstring in its parts.

    Attributes:
        text: everything before the first section, paragraph by paragraph.
        parameters: what `Args:` says of each.
        examples: the lines of `Examples:`.
    """

    text: tuple[str, ...]
    parameters: Mapping[str, str]
    examples: tuple[str, ...]


@cache
def described(verb: Callable[..., int]) -> Description:
    """The docstring of a verb in its parts."""
    sections: dict[str, list[str]] = {"": []}
    here = ""
    for line in (inspect.getdoc(verb) or "").splitlines():
        heading = re.fullmatch(r"([A-Z][a-z]+):", line)
        here = heading[1] if heading else here
        sections.setdefault(here, [])
        if not heading:
            sections[here].append(line)
    paragraphs = "\n".join(sections[""]).strip().split("\n\n")
    examples = textwrap.dedent("\n".join(sections.get("Examples", ()))).strip().splitlines()
    return Description(
        tuple(" ".join(paragraph.split()) for paragraph in paragraphs),
        _entries(textwrap.dedent("\n".join(sections.get("Args", ())))),
        tuple(line for line in examples if line),
    )


def _entries(text: str) -> dict[str, str]:
    """`name: text` a line, whose text may go on below, further in."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        entry = re.match(r"(\w+): (.*)", line)
        if entry:
            name = entry[1]
            found[name] = [entry[2]]
        elif name and line.strip():
            found[name].append(line.strip())
    return {name: " ".join(lines) for name, lines in found.items()}


@cache
def _field_docstrings(kind: type) -> dict[str, str]:
    """The string that stands below each field of a dataclass, as one line."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for above, below in zip(tree.body, tree.body[1:], strict=False):
        if not (isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[above.target.id] = " ".join(str(below.value.value).split())
    return found
