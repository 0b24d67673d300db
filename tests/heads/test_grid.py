"""The grid of heads: each head by what it does most, if it does it enough, the last layer on top."""

from __future__ import annotations

import torch

from weightspace.heads.behaviour import BEHAVIOURS, HeadBehaviour
from weightspace.heads.grid import agreeing, grid_measured, grid_read, grid_text
from weightspace.heads.reading import HeadReading, ReadHead


def read(*layers: list[dict[str, float]]) -> HeadReading:
    heads = [
        ReadHead(layer, head, scores, dict.fromkeys(scores, 0.0), (), (), ())
        for layer, row in enumerate(layers)
        for head, scores in enumerate(row)
    ]
    return HeadReading("here", len(layers), 4, tuple(heads), tuple(heads[0].scores), (), {})


def measured(*layers: list[dict[str, float]]) -> HeadBehaviour:
    scores = torch.tensor([[[one.get(name, 0.0) for name in BEHAVIOURS] for one in row] for row in layers])
    return HeadBehaviour(scores, torch.ones(scores.shape[:2], dtype=torch.int64), "nothing")


def test_a_head_is_called_by_what_lies_highest_above_its_threshold() -> None:
    assert grid_read(read([{"previous": 0.6, "local": 0.9}, {"previous": 0.49, "local": 0.1}])) == ("L.",)
    # the thresholds of measured scores differ: twice that of duplicates is more than once that of the place before
    assert grid_measured(measured([{"previous": 0.4, "duplicate": 0.3}, {"previous": 0.39}])) == ("D.",)


def test_copying_is_no_place_to_attend_to() -> None:
    assert grid_read(read([{"copying": 1.0, "current": 0.5}, {"copying": 1.0, "current": 0.4}])) == ("C.",)


def test_the_last_layer_stands_on_top_and_equal_letters_are_counted() -> None:
    text = grid_text(("PL", "I."), ("P.", "I."))
    lines = text.splitlines()
    assert lines[1].split() == ["1", "I", ".", "I", "."] and lines[2].split() == ["0", "P", "L", "P", "."]
    assert lines[-1] == "3 of 4 heads agree" == f"{agreeing(('PL', 'I.'), ('P.', 'I.'))} of 4 heads agree"
