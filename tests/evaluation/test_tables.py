"""Markdown tables: the one form in which figures are written down."""

import pytest

from weightspace.evaluation.tables import markdown_table


def test_a_table_is_a_header_a_rule_and_a_line_a_row() -> None:
    assert markdown_table(["method", "n"], [("linear", 3), ("majority", "**4**")]) == (
        "| method | n |\n|---|---|\n| linear | 3 |\n| majority | **4** |"
    )


def test_a_table_without_rows_is_its_head() -> None:
    assert markdown_table(["a"], []) == "| a |\n|---|"


def test_a_missing_value_is_not_a_column_that_says_nothing() -> None:
    assert markdown_table([None, None], [("x", ""), ("y", None)]) == "| | |\n|---|---|\n| x |  |\n| y | |"


def test_rows_of_any_kind_are_read_once() -> None:
    assert markdown_table(["n", "square"], ((n, n * n) for n in range(2))).splitlines()[2:] == [
        "| 0 | 0 |",
        "| 1 | 1 |",
    ]


@pytest.mark.parametrize("row", [("linear",), ("linear", 3, 4)])
def test_a_row_of_another_length_is_refused(row: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match=f"a row of {len(row)} cells stands in a table of 2 columns"):
        markdown_table(["method", "n"], [row])
