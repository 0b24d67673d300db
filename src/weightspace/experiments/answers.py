"""What methods say of networks, kept file by file, so that a killed comparison goes on with those that are missing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.errors import TaskError
from weightspace.files.atomic import write_atomically
from weightspace.metamodels.contract import Examples, Predictor
from weightspace.train.checkpoint import bind
from weightspace.weights.population import Population


def tie(out: Path, facts: Any) -> None:
    """Tie a folder of answers to what was asked, of whom, after learning from what; JSON-serialisable, or listed.

    Raises:
        TaskError: if it is tied to something else.
    """
    if not bind(out, json.dumps(facts, sort_keys=True, default=list).encode()):
        raise TaskError(
            f"{out} holds answers about another zoo, other questions or after training on other networks: choose "
            "another folder, or delete that one"
        )


def answers(
    out: Path,
    name: str,
    make: Callable[[Path], Predictor],
    training: Examples,
    validation: Examples,
    asked: Mapping[str, Population],
) -> dict[str, Any]:
    """What a method says, from its file in `out`, or after it was fitted.

    Args:
        name: of the method, and of its file.
        make: makes it, given a folder for its checkpoints.
        asked: the networks that it is asked about.
    Returns:
        `fitted` and `predicted`, seconds; `parameters` that it learnt, None if it does not count them; and `answers`:
        by the names of `asked` and of the targets what `Predictor.predict` gives, to six decimals.
    """
    place = "-".join(name.replace(",", "").replace("+", "").split())
    path = out / f"{place}.json"
    if not path.exists():
        start = time.perf_counter()
        method = make(out / place).fit(training, validation)
        fitted = time.perf_counter()
        said = {which: method.predict(networks) for which, networks in asked.items()}
        record = {
            "method": name,
            "fitted": fitted - start,
            "predicted": time.perf_counter() - fitted,
            "parameters": _parameters(method),
            "answers": {w: {t: np.round(v, 6).tolist() for t, v in one.items()} for w, one in said.items()},
        }
        write_atomically(path, json.dumps(record).encode())
    record = json.loads(path.read_text())
    record["answers"] = {w: {t: np.array(v) for t, v in one.items()} for w, one in record["answers"].items()}
    return record


def _parameters(method: Predictor) -> int | None:
    """Of a choice among several the chosen one's, or all that answer together."""
    chosen = getattr(method, "chosen", method)
    learnt = [getattr(one, "parameters", None) for one in (chosen if isinstance(chosen, list) else [chosen])]
    known = [n for n in learnt if n is not None]
    return sum(known) if len(known) == len(learnt) else None
