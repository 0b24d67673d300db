"""Tables as the short expressions that they are."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from weightspace.rasp.expressions import shortest

ONE_TO_FIVE, NOUGHT_TO_FOUR = range(1, 6), range(5)


@pytest.mark.parametrize(
    ("source", "xs"),
    [
        ("x + 1", NOUGHT_TO_FOUR),
        ("5 - x", NOUGHT_TO_FOUR),
        ("2 * x - 1", NOUGHT_TO_FOUR),
        ("x / 2", NOUGHT_TO_FOUR),
        ("x % 2 == 1", NOUGHT_TO_FOUR),
        ("(x + 2) % 5", NOUGHT_TO_FOUR),
        ("2 <= x <= 3", NOUGHT_TO_FOUR),
        ("x < 2 or x > 7", range(10)),
        ("x in (0, 3, 4)", range(8)),
        ("x not in (2, 5, 9)", range(12)),
        ("min(x, 3)", range(8)),
        ("max(x, 3) - 1", range(8)),
        ("x * x", range(8)),
        ("abs(x - 3)", range(8)),
        ("(x >= 2) + (x >= 4)", range(6)),
        ("3 if x < 2 else 8 if x < 4 else 0", range(8)),
        ("9 if x == 2 else 1", range(8)),
        ("x in 'aeiou'", "abcdefghiou"),
        ("x == 'b'", "abc"),
        ("len(x)", ("a", "bb", "ccc")),
    ],
)
def test_a_table_of_one_value_is_its_expression(source: str, xs: Sequence[Any]) -> None:
    function: Callable[[Any], Any] = eval(f"lambda x: {source}")
    found = shortest({x: function(x) for x in xs}, 1)
    assert found is not None
    assert found.source == source or len(found.source) <= len(source), "another may be as short"
    assert [found(x) for x in xs] == [function(x) for x in xs]


@pytest.mark.parametrize(
    ("source", "xs", "ys"),
    [
        ("5 * (x - 1) + y", ONE_TO_FIVE, NOUGHT_TO_FOUR),
        ("3 * x - 2 * y + 1", ONE_TO_FIVE, NOUGHT_TO_FOUR),
        ("(x + y) % 5", NOUGHT_TO_FOUR, NOUGHT_TO_FOUR),
        ("(2 * x - y + 3) % 7", range(7), range(7)),
        ("min(x, y) + 1", NOUGHT_TO_FOUR, NOUGHT_TO_FOUR),
        ("max(x, y)", NOUGHT_TO_FOUR, ONE_TO_FIVE),
        ("x * y + 2", NOUGHT_TO_FOUR, ONE_TO_FIVE),
        ("x + y == 4", NOUGHT_TO_FOUR, NOUGHT_TO_FOUR),
        ("x == y + 1", NOUGHT_TO_FOUR, NOUGHT_TO_FOUR),
        ("x < y - 1", NOUGHT_TO_FOUR, NOUGHT_TO_FOUR),
        ("x == 2 and y > 1", NOUGHT_TO_FOUR, NOUGHT_TO_FOUR),
        ("7 if x == y else 3", NOUGHT_TO_FOUR, NOUGHT_TO_FOUR),
        ("x == y", "abc", "abc"),
        ("(x, y)", "abc", NOUGHT_TO_FOUR),
        ("x[0] == y[0] and x[1] < y[1]", [(a, b) for a in "ab" for b in range(3)], [("a", 1), ("b", 2), ("a", 0)]),
    ],
)
def test_a_table_of_pairs_is_its_expression(source: str, xs: Iterable[Any], ys: Iterable[Any]) -> None:
    function: Callable[[Any, Any], Any] = eval(f"lambda x, y: {source}")
    table = {(x, y): function(x, y) for x in xs for y in ys}
    found = shortest(table, 2)
    assert found is not None
    assert found.source == source or len(found.source) <= len(source), "another may be as short"
    assert all(found(*pair) == value for pair, value in table.items())


def test_a_table_that_is_no_short_expression_stays_a_table() -> None:
    assert shortest({0: 3, 1: 1, 2: 4, 3: 1, 4: 5, 5: 9, 6: 2}, 1) is None
    assert shortest({0: 1, 1: None}, 1) is None, "an expression would have a value where the table has none"


def test_only_truth_matters_to_a_selector() -> None:
    found = shortest({(0, 0): 1, (0, 1): 0, (1, 0): 0, (1, 1): "yes"}, 2, truth=True)
    assert found is not None
    assert found.source == "x == y"
