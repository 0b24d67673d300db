"""What may be written next in a listing of the paper: operations and arguments of the right type, and lines written."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from weightspace.rasp.sampler import PAPER_ARITHMETIC
from weightspace.rasp.tokens import MOST_LINES, PAPER_ARGUMENTS, PAPER_OPERATIONS, PAPER_VARIABLES

WRITTEN = 4
"""Tokens of a line that are written: an operation and three arguments."""
OPERATIONS = len(PAPER_OPERATIONS)
"""Ids of operations come first, then those of arguments."""
SIZE = OPERATIONS + len(PAPER_ARGUMENTS)

_OPERATION = {name: PAPER_OPERATIONS.index(name) for name in PAPER_OPERATIONS}
_ARGUMENT = {name: OPERATIONS + place for place, name in enumerate(PAPER_ARGUMENTS)}
_VARIABLES = np.array([_ARGUMENT[name] for name in ("indices", "tokens", *PAPER_VARIABLES)])
"""In the order in which the arguments of a line stand."""
_NOTHING = _ARGUMENT["NA"]
_FIRST = {
    "Map": [_ARGUMENT[name] for name in PAPER_ARGUMENTS if name.startswith("LAM_")],
    "SequenceMap": [_ARGUMENT[name] for name in PAPER_ARITHMETIC],
    "Select": [_ARGUMENT[name] for name in PAPER_ARGUMENTS if name.startswith("PRED_")],
}


def legal(written: Int[np.ndarray, "b t"]) -> Bool[np.ndarray, "b v"]:
    """Which tokens may follow what is written, of every program; all where nothing may, or it is at its end."""
    count, place = written.shape
    line, field = divmod(place, WRITTEN)
    operations = written[:, ::WRITTEN]
    before = operations[:, :line]
    known = np.zeros((count, len(_VARIABLES)), bool)
    known[:, : 2 + line] = True
    selector = np.zeros_like(known)
    selector[:, 2 : 2 + line] = before == _OPERATION["Select"]
    found = np.zeros((count, SIZE), bool)
    if field == 0:
        for name in ("Map", "Select", "SequenceMap"):
            found[:, _OPERATION[name]] = line < MOST_LINES
        for name in ("Aggregate", "SelectorWidth"):
            found[:, _OPERATION[name]] = selector.any(1)
        found[:, _OPERATION["PROGRAM_END"]] = line > 0
    else:
        for name in ("Map", "Select", "SequenceMap", "Aggregate", "SelectorWidth"):
            rows = operations[:, line] == _OPERATION[name]
            own = written[rows, line * WRITTEN + 1 :]
            found[rows] = _arguments(name, field, own, selector[rows], known[rows] & ~selector[rows])
    ended = (written[:, : line * WRITTEN + 1 : WRITTEN] == _OPERATION["PROGRAM_END"]).any(1)
    found[ended | ~found.any(1)] = True
    return found


def _arguments(
    name: str,
    field: int,
    own: Int[np.ndarray, "b n"],
    selectors: Bool[np.ndarray, "b 17"],
    sops: Bool[np.ndarray, "b 17"],
) -> Bool[np.ndarray, "b v"]:
    """Arguments that may stand in a field of an operation, after those that do; variables in order."""
    found = np.zeros((len(own), SIZE), bool)
    if name in _FIRST and field == 1:
        found[:, _FIRST[name]] = True
    elif name == "SelectorWidth":
        found[:, _VARIABLES] = selectors & (field == 1)
        found[:, _NOTHING] = field > 1
    elif name == "Aggregate":
        if field == 1:  # something of the other type has to come behind it
            found[:, _VARIABLES] = (selectors & _later(sops)) | (sops & _later(selectors))
        elif field == 2:
            first = own[:, 0, None] == _VARIABLES
            others = np.where((selectors & first).any(1)[:, None], sops, selectors)
            found[:, _VARIABLES] = others & (first.cumsum(1) > 0)
        found[:, _NOTHING] = field == 3
    elif field == 2:
        found[:, _VARIABLES] = sops
    elif name == "Map":
        found[:, _NOTHING] = True
    else:
        found[:, _VARIABLES] = sops & ((own[:, 1, None] == _VARIABLES).cumsum(1) > 0)
    return found


def _later(some: Bool[np.ndarray, "b n"]) -> Bool[np.ndarray, "b n"]:
    """Whether one of `some` stands at a place or behind it."""
    return some[:, ::-1].cumsum(1)[:, ::-1] > 0
