"""What each operation reads and how it is written: what programs as records and programs as text have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from keyword import iskeyword
from typing import Any, TypeGuard, cast

from weightspace.errors import RaspError
from weightspace.rasp.choices import WHICH, Choose, NextTokens, Pick, Which
from weightspace.rasp.functions import LARGEST, LONGEST_VALUE, Function, Value, is_bounded, is_number, is_value, shown
from weightspace.rasp.language import (
    COMPARISONS,
    ENCODINGS,
    OPERATIONS,
    Aggregate,
    Encoding,
    Expression,
    LinearSequenceMap,
    Map,
    Select,
    Selector,
    SelectorAnd,
    SelectorNot,
    SelectorOr,
    SelectorWidth,
    SequenceMap,
    SOp,
    Statements,
)

HEADERS = ("vocab", "max_seq_len", "causal", "mlp_exactness")
"""What a program is meant for, as records and texts name it."""
LONGEST_NAME = 100
MOST_OPERATIONS = 5_000


@dataclass(frozen=True)
class Form:
    """How an operation is written.

    Attributes:
        operation: its class.
        reads: whether it reads an S-op or a selector, argument by argument.
        text: its call in a program text.
        detail: the field of a record in which the rest of it stands, or "" where there is no rest.
        arity: of its function, 0 where it has none.
    """

    operation: type[Expression]
    reads: tuple[type[SOp] | type[Selector], ...]
    text: str
    detail: str = ""
    arity: int = 0

    @property
    def is_sop(self) -> bool:
        return issubclass(self.operation, SOp)


FORMS: dict[str, Form] = {
    form.operation.__name__: form
    for form in (
        Form(Map, (SOp,), "Map(FUNCTION, SOP)", "fn", 1),
        Form(SequenceMap, (SOp, SOp), "SequenceMap(FUNCTION, SOP, SOP)", "fn", 2),
        Form(LinearSequenceMap, (SOp, SOp), "LinearSequenceMap(FACTOR, FACTOR, SOP, SOP)", "factors"),
        Form(Select, (SOp, SOp), "Select(PREDICATE, KEYS, QUERIES)", "predicate", 2),
        Form(SelectorAnd, (Selector, Selector), "SelectorAnd(SELECTOR, SELECTOR)"),
        Form(SelectorOr, (Selector, Selector), "SelectorOr(SELECTOR, SELECTOR)"),
        Form(SelectorNot, (Selector,), "SelectorNot(SELECTOR)"),
        Form(Aggregate, (Selector, SOp), "Aggregate(SELECTOR, SOP)", "default"),
        Form(SelectorWidth, (Selector,), "SelectorWidth(SELECTOR)"),
        Form(Pick, (Selector, SOp), "Pick(WHICH, SELECTOR, SOP)", "which"),
        Form(Choose, (SOp, SOp, SOp), "Choose(CONDITION, SOP, SOP)"),
    )
}
assert {form.operation for form in FORMS.values()} == {*OPERATIONS, Pick, Choose}
SETS = "return {TOKEN: SOP, ...}"
"""How a program says which tokens may come next."""

RESERVED = frozenset({"tokens", "indices", *HEADERS, *FORMS})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def form_of(operation: object) -> Form:
    """The form of an operation by its name.

    Raises:
        RaspError: if there is none of that name.
    """
    if isinstance(operation, str) and operation in FORMS:
        return FORMS[operation]
    raise RaspError(f"unknown operation {shown(operation)}: there are {', '.join(FORMS)}")


def make(
    form: Form,
    children: Sequence[Expression],
    detail: Any = None,
    *,
    encoding: Encoding | None = None,
    label: str | None = None,
) -> Expression:
    """The operation of a form.

    Args:
        form: which one.
        children: what it reads, already of the right kinds.
        detail: its function, predicate, two factors or default, where it has one.
        encoding: unless given what is usual for it.
        label: the name by which Tracr sorts its directions.
    """
    reads: list[Any] = list(children)
    usual: Encoding = "numerical" if form.operation is LinearSequenceMap else "categorical"
    encoding = encoding or usual
    operation = cast(Any, form.operation)
    match form.detail:
        case "fn":
            return operation(detail, *reads, encoding=encoding, label=label)
        case "factors":
            return operation(*reads, *detail, encoding=encoding, label=label)
        case "predicate":
            return operation(*reads, detail, label=label)
        case "default":
            return operation(*reads, encoding=encoding, default=detail, label=label)
        case "which":
            which, default = detail
            return operation(which, *reads, encoding=encoding, default=default, label=label)
    return operation(*reads, encoding=encoding, label=label) if form.is_sop else operation(*reads, label=label)


def check_child(form: Form, place: int, name: str, child: Expression) -> None:
    """Refuse a selector where an S-op is wanted and the reverse.

    Raises:
        RaspError: that says which it is and what the operation reads.
    """
    if not isinstance(child, form.reads[place]):
        wanted, found = ("an S-op", "a selector") if form.reads[place] is SOp else ("a selector", "an S-op")
        raise RaspError(f"{name} is {found} where {wanted} is wanted: {form.text}")


def check_variable(name: object) -> str:
    """A name that a statement can have: letters, digits and _, and not one that the language uses itself.

    Raises:
        RaspError: if it is none.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise RaspError(
            f"a variable is a name of at most {LONGEST_NAME} of the characters a-z, A-Z, 0-9 and _, such as v1, "
            f"not {shown(name)}"
        )
    if name in RESERVED or iskeyword(name):
        raise RaspError(f"{name} is no variable: the language uses the name itself; choose another, such as v1")
    return name


def unknown_variable(name: object, known: Sequence[str]) -> str:
    """What an error says of a variable that no statement before has assigned: the known ones, the nearest first."""
    if isinstance(name, str):
        near = get_close_matches(name[:LONGEST_NAME], known, n=3)
        rest = [other for other in known if other not in near][: 8 - len(near)]
        listed = ", ".join([*near, *rest]) + (", ..." if len(near) + len(rest) < len(known) else "")
        return f"unknown variable {shown(name)}: known here are {listed}"
    return f"a variable is wanted, such as tokens or v1, not {shown(name)}"


def read_vocab(value: object) -> tuple[Value, ...]:
    """A vocabulary from a list.

    Raises:
        RaspError: if it is no list of different numbers, strings, True and False.
    """
    if not isinstance(value, list | tuple) or not value:
        raise RaspError(f'vocab is a list of tokens, such as [0, 1, 2] or ["a", "b"], not {shown(value)}')
    for entry in value:
        if not isinstance(entry, str) and not is_finite(entry):
            raise RaspError(f"vocab holds numbers within +-2^53, strings, True and False, not {shown(entry)}")
    if len(set(value)) < len(value):
        twice = next(entry for i, entry in enumerate(value) if entry in value[:i])
        raise RaspError(f"vocab lists {shown(twice)} twice: leave one out (1, 1.0 and True are the same token)")
    return tuple(value)


def read_max_seq_len(value: object) -> int:
    """The longest input from a number.

    Raises:
        RaspError: if it is no integer of at least 1.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST:
        raise RaspError(f"max_seq_len is a whole number from 1 up, such as 5, not {shown(value)}")
    return value


def read_causal(value: object) -> bool:
    """Whether queries look back only.

    Raises:
        RaspError: if it is neither True nor False.
    """
    if not isinstance(value, bool):
        raise RaspError(f"causal is True or False, not {shown(value)}")
    return value


def read_mlp_exactness(value: object) -> float:
    """The steepness of an MLP's steps from a number.

    Raises:
        RaspError: if it is no finite number above 0.
    """
    if not is_finite(value) or isinstance(value, bool) or value <= 0:
        raise RaspError(f"mlp_exactness is a number above 0, such as 100, not {shown(value)}")
    return float(value)


READERS = {
    "vocab": read_vocab,
    "max_seq_len": read_max_seq_len,
    "causal": read_causal,
    "mlp_exactness": read_mlp_exactness,
}
"""How each of the headers is read."""


def read_factor(value: object) -> int | float:
    """A factor of a LinearSequenceMap.

    Raises:
        RaspError: if it is no finite number.
    """
    if not is_finite(value) or isinstance(value, bool):
        raise RaspError(f"a factor is a number within +-2^53, such as -2.0, not {shown(value)}")
    return value


def read_value(value: object, what: str, tuples: bool = False) -> Value:
    """A default, or a part of a table's entry.

    Args:
        tuples: whether it may be a tuple, as a list in JSON.
    Raises:
        RaspError: if it is no value; it calls it `what`.
    """
    made: Any = value
    if tuples and isinstance(value, list | tuple) and value:
        made = tuple(read_value(part, what, tuples) for part in value[: LONGEST_VALUE + 1])
    if not (isinstance(made, tuple) and not tuples) and is_value(made) and is_bounded(made):
        return made
    raise RaspError(f"{what} is a number within +-2^53, a string, True, False or None, not {shown(value)}")


def read_which(value: object) -> Which:
    """Which of the values selected a Pick takes, by its name.

    Raises:
        RaspError: if there is no such one.
    """
    if isinstance(value, str) and value in WHICH:
        return value  # type: ignore[return-value] (one of them)
    raise RaspError(f"Pick takes one of {', '.join(WHICH)}, not {shown(value)}")


def read_sets(tokens: Sequence[object], sops: Sequence[Expression]) -> NextTokens:
    """The output of a program that says which tokens may come next.

    Raises:
        RaspError: if a token is none or stands there twice, or a selector stands where an S-op is wanted.
    """
    chosen = read_vocab(list(tokens))
    for token, sop in zip(chosen, sops, strict=True):
        if not isinstance(sop, SOp):
            raise RaspError(f"what is said of {shown(token)} is a selector where an S-op is wanted: {SETS}")
    return NextTokens(chosen, [sop for sop in sops if isinstance(sop, SOp)])


def read_encoding(value: object) -> Encoding:
    """An encoding by its name.

    Raises:
        RaspError: if it is neither.
    """
    if isinstance(value, str) and value in ENCODINGS:
        return value
    raise RaspError(f"an encoding is {' or '.join(ENCODINGS)}, not {shown(value)}")


def is_comparison(value: object) -> bool:
    return isinstance(value, str) and value in COMPARISONS


def check_arity(function: Function, form: Form) -> Function:
    """Refuse a function that takes another number of arguments than the operation gives.

    Raises:
        RaspError: that says both numbers.
    """
    if function.arity != form.arity:
        name = form.operation.__name__
        raise RaspError(
            f"{name} takes a function of {form.arity} arguments, {function.source[:60]!r} has {function.arity}"
        )
    return function


def check_written(function: Function) -> Function:
    """Refuse a function of Python's, which has no text.

    Raises:
        RaspError: that says how it gets one.
    """
    if function.native:
        raise RaspError(
            f"{function.source} is a function of Python's, which has no text: give the program a vocabulary and a "
            "length, Program.of(output, vocab=..., max_seq_len=...), and it becomes a table"
        )
    return function


def names_of(program: Statements, node: Expression) -> list[str]:
    """The variables that a node reads, in order.

    Raises:
        RaspError: if it reads something that the program has no statement for.
    """
    try:
        return [program.name(child) for child in node.children]
    except KeyError:
        raise RaspError(
            f"{program.names.get(id(node), 'the output')} reads an operation that is none of the program's statements: "
            "make programs with Program.of, or list every operation in an order in which each reads only earlier ones"
        ) from None


def output_name(program: Statements) -> str:
    """The variable of the output.

    Raises:
        RaspError: if the program has no statement for it.
    """
    if id(program.output) not in program.names:
        raise RaspError("the output is none of the program's statements: make programs with Program.of")
    return program.name(program.output)


def is_finite(value: object) -> TypeGuard[int | float]:
    """Whether it is a number that a program can hold."""
    return is_number(value) and abs(value) <= LARGEST
