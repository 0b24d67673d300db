"""Programs as data: as records, as text, and the functions inside them."""

import copy
import json
import pickle
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.golden import golden
from weightspace.errors import RaspError
from weightspace.rasp.functions import Function, FunctionError, Undefined
from weightspace.rasp.interpreter import evaluate
from weightspace.rasp.language import (
    COMPARISONS,
    ENCODINGS,
    Aggregate,
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
    indices,
    tokens,
)
from weightspace.rasp.program import Program
from weightspace.rasp.text import LONGEST_TEXT, TextError

EXAMPLES = Path(__file__).parents[2] / "examples"
COUNT_AND_MEAN = """\
vocab = [0, 1, 2, 3, 4]
max_seq_len = 5
causal = True
mlp_exactness = 50.0
v1 = Select(PRED_EQ, tokens, tokens)
v2 = SelectorWidth(v1)
v3: numerical = Map(x == 2, tokens)
v4: numerical = Aggregate(v1, v3)
v5: numerical = LinearSequenceMap(-2.0, 1.0, v4, v3)
v6 = Select(x < 2 and y == 1, v2, tokens)
v7 = SelectorAnd(v1, v6)
v8 = SelectorOr(v7, v1)
v9 = SelectorNot(v8)
v10 = SequenceMap(x + y % 10, tokens, indices)
v11 = Map({0: 1, 1: 'a', None: -2.5}, tokens)
v12 = SequenceMap({(0, 1): 2, (1, True): None}, tokens, v11)
v13 = Aggregate(v9, v12, default=0)
v14: numerical = Aggregate(v9, v3, default=None)
v15: categorical = LinearSequenceMap(0.5, 0.5, v3, v3)
return v13"""
"""Every operation and every spelling of canonical text."""


# -- what tests draw ------------------------------------------------------------------------------------------------

numbers = st.one_of(
    st.integers(-(2**53), 2**53), st.integers(-9, 9), st.floats(-1e6, 1e6, allow_nan=False), st.booleans()
)
values = st.one_of(numbers, st.text(max_size=5), st.none())


def _larger(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = ["+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "and", "or"]
    return st.one_of(
        st.tuples(parts, st.sampled_from(binary), parts).map(lambda part: f"({part[0]}) {part[1]} ({part[2]})"),
        st.tuples(st.sampled_from(["-", "not ", "int", "float", "abs", "bool", "round"]), parts).map(
            lambda part: f"{part[0]}({part[1]})"
        ),
        st.tuples(st.sampled_from(["min", "max"]), parts, parts).map(lambda part: f"{part[0]}({part[1]}, {part[2]})"),
        st.tuples(parts, parts, parts).map(lambda part: f"({part[0]}) if ({part[1]}) else ({part[2]})"),
    )


def sources(arity: int) -> st.SearchStrategy[str]:
    names = st.sampled_from(["x", "y"][:arity])
    return st.recursive(st.one_of(names, values.map(repr)), _larger, max_leaves=6)


# These draw from within a test, as `data.draw`, and are no strategies: hypothesis forbids randomness in a strategy, and
# beartype, which is active here, samples what it checks.


def drawn_function(draw: Callable[..., Any], arity: int) -> Function:
    if draw(st.booleans()):
        return Function.parse(draw(sources(arity)), arity)
    keys = values if arity == 1 else st.tuples(values, values)
    return Function.from_table(draw(st.dictionaries(keys, values, min_size=1, max_size=5)))


def drawn_program(draw: Callable[..., Any]) -> Program:
    """Any program of up to ten operations, compilable or not, dead code included."""
    sops: list[SOp] = [tokens, indices]
    selectors: list[Selector] = []
    statements: list[tuple[str, Expression]] = []
    for number in range(draw(st.integers(1, 10))):
        kinds = ["Map", "SequenceMap", "LinearSequenceMap", "Select"]
        kinds += ["SelectorAnd", "SelectorOr", "SelectorNot", "Aggregate", "SelectorWidth"] if selectors else []
        kind = draw(st.sampled_from(kinds))
        encoding = draw(st.sampled_from(ENCODINGS))
        label = draw(st.one_of(st.none(), st.text(max_size=5)))
        a, b = draw(st.sampled_from(sops)), draw(st.sampled_from(sops))
        s, t = (draw(st.sampled_from(selectors)), draw(st.sampled_from(selectors))) if selectors else (None, None)
        node: Any
        match kind:
            case "Map":
                node = Map(drawn_function(draw, 1), a, encoding=encoding, label=label)
            case "SequenceMap":
                node = SequenceMap(drawn_function(draw, 2), a, b, encoding=encoding, label=label)
            case "LinearSequenceMap":
                factors = [draw(st.floats(-1e9, 1e9, allow_nan=False)) for _ in "ab"]
                node = LinearSequenceMap(a, b, *factors, encoding=encoding, label=label)
            case "Select":
                predicate = draw(st.sampled_from([*COMPARISONS, None])) or drawn_function(draw, 2)
                node = Select(a, b, predicate, label=label)
            case "Aggregate":
                default = draw(values.filter(lambda value: value != "usual"))
                assert s is not None
                node = Aggregate(s, a, encoding=encoding, default=default, label=label)
            case "SelectorWidth":
                assert s is not None
                node = SelectorWidth(s, encoding=encoding, label=label)
            case "SelectorNot":
                assert s is not None
                node = SelectorNot(s, label=label)
            case _:
                assert s is not None and t is not None
                node = (SelectorAnd if kind == "SelectorAnd" else SelectorOr)(s, t, label=label)
        if isinstance(node, SOp):
            sops.append(node)
        else:
            selectors.append(node)
        statements.append((f"{draw(st.sampled_from(['v', 'same_tok_', 'X']))}{number}", node))
    return Program(
        draw(st.sampled_from(sops)),
        tuple(statements),
        draw(
            st.one_of(st.none(), st.lists(values.filter(lambda v: v is not None), min_size=1, unique=True).map(tuple))
        ),
        draw(st.one_of(st.none(), st.integers(1, 99))),
        draw(st.booleans()),
        draw(st.one_of(st.just(100.0), st.floats(1e-3, 1e6))),
        draw(st.dictionaries(st.sampled_from(["id", "config"]), st.integers(), max_size=2)),
    )


def without_labels(record: dict[str, Any]) -> dict[str, Any]:
    """What a text says of a record: all but labels and notes."""
    said = {field: record[field] for field in record if field not in ("id", "config")}
    said["ops"] = [{field: op[field] for field in op if field != "label"} for op in record["ops"]]
    return said


# -- functions ------------------------------------------------------------------------------------------------------


@given(st.data(), st.integers(1, 2))
@settings(deadline=5_000)
def test_what_a_function_prints_parses_to_the_same_function(data: st.DataObject, arity: int) -> None:
    function = drawn_function(data.draw, arity)
    assert Function.parse(function.source, function.arity) is function
    assert pickle.loads(pickle.dumps(function)) is function


@given(sources(2), numbers, numbers)
@settings(deadline=5_000)
def test_a_function_means_what_it_means_in_python_or_refuses(source: str, x: Any, y: Any) -> None:
    try:
        result = Function.parse(source, 2)(x, y)
    except (RaspError, Undefined):
        return
    assert result == eval(source, {"__builtins__": {}}, {"x": x, "y": y} | PYTHON)


PYTHON = {"int": int, "float": float, "abs": abs, "bool": bool, "round": round, "min": min, "max": max}


@pytest.mark.parametrize(
    ("source", "arity", "inputs", "result"),
    [
        ("x + y % 10", 2, (7, 13), 10),
        ("lambda x, y: x and y", 2, (0, 5), 0),
        ("lambda x: not x", 1, (0.0,), True),
        ("0 < x <= 3", 1, (3,), True),
        ("'a' if x == 'l' else None", 1, ("l",), "a"),
        ("min(x, 2, 3)", 1, (7,), 2),
        ("round(x, 1)", 1, (0.25,), 0.2),
        ("{0: 1, 'a': None}", 1, (0,), 1),
        ("{0: 1, 'a': None}", 1, (5,), None),
        ("{(0, 1): 2}", 2, (0, 1), 2),
    ],
)
def test_functions_have_the_values_of_python(source: str, arity: int, inputs: tuple[Any, ...], result: Any) -> None:
    function = Function.parse(source)
    assert function.arity == arity
    assert function(*inputs) == result


@pytest.mark.parametrize(
    "source",
    [
        "x.real",
        "x.__class__",
        "open('f')",
        "__import__('os')",
        "print(x)",
        "int(x, 2)",
        "min(x, key=y)",
        "min(*x)",
        "[a for a in x]",
        "sum(x)",
        "z",
        "tokens",
        "x if y",
        "f'{x}'",
        "b'x'",
        "1j",
        "...",
        "x is y",
        "x @ y",
        "x << 9",
        "~x",
        "(x := 1)",
        "(yield x)",
        "await x",
        "lambda: 1",
        "lambda z: z",
        "lambda x, y, z: 1",
        "lambda x=1: x",
        "lambda *x: x",
        "lambda x: lambda x: x",
        "1e999",
        "9999999999999999999",
        "0x" + "f" * 1990,
        "x; y",
        "import os",
        "x = 1",
        "",
        "\0",
        "\ud800",
        "x" * 2_001,
        "(" * 900 + "x" + ")" * 900,
        "not " * 41 + "x",
        "-" * 1_500 + "x",
        "x" + ".a" * 900,
        "{}",
        "{0: x}",
        "{**x}",
        "{0: []}",
        "{[]: 0}",
        "{(0, 1, 2): 0}",
        "{(0, 1): 0, 1: 2}",
        "{0: 1e999}",
        "{0: 99999999999999999999}",
        "{0: 1j}",
    ],
)
def test_what_is_no_function_is_refused(source: str) -> None:
    with pytest.raises(FunctionError):
        Function.parse(source)


@pytest.mark.parametrize(
    ("source", "x"),
    [
        ("9 ** 9 ** 9", 0),
        ("x ** x", 2**53),
        ("x ** 64", 2),
        ("'a' * x", 10**12),
        ("x + x", "a" * 600),
        ("x + 'a'", 1),
        ("len(x)", 5),
        ("x[0]", 5),
        ("x in y", 5),
        ("x * 'a'", 10**12),
        ("'%0999999999d' % x", 1),
        ("x + 1", None),
        ("x < 1", "a"),
        ("x * x", 2**40),
        ("round(x, -999999999)", 1),
        ("round(x, 0.5)", 1),
    ],
)
def test_what_a_function_cannot_take_or_would_blow_up_is_refused_at_once(source: str, x: Any) -> None:
    function = Function.parse(source)
    start = time.perf_counter()
    with pytest.raises(FunctionError):
        function(x)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("source", ["1 / x", "x % 0", "x ** -1", "1e200 * 1e200 / x", "int(1e308 * 10)"])
def test_no_value_is_undefined(source: str) -> None:
    with pytest.raises(Undefined) if "1e" not in source else pytest.raises((Undefined, FunctionError)):
        Function.parse(source)(0)


def test_a_lambda_of_the_wrong_number_of_arguments_is_refused() -> None:
    with pytest.raises(FunctionError, match="takes 1 arguments where 2 are wanted"):
        Function.parse("lambda x: x", 2)
    with pytest.raises(FunctionError, match="uses y"):
        Function.parse("x + y", 1)


def test_a_long_table_survives_text_records_and_pickle() -> None:
    function = Function.from_table({(i, j): i * j for i in range(30) for j in range(30)})
    assert pickle.loads(pickle.dumps(function)) is function
    program = Program.of(SequenceMap(function, tokens, indices))
    for again in (Program.parse(str(program)), Program.from_record(json.loads(json.dumps(Program.to_record(program))))):
        assert isinstance(again.output, SequenceMap)
        assert again.output.function is function


# -- records --------------------------------------------------------------------------------------------------------


def test_every_golden_record_is_given_back_to_the_letter() -> None:
    records = golden("tracr_random.json")
    assert len(records) == 160
    for record in records:
        before = copy.deepcopy(record)
        assert json.dumps(Program.to_record(Program.from_record(record))) == json.dumps(before)


@given(st.data())
@settings(deadline=5_000)
def test_a_program_survives_its_json_record(data: st.DataObject) -> None:
    program = drawn_program(data.draw)
    record = json.loads(json.dumps(Program.to_record(program)))
    assert Program.to_record(Program.from_record(record)) == record
    assert str(Program.from_record(record)) == str(program)


def test_a_program_from_python_has_a_record_of_just_what_is_known() -> None:
    program = Program.of(Map("x + 1", tokens))
    assert Program.to_record(program) == {
        "ops": [{"op": "Map", "args": ["tokens"], "fn": "lambda x: x + 1", "encoding": "categorical", "var": "v1"}],
        "output": "v1",
        "causal": False,
        "mlp_exactness": 100,
    }


def test_unknown_fields_of_a_record_are_kept() -> None:
    record = Program.to_record(Program.of(Map("x + 1", tokens))) | {"config": {"num_heads": 1}, "id": 7}
    assert Program.from_record(record).notes == {"config": {"num_heads": 1}, "id": 7}
    assert Program.to_record(Program.from_record(record)) == record


def test_what_no_statement_names_has_neither_record_nor_text() -> None:
    inner = Map("x", tokens)
    outer = Map("x", inner)
    for program in (Program(outer, (("v1", outer),)), Program(outer, (("v1", inner),))):
        for write in (Program.to_record, str):
            with pytest.raises(RaspError, match="none of the program's statements"):
                write(program)


def small_record() -> dict[str, Any]:
    return Program.to_record(Program.parse(COUNT_AND_MEAN)) | {"id": "r1"}


MALFORMED_RECORDS: list[tuple[list[Any], Any, str]] = [
    (["ops"], None, "'ops' is a list of operations, not None"),
    (["ops"], {"v1": 1}, "'ops' is a list of operations"),
    (["ops"], [], "output: unknown variable 'v13': known here are tokens, indices"),
    (["output"], "v99", "output: unknown variable 'v99': known here are v9"),
    (["output"], ["v1"], "output: a variable is wanted"),
    (["output"], "v1", "output: v1 is a selector; a program's output is an S-op"),
    (["vocab"], [], "vocab is a list of tokens"),
    (["vocab"], "abc", "vocab is a list of tokens"),
    (["vocab"], [[1]], "vocab holds numbers"),
    (["vocab"], [None], "vocab holds numbers"),
    (["vocab"], [float("nan")], "vocab holds numbers"),
    (["vocab"], [0, 1, True], "vocab lists True twice"),
    (["max_seq_len"], 0, "max_seq_len is a whole number from 1 up"),
    (["max_seq_len"], True, "max_seq_len is a whole number"),
    (["max_seq_len"], 5.0, "max_seq_len is a whole number"),
    (["causal"], 1, "causal is True or False, not 1"),
    (["mlp_exactness"], "100", "mlp_exactness is a number above 0"),
    (["mlp_exactness"], -1, "mlp_exactness is a number above 0"),
    (["mlp_exactness"], float("inf"), "mlp_exactness is a number above 0"),
    (["ops", 0], "v1", "operation 1: an operation is a mapping"),
    (["ops", 0, "op"], "Selekt", "operation 1 (v1, Selekt): unknown operation 'Selekt': there are Map,"),
    (["ops", 0, "op"], ["Map"], "operation 1 (v1): unknown operation ['Map']"),
    (["ops", 1, "var"], "v1", "operation 2 (v1, SelectorWidth): v1 is assigned twice"),
    (["ops", 1, "var"], "tokens", "tokens is no variable"),
    (["ops", 1, "var"], "lambda", "lambda is no variable"),
    (["ops", 1, "var"], "Map", "Map is no variable"),
    (["ops", 1, "var"], "vocab", "vocab is no variable"),
    (["ops", 1, "var"], "a b", "a variable is a name"),
    (["ops", 1, "var"], "v" * 101, "a variable is a name"),
    (["ops", 1, "var"], None, "a variable is a name"),
    (["ops", 1, "args"], [], "'args' is a list of the variables of a selector, not []"),
    (["ops", 1, "args"], "v1", "'args' is a list of the variables of a selector, not 'v1'"),
    (
        ["ops", 1, "args"],
        ["v9"],
        "operation 2 (v2, SelectorWidth): unknown variable 'v9': known here are tokens, indices, v1",
    ),
    (["ops", 1, "args"], ["v2"], "unknown variable 'v2'"),
    (["ops", 1, "args"], [1], "a variable is wanted, such as tokens or v1, not 1"),
    (["ops", 1, "args"], ["tokens"], "tokens is an S-op where a selector is wanted: SelectorWidth(SELECTOR)"),
    (["ops", 2, "args"], ["v1"], "v1 is a selector where an S-op is wanted: Map(FUNCTION, SOP)"),
    (["ops", 3, "args"], ["v3", "v1"], "v3 is an S-op where a selector is wanted: Aggregate(SELECTOR, SOP)"),
    (["ops", 1, "encoding"], "numeric", "an encoding is categorical or numerical, not 'numeric'"),
    (["ops", 1, "encoding"], 1, "an encoding is categorical or numerical, not 1"),
    (["ops", 0, "encoding"], "numerical", "unknown field 'encoding': a Select has var, op, args, label, predicate"),
    (["ops", 1, "label"], 1, "a label is a string, not 1"),
    (["ops", 1, "lable"], "a", "unknown field 'lable': a SelectorWidth has var, op, args, label, encoding"),
    (["ops", 0, "predicate"], "EQUAL", "unknown predicate 'EQUAL': there are EQ, NEQ"),
    (["ops", 0, "predicate"], "lambda x: x", "takes 1 arguments where 2 are wanted"),
    (["ops", 0, "predicate"], None, "'predicate' is a function such as 'lambda x, y: x + y'"),
    (["ops", 2, "fn"], "lambda x: x.real", "operation 3 (v3, Map): 'x.real' is not part of the function language"),
    (["ops", 2, "fn"], "lambda x, y: x", "takes 2 arguments where 1 are wanted"),
    (["ops", 2, "fn"], "x +", "is not an expression"),
    (["ops", 2, "fn"], 7, "'fn' is a function such as 'lambda x: x + 1'"),
    (["ops", 2, "fn"], {"table": {}}, "a table is a list of entries [x, value]"),
    (["ops", 2, "fn"], {"table": []}, "a table is a list of entries [x, value]"),
    (["ops", 2, "fn"], {"table": [[0, 1, 2]]}, "a table's entry is [x, value], not [0, 1, 2]"),
    (["ops", 2, "fn"], {"table": [[[], 1]]}, "a table's part is a number"),
    (["ops", 2, "fn"], {"table": [[0, 10**5000]]}, "not an integer of thousands of digits"),
    (["ops", 2, "fn"], {"table": [[0, 1], [False, 2]]}, "a table has two entries for False"),
    (["ops", 2, "fn"], {"rows": [[0, 1]]}, "'fn' is a function"),
    (["ops", 3, "default"], [], "a default is a number"),
    (["ops", 4, "factors"], 2, "'factors' is a list of two numbers"),
    (["ops", 4, "factors"], [1.0], "'factors' is a list of two numbers"),
    (["ops", 4, "factors"], [1.0, "2"], "a factor is a number"),
    (["ops", 4, "factors"], [1.0, True], "a factor is a number"),
    (["ops", 4, "factors"], [1.0, float("nan")], "a factor is a number"),
]


@pytest.mark.parametrize(("path", "value", "message"), MALFORMED_RECORDS)
def test_a_malformed_record_is_refused_with_its_id_and_operation(path: list[Any], value: Any, message: str) -> None:
    record = small_record()
    place: Any = record
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(RaspError) as caught:
        Program.from_record(record)
    assert str(caught.value).startswith("record 'r1': ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (["ops"], "record 'r1': it has no 'ops'"),
        (["output"], "record 'r1': it has no 'output'"),
        (["ops", 2, "var"], "operation 3 (Map): it has no 'var'"),
        (["ops", 2, "op"], "operation 3 (v3): it has no 'op'"),
        (["ops", 2, "args"], "operation 3 (v3, Map): it has no 'args'"),
        (["ops", 2, "fn"], "it has no 'fn', which a Map needs"),
        (["ops", 0, "predicate"], "it has no 'predicate', which a Select needs"),
        (["ops", 4, "factors"], "it has no 'factors', which a LinearSequenceMap needs"),
    ],
)
def test_a_record_that_lacks_something_is_refused(path: list[Any], message: str) -> None:
    record = small_record()
    place: Any = record
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    with pytest.raises(RaspError) as caught:
        Program.from_record(record)
    assert message in str(caught.value)


@pytest.mark.parametrize("record", [None, [], "record", 7, {1: 2}, {}])
def test_what_is_no_record_is_refused(record: Any) -> None:
    with pytest.raises(RaspError):
        Program.from_record(record)


def test_the_golden_records_without_program_are_refused_by_name() -> None:
    for record in golden("tracr_lib.json"):
        with pytest.raises(RaspError, match=f"record '{record['id']}': it has no 'ops'"):
            Program.from_record(record)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda parts: st.one_of(st.lists(parts, max_size=3), st.dictionaries(st.text(max_size=8), parts, max_size=3)),
    max_leaves=8,
)
words = st.sampled_from(
    ["tokens", "v1", "v2", "v3", "v99", "Map", "Select", "Aggregate", "SelectorNot", "numerical", "EQ", "x + 1", 0, []]
)


@given(st.data())
@settings(deadline=5_000, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_a_mutated_record_is_read_or_refused(data: st.DataObject) -> None:
    record = small_record()
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = record
        while True:
            key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.integers(0, 4)) == 0:
                break
            place = place[key]
        if data.draw(st.booleans()):
            place[key] = data.draw(st.one_of(words, json_values))
        else:
            del place[key]
        if not place:
            break
    try:
        program = Program.from_record(record)
    except RaspError:
        return
    assert str(Program.parse(str(program))) == str(program)


@given(json_values)
@settings(deadline=5_000)
def test_any_json_is_read_or_refused(record: Any) -> None:
    with pytest.raises(RaspError):
        Program.from_record(record)


# -- text -----------------------------------------------------------------------------------------------------------


def test_canonical_text_is_printed_as_it_was_parsed() -> None:
    assert str(Program.parse(COUNT_AND_MEAN)) == COUNT_AND_MEAN


def test_every_golden_program_survives_its_text() -> None:
    for record in golden("tracr_random.json"):
        program = Program.from_record(record)
        again = Program.parse(str(program))
        assert str(again) == str(program)
        known = Program.to_record(again)
        assert without_labels(known) == without_labels({field: record[field] for field in known})


@given(st.data())
@settings(deadline=5_000)
def test_a_program_survives_its_text(data: st.DataObject) -> None:
    program = drawn_program(data.draw)
    text = str(program)
    again = Program.parse(text)
    assert str(again) == text
    assert without_labels(Program.to_record(again)) == without_labels(Program.to_record(program))


def test_the_methods_of_a_program_are_these_functions() -> None:
    program = Program.parse(COUNT_AND_MEAN)
    assert str(program) == COUNT_AND_MEAN
    assert Program.from_record(program.to_record()).to_record() == Program.to_record(program)


@pytest.mark.parametrize(
    "text",
    [
        "v1 = Select(PRED_LEQ, indices, indices)\nv2 = SelectorWidth(v1)\nreturn v2",
        "v1 = Select(LEQ, indices, indices)\nv2 = SelectorWidth(v1)",
        "v1 = Select(PRED_LE, indices, indices)\r\n\r\nv2 = SelectorWidth(v1)  # how many\n",
        "v1 = Select(LE, indices, indices); v2 = SelectorWidth(v1); return v2",
        "return SelectorWidth(Select(LE, indices, indices))",
        "v2 = SelectorWidth(Select(LE, indices, indices))",
        "v2 = SelectorWidth(\n    Select(\n        LE, indices, indices\n    )\n)\n",
        "def count(tokens, indices):\n    v1 = Select(LE, indices, indices)\n\n    return SelectorWidth(v1)\n",
        'def count(tokens):\n  "Count."\n  # as above\n  v2 = SelectorWidth(Select(LE, indices, indices))\n',
    ],
)
def test_the_same_program_can_be_written_in_many_ways(text: str) -> None:
    assert str(Program.parse(text)) == "v1 = Select(PRED_LEQ, indices, indices)\nv2 = SelectorWidth(v1)\nreturn v2"


def test_what_a_nested_call_gives_has_a_name_that_is_not_taken() -> None:
    program = Program.parse("v2 = Map(x, tokens)\nv3 = Map(x, Map(x + 1, Map(x + 2, v2)))\nv1 = Map(x, v3)")
    assert [name for name, _ in program.statements] == ["v2", "v4", "v5", "v3", "v1"]
    assert program.name(program.output) == "v1"


def test_what_python_warns_of_is_read_in_silence() -> None:
    assert str(Program.parse(r"return Map(x == '\d', tokens)")) == "v1 = Map(x == '\\\\d', tokens)\nreturn v1"


def test_a_function_may_be_a_lambda() -> None:
    assert str(Program.parse("return Map(lambda x: x + 1, tokens)")) == "v1 = Map(x + 1, tokens)\nreturn v1"


def test_the_output_may_be_an_input_or_come_before_other_statements() -> None:
    assert Program.parse("return tokens").output is tokens
    program = Program.parse("a = Map(x, tokens)\nb = Map(x + 1, tokens)\nreturn a")
    assert program.name(program.output) == "a"
    assert len(program.statements) == 2
    assert len(program) == 1


MALFORMED_TEXTS = [
    ("", 1, 1, "no program: expected statements"),
    ("# nothing", 1, 1, "no program: expected statements"),
    ("vocab = [0, 1]", 1, 1, "no operation and no 'return'"),
    ("v1 = Map(x, tokens", 1, None, "was never closed"),
    ("v1 = Map(x, tokens))", 1, None, "unmatched ')'"),
    ("  v1 = Map(x, tokens)", 1, None, "unexpected indent"),
    ("v1 = Map(x x, tokens)", 1, None, "invalid syntax"),
    ("\n\nv1 ? 2", 3, None, "invalid syntax"),
    ("\0", 1, 1, "null bytes"),
    ("v1 = '\ud800'", 1, 1, "cannot be read"),
    ("v1 = " + "(" * 500, 1, None, "too many nested parentheses"),
    ("v1 = Map(" + "x + " * 9_000 + "x, tokens)", 1, None, "too"),  # deep for Python 3.11, long for 3.13
    ("import os", 1, 1, "found 'import os'; expected 'NAME = OPERATION(...)'"),
    ("class A: pass", 1, 1, "found 'class A: pass'; expected"),
    ("print('a')", 1, 1, "found \"print('a')\"; expected 'NAME = OPERATION(...)'"),
    ("a = b = Map(x, tokens)", 1, 1, "expected 'NAME = OPERATION(...)'"),
    ("a, b = Map(x, tokens)", 1, 1, "expected 'NAME = OPERATION(...)'"),
    ("a.b = Map(x, tokens)", 1, 1, "expected 'NAME = OPERATION(...)'"),
    ("a += Map(x, tokens)", 1, 1, "expected 'NAME = OPERATION(...)'"),
    ("a: numerical", 1, 1, "expected 'NAME = OPERATION(...)'"),
    ("v1 = Mapp(x, tokens)", 1, 6, "unknown operation 'Mapp': there are Map(FUNCTION, SOP),"),
    ("v1 = rasp.Map(x, tokens)", 1, 6, "unknown operation 'rasp.Map'"),
    ("v1 = eval('1')", 1, 6, "unknown operation 'eval'"),
    ("v1 = tokens", 1, 6, "found 'tokens'; expected an operation: there are Map(FUNCTION, SOP)"),
    ("v1 = 'é' + 2", 1, 6, "found \"'é' + 2\"; expected an operation"),
    ("v1 = Map(x == 'é', v2)", 1, 20, "unknown variable 'v2': known here are tokens, indices"),
    ("tok = Map(x, tokens)\nv1 = Map(x, token)", 2, 13, "unknown variable 'token': known here are tokens, tok,"),
    ("v1 = Map(x, v1)", 1, 13, "unknown variable 'v1'"),
    ("v1 = Map(x, 3)", 1, 13, "found '3'; expected a variable, such as tokens or v1, or an operation"),
    ("v1 = Map(x)", 1, 6, "found 1 arguments in 'Map(x)'; expected Map(FUNCTION, SOP)"),
    ("v1 = Map(x, tokens, indices)", 1, 6, "found 3 arguments"),
    ("v1 = LinearSequenceMap(tokens, tokens)", 1, 6, "expected LinearSequenceMap(FACTOR, FACTOR, SOP, SOP)"),
    ("v1 = Map(*tokens, tokens)", 1, 10, "'*tokens' is not part of the function language"),
    ("v1 = Map(x, *tokens)", 1, 13, "found '*tokens'; expected a variable"),
    ("v1 = Map(x, sop=tokens)", 1, 13, "found 'sop='; expected Map(FUNCTION, SOP)"),
    ("v1 = Map(x, **tokens)", 1, 13, "found 'None='; expected Map(FUNCTION, SOP)"),
    ("v1 = Map(tokens, x)", 1, 10, "'tokens' is not part of the function language"),
    ("v1 = Map(x + y, tokens)", 1, 10, "uses y, but a function of one argument is wanted"),
    ("v1 = Map(lambda x, y: x, tokens)", 1, 10, "takes 2 arguments where 1 are wanted"),
    ("v1 = SequenceMap({0: 1}, tokens, tokens)", 1, 18, "is a table of 1 arguments where 2 are wanted"),
    ("v1 = Map(" + "0x" + "f" * 3_000 + ", tokens)", 1, 10, "a function of 3002 characters is too long"),
    ("v1 = Map({0: 0x" + "f" * 9_000 + "}, tokens)", 1, 10, "not an integer of thousands of digits"),
    ("v1 = Select(tokens, tokens, EQ)", 1, 13, "unknown predicate 'tokens': there are PRED_EQ, PRED_NEQ"),
    ("v1 = Select(PRED_EQUAL, tokens, tokens)", 1, 13, "unknown predicate 'PRED_EQUAL'"),
    ("v1 = SelectorWidth(tokens)", 1, 20, "tokens is an S-op where a selector is wanted: SelectorWidth(SELECTOR)"),
    ("v1 = SelectorWidth(Map(x, tokens))", 1, 20, "v2 is an S-op where a selector is wanted"),
    ("s = Select(EQ, tokens, tokens)\na = Map(x, s)", 2, 12, "s is a selector where an S-op is wanted"),
    ("s = Select(EQ, tokens, tokens)\na = Aggregate(tokens, s)", 2, 15, "tokens is an S-op where a selector is wanted"),
    ("s = Select(EQ, tokens, tokens)", 1, 1, "the output s is a selector"),
    ("s = Select(EQ, tokens, tokens)\nreturn s", 2, 1, "the output s is a selector; a program's output is an S-op"),
    ("s: numerical = Select(EQ, tokens, tokens)", 1, 4, "s is a selector, and a selector has no encoding"),
    ("a: numeric = Map(x, tokens)", 1, 4, "found 'numeric'; expected an encoding: categorical or numerical"),
    ("a: [1] = Map(x, tokens)", 1, 4, "found '[1]'; expected an encoding"),
    ("a = LinearSequenceMap(1, 'a', tokens, tokens)", 1, 26, "a factor is a number"),
    ("a = LinearSequenceMap(1, x, tokens, tokens)", 1, 26, "found 'x'; expected a number"),
    ("s = Select(EQ, tokens, tokens)\na = Aggregate(s, tokens, default=[])", 2, 34, "a default is a number"),
    ("s = Select(EQ, tokens, tokens)\na = Aggregate(s, tokens, default=x)", 2, 34, "found 'x'; expected a number"),
    ("a = Map(x, tokens)\na = Map(x, tokens)", 2, 1, "a is assigned twice, first in line 1"),
    ("vocab = [1]\nvocab = [1]", 2, 1, "vocab is assigned twice, first in line 1"),
    ("v1 = Map(x, tokens)\nv1: numerical = Map(x, tokens)", 2, 1, "v1 is assigned twice"),
    ("tokens = Map(x, tokens)", 1, 1, "tokens is the program's input and cannot be assigned"),
    ("indices = Map(x, tokens)", 1, 1, "indices is the program's input and cannot be assigned"),
    ("Map = Map(x, tokens)", 1, 1, "Map is no variable"),
    ("é = Map(x, tokens)", 1, 1, "a variable is a name"),
    ("vocab = range(5)", 1, 9, "found 'range(5)'; expected a number, a string, True, False, None or a list"),
    ("vocab = [1, 1]", 1, 9, "vocab lists 1 twice"),
    ("vocab: numerical = [1, 2]", 1, 8, "vocab has no encoding"),
    ("max_seq_len = -1", 1, 15, "max_seq_len is a whole number from 1 up"),
    ("causal = 1", 1, 10, "causal is True or False"),
    ("mlp_exactness = 0", 1, 17, "mlp_exactness is a number above 0"),
    ("return", 1, 1, "found 'return' alone"),
    ("return 3", 1, 8, "found '3'; expected a variable"),
    ("return v1", 1, 8, "unknown variable 'v1'"),
    ("return tokens\nreturn tokens", 2, 1, "nothing may follow 'return'"),
    ("def f(a, b):\n  return a", 1, 1, "write 'def NAME(tokens, indices):'"),
    ("def f(tokens=1):\n  return tokens", 1, 1, "write 'def NAME(tokens, indices):'"),
    ("@d\ndef f(tokens):\n  return tokens", 1, 2, "decorators are unknown here"),
    ("def f(tokens):\n  return tokens\nf(1)", 3, 1, "nothing may follow the body of 'def'"),
    ("def f(tokens):\n  def g(tokens):\n    return tokens", 2, 3, "expected 'NAME = OPERATION(...)'"),
    ("def f(tokens):\n  'only a docstring'", 1, 1, "no program"),
    ("async def f(tokens):\n  return tokens", 1, 1, "expected 'NAME = OPERATION(...)'"),
    ("v = " + "Map(x, " * 60 + "tokens" + ")" * 60, 1, 292, "calls nested deeper than 40"),
    ("\n".join(f"v{i} = Map(x, tokens)" for i in range(6_000)), 5_001, 1, "too many operations: at most 5000"),
    ("#" * (LONGEST_TEXT + 1), 1, 1, "a text of 200001 characters is too long"),
]


@pytest.mark.parametrize(("text", "line", "column", "message"), MALFORMED_TEXTS, ids=range(len(MALFORMED_TEXTS)))
def test_a_malformed_text_is_refused_with_its_place(text: str, line: int, column: int | None, message: str) -> None:
    with pytest.raises(TextError) as caught:
        Program.parse(text)
    # Python's own syntax errors move by a column from one Python to the next.
    place = re.escape(f"line {line}, column ") + (r"\d+" if column is None else str(column))
    assert re.match(place + ": ", str(caught.value)), caught.value
    assert message in str(caught.value)


def readable_or_refused(text: str) -> None:
    try:
        program = Program.parse(text)
    except TextError as error:
        assert str(error).startswith("line ")
        assert len(str(error)) < 1_000
        return
    canonical = str(program)
    assert str(Program.parse(canonical)) == canonical


@given(st.text(st.characters(exclude_categories=()), max_size=200))
@settings(deadline=5_000)
def test_any_text_is_parsed_or_refused(text: str) -> None:
    readable_or_refused(text)


pieces = st.sampled_from(
    [node for node in COUNT_AND_MEAN.replace("(", " ( ").replace(")", " ) ").replace(",", " , ").split(" ") if node]
    + [
        "\n",
        "\n  ",
        "lambda x:",
        "def f(tokens, indices):",
        "'",
        '"',
        "{",
        "}",
        "[",
        "é",
        "9" * 50,
        "*",
        "#",
        ":",
        "\\",
    ]
)


@given(st.lists(pieces, max_size=30))
@settings(deadline=5_000)
def test_any_pieces_of_a_program_are_parsed_or_refused(parts: list[str]) -> None:
    readable_or_refused(" ".join(parts).replace("\n ", "\n"))


@given(st.data())
@settings(deadline=5_000, max_examples=300)
def test_a_mutated_text_is_parsed_or_refused(data: st.DataObject) -> None:
    text = COUNT_AND_MEAN
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        text = text[:start] + data.draw(st.one_of(st.just(""), pieces, st.text(max_size=3))) + text[end:]
    readable_or_refused(text)


@pytest.mark.parametrize("opening", ["(", "[", "{", "f(", "{1:", "lambda x: ", "x if ", "f(a=", "(a for ", "f'{", "-"])
@pytest.mark.parametrize("count", [60, 90, 10_000])
def test_hostile_nesting_is_refused_in_bounded_time(opening: str, count: int) -> None:
    start = time.perf_counter()
    for text in (f"v1 = Map({opening * count}", f"v1 = Map({opening * count}x, tokens)", opening * count):
        with pytest.raises(TextError):
            Program.parse(text)
    assert time.perf_counter() - start < 5


# -- examples -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["length", "hist", "sort_unique", "sort", "frac_prevs"])
def test_an_example_is_canonical_text_under_a_comment(name: str) -> None:
    comment, _, canonical = (EXAMPLES / f"{name}.rasp").read_text().partition("\n")
    assert comment.startswith("# ")
    assert str(Program.parse(canonical)) + "\n" == canonical


def test_the_examples_give_what_tracr_recorded() -> None:
    records = golden("tracr_lib.json")
    assert {record["id"] for record in records} == {path.stem for path in EXAMPLES.glob("*.rasp")}
    for record in records:
        program = Program.parse((EXAMPLES / f"{record['id']}.rasp").read_text())
        assert program.meant_for(record["vocab"], record["max_seq_len"]).to_record() == program.to_record()
        for example in record["examples"]:
            assert evaluate(program, example["input"]) == example["rasp"]
