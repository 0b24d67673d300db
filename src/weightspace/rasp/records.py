"""Programs as JSON records, as in the golden files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from weightspace.errors import RaspError
from weightspace.rasp.choices import NextTokens, Pick
from weightspace.rasp.forms import (
    HEADERS,
    MOST_OPERATIONS,
    READERS,
    Form,
    check_arity,
    check_child,
    check_variable,
    check_written,
    form_of,
    is_comparison,
    make,
    names_of,
    output_name,
    read_encoding,
    read_factor,
    read_sets,
    read_value,
    read_which,
    unknown_variable,
)
from weightspace.rasp.functions import Function, Value, shown
from weightspace.rasp.language import (
    COMPARISONS,
    EXACTNESS,
    Aggregate,
    Expression,
    LinearSequenceMap,
    Map,
    Select,
    SequenceMap,
    SOp,
    Statements,
    indices,
    tokens,
)


def program_of(record: object) -> Statements:
    """The program of a JSON record.

    Args:
        record: with `ops`, a list of operations in an order in which each reads only earlier ones, and `output`, a
            variable; where known also `vocab`, `max_seq_len`, `causal` and `mlp_exactness`. An operation has `var`,
            `op` and `args`; `fn` (Map, SequenceMap), `predicate` (Select) or `factors` (LinearSequenceMap); and where
            known `encoding`, `default` (Aggregate) and `label`. A function is `lambda x: ...`, `lambda x, y: ...`, or
            `{"table": [[x, value], ...]}` or `{"table": [[x, y, value], ...]}`. Further fields become `Program.notes`.
    Raises:
        RaspError: if something is missing, unknown or of a wrong kind; the message names the record by its `id`, if it
            has one, and the operation.
    """
    if not isinstance(record, Mapping):
        raise RaspError(f"a record is a mapping with 'ops' and 'output', not {shown(record)}")
    name = f"record {shown(record['id'])}" if isinstance(record.get("id"), str | int) else "record"
    try:
        return _program(record)
    except RaspError as error:
        raise RaspError(f"{name}: {error}") from None


def record_of(program: Statements) -> dict[str, Any]:
    """The JSON record from which `program_of` makes the same program; one that came from a record gives it back.

    Raises:
        RaspError: if the program has no statement for something that it reads.
    """
    record: dict[str, Any] = {
        "ops": [_operation_record(program, name, node) for name, node in program.statements],
        "output": output_name(program),
    }
    if program.vocab is not None:
        record["vocab"] = list(program.vocab)
    if program.max_seq_len is not None:
        record["max_seq_len"] = program.max_seq_len
    exactness = program.mlp_exactness
    record["causal"] = program.causal
    record["mlp_exactness"] = int(exactness) if float(exactness).is_integer() else exactness
    return record | {field: value for field, value in program.notes.items() if field not in record}


def _program(record: Mapping[Any, Any]) -> Statements:
    if not all(isinstance(field, str) for field in record):
        raise RaspError("a record's fields are strings, as in JSON")
    for field, example in (("ops", "a list of operations"), ("output", "the variable of the result, such as 'v3'")):
        if field not in record:
            raise RaspError(f"it has no {field!r}, {example}: without it a record holds no program")
    operations = record["ops"]
    if not isinstance(operations, list | tuple):
        raise RaspError(f"'ops' is a list of operations, not {shown(operations)}")
    if len(operations) > MOST_OPERATIONS:
        raise RaspError(f"{len(operations)} operations are too many: at most {MOST_OPERATIONS}")
    nodes: dict[str, Expression] = {"tokens": tokens, "indices": indices}
    for number, operation in enumerate(operations, 1):
        try:
            variable, node = _statement(operation, nodes)
        except RaspError as error:
            raise RaspError(f"{_title(number, operation)}: {error}") from None
        nodes[variable] = node
    output = record["output"]
    if not isinstance(output, str) or output not in nodes:
        raise RaspError(f"output: {unknown_variable(output, [*nodes])}")
    result = nodes[output]
    if not isinstance(result, SOp):
        raise RaspError(f"output: {output} is a selector; a program's output is an S-op")
    meant: dict[str, Any] = {
        field: read(record[field]) for field, read in READERS.items() if record.get(field) is not None
    }
    return Statements(
        result,
        tuple(nodes.items())[2:],
        meant.get("vocab"),
        meant.get("max_seq_len"),
        meant.get("causal", False),
        meant.get("mlp_exactness", EXACTNESS),
        {field: value for field, value in record.items() if field not in ("ops", "output", *HEADERS)},
    )


def _title(number: int, operation: object) -> str:
    known = []
    if isinstance(operation, Mapping):
        known = [shown(operation[field]).strip("'") for field in ("var", "op") if isinstance(operation.get(field), str)]
    return f"operation {number}" + (f" ({', '.join(known)})" if known else "")


def _statement(record: object, nodes: Mapping[str, Expression]) -> tuple[str, Expression]:
    if not isinstance(record, Mapping):
        raise RaspError(f"an operation is a mapping with 'var', 'op' and 'args', not {shown(record)}")
    for field in ("var", "op", "args"):
        if field not in record:
            raise RaspError(f"it has no {field!r}: every operation has 'var', 'op' and 'args'")
    if record["op"] == NextTokens.__name__:
        return _next_tokens(record, nodes)
    form = form_of(record["op"])
    variable = check_variable(record["var"])
    if variable in nodes:
        raise RaspError(f"{variable} is assigned twice: every variable has one operation")
    fields = ["var", "op", "args", "label", *filter(None, [form.detail, "encoding" if form.is_sop else ""])]
    fields += ["default"] if form.detail == "which" else []
    for field in record:
        if field not in fields:
            raise RaspError(f"unknown field {shown(field)}: a {record['op']} has {', '.join(fields)}")
    label = record.get("label")
    if not isinstance(label, str | None):
        raise RaspError(f"a label is a string, not {shown(label)}")
    encoding = None if record.get("encoding") is None else read_encoding(record["encoding"])
    children = _children(form, record["args"], nodes)
    return variable, make(form, children, _detail(form, record), encoding=encoding, label=label)


def _next_tokens(record: Mapping[Any, Any], nodes: Mapping[str, Expression]) -> tuple[str, Expression]:
    said, names = record.get("tokens"), record["args"]
    if not isinstance(said, list | tuple) or not isinstance(names, list | tuple) or len(said) != len(names):
        raise RaspError(f"'tokens' is a list of as many tokens as 'args' has variables, not {shown(said)}")
    for name in names:
        if not isinstance(name, str) or name not in nodes:
            raise RaspError(unknown_variable(name, [*nodes]))
    return check_variable(record["var"]), read_sets(said, [nodes[name] for name in names])


def _children(form: Form, arguments: object, nodes: Mapping[str, Expression]) -> list[Expression]:
    if not isinstance(arguments, list | tuple) or len(arguments) != len(form.reads):
        kinds = ", ".join("an S-op" if kind is SOp else "a selector" for kind in form.reads)
        raise RaspError(f"'args' is a list of the variables of {kinds}, not {shown(arguments)}")
    children = []
    for place, name in enumerate(arguments):
        if not isinstance(name, str) or name not in nodes:
            raise RaspError(unknown_variable(name, [*nodes]))
        check_child(form, place, name, nodes[name])
        children.append(nodes[name])
    return children


def _detail(form: Form, record: Mapping[str, Any]) -> Any:
    """Its function, predicate, factors or default."""
    if form.detail == "":
        return None
    if form.detail == "default":
        return read_value(record["default"], "a default") if "default" in record else "usual"
    if form.detail not in record:
        raise RaspError(f"it has no {form.detail!r}, which a {record['op']} needs")
    value = record[form.detail]
    if form.detail == "which":
        return read_which(value), read_value(record.get("default"), "a default")
    if form.detail == "factors":
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise RaspError(f"'factors' is a list of two numbers, not {shown(value)}")
        return [read_factor(factor) for factor in value]
    return value if form.detail == "predicate" and is_comparison(value) else _function(form, value)


def _function(form: Form, value: object) -> Function:
    if isinstance(value, str):
        if form.detail == "predicate" and value.isidentifier() and value not in ("x", "y", "True", "False", "None"):
            raise RaspError(f"unknown predicate {shown(value)}: there are {', '.join(COMPARISONS)}, and functions")
        return check_arity(Function.parse(value, form.arity), form)
    if isinstance(value, Mapping) and [*value] == ["table"]:
        return check_arity(Function.from_table(_table(value["table"], form.arity), form.arity), form)
    example = "lambda x: x + 1" if form.arity == 1 else "lambda x, y: x + y"
    raise RaspError(f"{form.detail!r} is a function such as {example!r}, or a {{'table': [...]}}, not {shown(value)}")


def _table(rows: object, arity: int) -> dict[Any, Value]:
    row = "[x, value]" if arity == 1 else "[x, y, value]"
    if not isinstance(rows, list | tuple) or not rows:
        raise RaspError(f"a table is a list of entries {row}, not {shown(rows)}")
    table: dict[Any, Value] = {}
    for entry in rows:
        if not isinstance(entry, list | tuple) or len(entry) != arity + 1:
            raise RaspError(f"a table's entry is {row}, not {shown(entry)}")
        *arguments, value = [read_value(part, "a table's part", tuples=True) for part in entry]
        key = arguments[0] if arity == 1 else tuple(arguments)
        if key in table:
            raise RaspError(f"a table has two entries for {shown(key)}: leave one out")
        table[key] = value
    return table


def _operation_record(program: Statements, name: str, node: Expression) -> dict[str, Any]:
    record: dict[str, Any] = {"op": type(node).__name__, "args": names_of(program, node)}
    match node:
        case Map() | SequenceMap():
            record["fn"] = _function_record(node.function)
        case LinearSequenceMap():
            record["factors"] = [node.first_factor, node.second_factor]
        case Select(predicate=predicate):
            record["predicate"] = predicate if isinstance(predicate, str) else _function_record(predicate)
        case Aggregate():
            record["default"] = node.default
        case Pick():
            record |= {"which": node.which, "default": node.default}
        case NextTokens():
            record["tokens"] = list(node.tokens)
    if node.label is not None:
        record["label"] = node.label
    if isinstance(node, SOp):
        record["encoding"] = node.encoding
    record["var"] = name
    return record


def _function_record(function: Function) -> str | dict[str, Sequence[Any]]:
    check_written(function)
    if function.table is None:
        return f"lambda {'x' if function.arity == 1 else 'x, y'}: {function.source}"
    rows = function.table.items()
    if function.arity == 1:
        return {"table": [[x, value] for x, value in rows]}
    return {"table": [[*pair, value] for pair, value in rows]}
