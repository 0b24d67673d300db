"""The table of trained transformers: what is summed up, and that no control may be called equal."""

from __future__ import annotations

from typing import Any

import pytest

from weightspace.errors import NetworkError
from weightspace.experiments.trained import checked, figures, programs, table

EQUAL = {"what": "language", "length": 9, "inputs": 1_023, "wrong": 0, "agreed": 1_023, "shown": None}


def row(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "model": "one", "kind": "sets", "status": "equal_on_all", "program": "return tokens", "every": EQUAL,
        "exhaustive_length": 9, "short": [95, 100], "longer": [10, 20], "off": [99, 100], "located": [],
        "all_located": False, "mechanism": False, "mistakes": [1, 4], "lines": 3, "seconds": 7.0,
        "right_short": [100, 100], "right_long": [50, 100], "baselines": {}, "controls": {},
    }  # fmt: skip
    return made | changes


def test_rows_are_counted() -> None:
    found = dict(figures([row(), row(model="two", status="matches", short=[5, 10], kind="answers", lines=5)]))
    assert found["match at least 0.9, length 1 to 50"] == "1 of 2"
    assert found["equal on all inputs of the language"] == "1 of 1 languages"
    assert found["largest share of a network's mistakes predicted"] == "0.25"
    assert found["lines, median"] == "4"


def test_the_table_says_up_to_which_length_all_agree() -> None:
    worse = EQUAL | {"wrong": 2, "agreed": 255}
    text = table([row(every=worse, exhaustive_length=7)])
    assert "equal on all, 7 (255; 2 of 1,023 to 9 differ)" in text
    assert "return tokens" in programs([row()])


def test_a_control_that_is_called_equal_is_refused() -> None:
    entry = {"program": EQUAL | {"wrong": 9}, "status": "matches", "match": [1, 2]}
    checked([row(controls={"untrained": entry})])
    for wrong in ({"status": "equal_on_all"}, {"program": EQUAL}):
        with pytest.raises(NetworkError, match="called equal"):
            checked([row(controls={"untrained": entry | wrong})])
