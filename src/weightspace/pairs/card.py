"""What a zoo of pairs holds, from its records alone: how many networks, how sound, how long they took."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.errors import ZooError
from weightspace.evaluation.metrics import Tally
from weightspace.files.json_text import json_object

RECIPES = ("circuits-small", "circuits-small-behaviour", "circuits-tiny", "circuits-tiny-behaviour")
DESCRIPTION, FACTS, CORRESPONDENCE = "pairs.json", "network.json", "hypothesis.json"
SOUND, UNSOUND = "sound", "unsound"
LABELS = ("layers", "width", "heads", "norm", "activation", "weight_decay", "chained")
"""Parts of a plan by which yields are reported."""


def read(path: Path) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        ZooError: if it is missing or damaged.
    """
    try:
        return json_object(path.read_bytes())
    except OSError as error:
        raise ZooError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    except ValueError as error:
        raise ZooError(f"{path} is damaged ({error}): delete its folder and make the zoo again") from None


def describe(folder: Path) -> dict[str, Any]:
    """What a zoo was asked to be.

    Raises:
        ZooError: if it is no zoo of pairs.
    """
    if not (folder / DESCRIPTION).is_file():
        raise ZooError(f"{folder} holds no zoo of pairs: make one with `weightspace zoo make circuits-small`")
    return read(folder / DESCRIPTION)


def folders_of(folder: Path, *, sound: bool | None = True) -> list[Path]:
    """The folders of a zoo's networks, in their order.

    Args:
        sound: whether sound ones, others, or (None) both.
    Raises:
        ZooError: if it is no zoo of pairs, or has none of them.
    """
    describe(folder)
    kinds = [kind for kind, is_sound in ((SOUND, True), (UNSOUND, False)) if sound in (None, is_sound)]
    paths = [path for kind in kinds for path in (folder / kind).glob("[0-9]" * 5) if (path / FACTS).exists()]
    if not paths:
        raise ZooError(f"{folder} has no {' or '.join(kinds)} networks yet: make more with `weightspace zoo make`")
    return sorted(paths, key=lambda path: path.name)


def card(folder: Path) -> dict[str, Any]:
    """What a zoo holds, JSON-serialisable.

    Raises:
        ZooError: if it is no zoo of pairs, or has no network yet.
    """
    facts = [read(path / FACTS) for path in folders_of(folder, sound=None)]
    sound = [each for each in facts if each["sound"]]
    seconds = sum(each["seconds"] for each in facts)
    described = describe(folder)
    tables: dict[str, Callable[[dict[str, Any]], Any]] = {
        "S-ops": lambda each: each["S-ops"],
        "layers needed": lambda each: each["layers needed"],
        "origin": lambda each: "typed" if each["origin"] == "typed" else "by hand",
    }
    for label in LABELS:
        tables[label] = lambda each, label=label: each["plan"][label]
    return {
        "folder": str(folder),
        "recipe": described["recipe"],
        "seed": described["seed"],
        "trained": len(facts),
        "sound": len(sound),
        "programs of sound ones": len({each["program"] for each in sound}),
        "seconds of one core": round(seconds, 1),
        "seconds a sound network": round(seconds / len(sound), 1) if sound else None,
        "answers right, all": _spread([each["unseen"]["behaviour"] for each in facts]),
        "worst interchange, all": _spread([each["unseen"]["interchange"]["worst"] for each in facts]),
        "worst strictness, all": _spread([each["unseen"]["strictness"]["worst"] for each in facts]),
        "worst interchange, sound": _spread([each["unseen"]["interchange"]["worst"] for each in sound]),
        "worst strictness, sound": _spread([each["unseen"]["strictness"]["worst"] for each in sound]),
        "yield": {name: _yield(facts, key) for name, key in tables.items()},
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    low, middle, high = np.quantile(values, (0, 0.5, 1)).tolist()
    return {"least": round(low, 3), "median": round(middle, 3), "most": round(high, 3)}


def _yield(facts: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """By what `key` gives, sound ones of those trained, with Wilson's interval and seconds of a sound one."""
    found = {}
    for value in sorted({key(each) for each in facts}):
        some = [each for each in facts if key(each) == value]
        tally = Tally(sum(each["sound"] for each in some), len(some))
        bounds = tally.interval
        assert bounds is not None  # there is at least one
        seconds = sum(each["seconds"] for each in some) / tally.right if tally.right else None
        found[str(value)] = {
            "sound": tally.right,
            "trained": tally.n,
            "low": round(bounds.low, 3),
            "high": round(bounds.high, 3),
            "seconds a sound one": None if seconds is None else round(seconds, 1),
        }
    return found


def format_card(found: dict[str, Any]) -> str:
    """The same in text."""
    lines = []
    for name, value in found.items():
        if name == "yield":
            continue
        shown = json.dumps(value) if isinstance(value, dict) else value
        lines.append(f"{name:<26}{shown}")
    lines += ["", f"{'':<26}{'sound':>6} {'of':>5}   95% interval    seconds a sound one"]
    for name, rows in found["yield"].items():
        for value, row in rows.items():
            seconds = "-" if row["seconds a sound one"] is None else f"{row['seconds a sound one']:.1f}"
            interval = f"{row['low']:.2f} to {row['high']:.2f}"
            lines.append(
                f"{name + ' ' + value:<26}{row['sound']:>6} {row['trained']:>5}   {interval:<12}  {seconds:>8}"
            )
    return "\n".join(lines)
