"""What comes from Python alone: functions of Python's, operators, and Tracr's own objects."""

import pickle
from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest

import weightspace as ws
from tests.rasp.test_compiler import means_what_it_says
from weightspace.errors import RaspError
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.interpreter import evaluate
from weightspace.rasp.language import Aggregate, Map, Select, SelectorWidth, SequenceMap, SOp, indices, tokens
from weightspace.rasp.program import Program
from weightspace.rasp.validate import validate

# -- functions of Python's ------------------------------------------------------------------------------------------


def test_a_function_of_pythons_becomes_an_expression_or_a_table() -> None:
    same = Select(tokens, tokens, lambda k, q: k == q)
    assert str(Program.of(SelectorWidth(same), vocab="ab", max_seq_len=3)).splitlines()[2:4] == [
        "v1 = Select(PRED_EQ, tokens, tokens)",
        "v2 = SelectorWidth(v1)",
    ]
    spelled = Program.of(Map(lambda x: {1: "one", 2: "two"}.get(x, x), tokens), vocab=[1, 2, 3], max_seq_len=2)
    assert "v1 = Map({1: 'one', 2: 'two', 3: 3}, tokens)" in str(spelled)
    assert str(Program.parse(str(spelled))) == str(spelled)
    joined = Program.of(SequenceMap(lambda x, y: 2 * x + y, tokens, indices), vocab=[1, 2, 3], max_seq_len=2)
    assert "2 * (x - 1) + y" not in str(joined)
    assert "v1 = SequenceMap(2 * x + y, tokens, indices)" in str(joined)


def test_without_a_vocabulary_it_is_run_and_compiled_and_only_not_printed() -> None:
    hist = Program.of(SelectorWidth(Select(tokens, tokens, lambda k, q: k == q)))
    assert evaluate(hist, "aab") == [2, 2, 1]
    assert not validate(hist, vocab="ab", max_seq_len=3)
    assert compile_program(hist, vocab="ab", max_seq_len=3).run(["aab"]) == [[2, 2, 1]]
    for write in (str, Program.to_record):
        with pytest.raises(RaspError, match="is a function of Python's, which has no text: give the program"):
            write(hist)
    with pytest.raises(RaspError, match="cannot be stored"):
        pickle.dumps(hist.nodes[1].predicate)  # type: ignore[attr-defined]


def test_an_s_op_is_compiled_and_run_as_the_program_that_computes_it() -> None:
    assert ws.compile_program(Map(lambda x: 2 * x, tokens), vocab=[1, 2], max_seq_len=2).run([[1, 2]]) == [[2, 4]]
    assert ws.run(Map(lambda x: 2 * x, tokens), [1, 2]) == [2, 4]
    assert not validate(Map("x", tokens), vocab=[1], max_seq_len=1)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Map(lambda x: {1: 5}[x], tokens), r"v1: it raised KeyError: '2' in '<function <lambda>>' at x = 2"),
        (lambda: Map(lambda x: 1 // (x - 1), tokens), "it raised ZeroDivisionError"),
        (lambda: Map(lambda x: [x], tokens), r"it gives \[1\], which is no value"),
        (lambda: Select(tokens, tokens, lambda k, q: {}[k, q]), "it raised KeyError"),
        (lambda: Map(lambda x, y: x + y, tokens), "a function of 1 arguments is wanted here, which <lambda> is not"),
    ],
)
def test_a_function_of_pythons_that_fails_is_refused_in_one_sentence(make: Callable[[], Any], complaint: str) -> None:
    with pytest.raises(RaspError, match=complaint):
        made = make()
        output = made if isinstance(made, SOp) else SelectorWidth(made)
        Program.of(output, vocab=[1, 2], max_seq_len=2)
    with pytest.raises(RaspError, match=complaint):
        made = make()
        compile_program(made if isinstance(made, SOp) else SelectorWidth(made), vocab=[1, 2], max_seq_len=2)


def test_a_function_of_pythons_may_fail_where_nothing_comes() -> None:
    length = SelectorWidth(Select(tokens, tokens, "TRUE"))
    shares = Program.of(Map(lambda n: 12 // n, length), vocab="ab", max_seq_len=3)
    assert means_what_it_says(shares)
    assert "Map({1: 12, 2: 6, 3: 4}, v2)" in str(shares)


def test_no_text_holds_a_function_of_pythons() -> None:
    for text in ("v1 = Map(<function f>, tokens)", "v1 = Map(print, tokens)", "v1 = Map(lambda x: open(x), tokens)"):
        with pytest.raises(RaspError):
            Program.parse(text)


# -- operators ------------------------------------------------------------------------------------------------------


def test_operators_make_operations() -> None:
    number = Map("x", tokens, encoding="numerical")
    lines = {
        "Map(x + 1, tokens)": tokens + 1,
        "Map(3 - x, tokens)": 3 - tokens,
        "Map(x == 'a', tokens)": tokens == "a",
        "Map(x != 2, tokens)": tokens != 2,
        "Map(x < 2, tokens)": tokens < 2,
        "Map(not x, tokens)": ~tokens,
        "SequenceMap(x + y, tokens, indices)": tokens + indices,
        "SequenceMap(x and y, tokens, indices)": tokens & indices,
        "SequenceMap(x % y, tokens, indices)": tokens % indices,
        "LinearSequenceMap(1, -1, v1, v1)": number - number,
    }
    for line, output in lines.items():
        assert str(Program.of(output)).splitlines()[-2].split(" = ")[1] == line
    assert (number * 2).numerical and not (number > 2).numerical
    earlier = Select(tokens, tokens, "EQ") & ~Select(indices, indices, "GEQ")
    assert "SelectorAnd(v1, v3)" in str(Program.of(SelectorWidth(earlier)))


def test_s_ops_are_still_told_apart_by_identity() -> None:
    other = Map("x", tokens)
    assert [tokens, indices, other].index(other) == 2
    assert tokens not in [indices, other]
    assert len({tokens, indices, other, tokens}) == 3
    with pytest.raises(RaspError, match="neither true nor false"):
        bool(tokens < 2)


# -- Tracr's objects ------------------------------------------------------------------------------------------------


class Encoding(Enum):
    CATEGORICAL = "categorical"
    NUMERICAL = "numerical"


class Comparison(Enum):
    EQ = "=="
    LT = "<"
    TRUE = "True"

    def __call__(self, key: Any, query: Any) -> bool:
        return {"EQ": key == query, "TRUE": True}.get(self.name) or (self.name == "LT" and key < query)


class RASPExpr:
    """The shape of Tracr's objects: fields by these names, and annotations."""

    def __init__(self, **fields: Any) -> None:
        self.annotations: dict[str, Any] = {}
        self.__dict__.update(fields)


def tracr(name: str, *, base: type = RASPExpr, encoding: Encoding | None = None, **fields: Any) -> Any:
    made = type(name, (base,), {})(**fields)
    if encoding is not None:
        made.annotations["encoding"] = encoding
    return made


TOKENS, INDICES = tracr("TokensType"), tracr("IndicesType")


def test_tracrs_own_objects_become_a_program() -> None:
    same = tracr("Select", keys=TOKENS, queries=TOKENS, predicate=Comparison.EQ)
    opened = tracr("Map", f=lambda x: 1 if x == "(" else 0, inner=TOKENS, encoding=Encoding.NUMERICAL)
    before = tracr("Select", keys=INDICES, queries=INDICES, predicate=lambda k, q: k <= q)
    share = tracr("Aggregate", selector=before, sop=opened, default=None, encoding=Encoding.NUMERICAL)
    double = tracr("LinearSequenceMap", fst=share, snd=opened, fst_fac=2, snd_fac=-1, encoding=Encoding.NUMERICAL)
    some = tracr("SequenceMap", f=lambda x, y: x * y, fst=tracr("SelectorWidth", selector=same), snd=INDICES)
    assert str(Program.from_tracr(double, vocab="()", max_seq_len=3)).splitlines()[2:] == [
        "v1 = Select(PRED_LEQ, indices, indices)",
        "v2: numerical = Map(x == '(', tokens)",
        "v3: numerical = Aggregate(v1, v2)",
        "v4: numerical = LinearSequenceMap(2, -1, v3, v2)",
        "return v4",
    ]
    made = Program.from_tracr(some, vocab="ab", max_seq_len=3)
    assert evaluate(made, "aab") == [0, 2, 2]
    assert means_what_it_says(made)


def test_every_class_of_tracrs_is_read_whatever_stands_below_it() -> None:
    one = tracr("Select", keys=TOKENS, queries=TOKENS, predicate=Comparison.EQ)
    two = tracr("Select", keys=INDICES, queries=INDICES, predicate=Comparison.LT)
    both = tracr("SelectorAnd", fst=one, snd=tracr("SelectorNot", inner=two))
    either = tracr("SelectorOr", fst=both, snd=one)
    width = tracr("Width", base=type("SelectorWidth", (RASPExpr,), {}), selector=either)
    made = Program.from_tracr(width, vocab="ab", max_seq_len=3)
    assert evaluate(made, "aab") == [2, 2, 1]
    constant = tracr("ConstantSOp", value=7)
    assert evaluate(Program.from_tracr(constant, vocab="ab", max_seq_len=2), "ab") == [7, 7]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (5, "'int' is none of the classes of Tracr's RASP that are known"),
        (tracr("Map", f=len), "has no 'inner': it is of another version of Tracr"),
        (tracr("Select", keys=TOKENS, queries=TOKENS, predicate=Comparison.EQ), "is a selector"),
        (tracr("Map", f=3, inner=TOKENS), "is no function: 3"),
        (tracr("SelectorWidth", selector=TOKENS), "reads a selector, and this one has a Tokens there"),
        (tokens, "weightspace's own"),
        (tracr("Map", f=lambda x: x.upper(), inner=TOKENS), "it raised AttributeError"),
        (
            tracr("Aggregate", selector=tracr("SelectorNot", inner=INDICES), sop=TOKENS),
            "a SelectorNot of Tracr's reads a selector",
        ),
    ],
)
def test_what_is_none_of_tracrs_objects_is_said_in_one_sentence(given: Any, complaint: str) -> None:
    with pytest.raises(RaspError, match=complaint):
        Program.from_tracr(given, vocab=[1, 2], max_seq_len=2)


def test_an_object_that_reads_itself_does_not_hang() -> None:
    loop = tracr("Map", f=lambda x: x)
    loop.inner = loop
    with pytest.raises(RaspError, match="reads itself"):
        Program.from_tracr(loop)


def test_an_aggregate_that_keeps_its_node_is_one_node() -> None:
    shared = tracr("Map", f=lambda x: x + 1, inner=TOKENS)
    twice = tracr("SequenceMap", f=lambda x, y: x + y, fst=shared, snd=shared)
    assert len(Program.from_tracr(twice, vocab=[1, 2], max_seq_len=2)) == 2
    assert isinstance(Program.from_tracr(twice).output, SequenceMap)
    assert Aggregate(Select(tokens, tokens, "EQ"), tokens).default is None
