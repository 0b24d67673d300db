"""What several verbs make of the options that they are given."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weightspace.metamodels.recipes import METAMODEL_RECIPES

SMALL = METAMODEL_RECIPES["small"]()


def some(names: tuple[str, ...], known: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Those that are named, or all.

    Raises:
        ValueError: on an unknown name; the message lists all.
    """
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no {what} is named {unknown[0]!r}: there are {'; '.join(known)}")
    return {name: known[name] for name in names or known}


def check_destinations(source: Path, destinations: dict[str, Path | None]) -> None:
    """Before anything long: that each file can be written, is not the one that is read, and is not named twice.

    Raises:
        ValueError: if not.
    """
    taken = {source.resolve(): "the file that is read"}
    for option, path in destinations.items():
        if path is None:
            continue
        where = path.resolve()
        if where in taken:
            raise ValueError(f"{option} {path} is {taken[where]} too: name another file")
        taken[where] = f"that of {option}"
        if path.is_dir():
            raise ValueError(f"{option} {path} is a folder: name a file in it")
        if path.exists() and not path.is_file():
            raise ValueError(f"{option} {path} is no regular file, so it is not replaced: choose another name")
        above = next(folder for folder in where.parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise ValueError(f"{option} {path} cannot be written: {above} is no folder that may be written to")


def seconds_of(text: str) -> float:
    """Seconds that a text such as `30s`, `2m` or `45` says.

    Raises:
        ValueError: if it says none, or none that is more than 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(s|m|h|)", text.strip())
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 0 < seconds < 1e7:
        raise ValueError(f"--budget {text!r} is no time: give such as 30s, 2m or 45 (seconds)")
    return seconds


def vocabulary(text: str) -> list[Any]:
    """The tokens that `--vocab` says: a JSON list, or a file that holds one.

    Raises:
        ValueError: if there is no list of tokens.
    """
    from weightspace.rasp.reading import read_vocabulary

    given = text
    if not text.lstrip().startswith(("[", "{", '"')):
        if not Path(text).is_file():
            if text.endswith(".json"):
                raise ValueError(f"--vocab names the file {text}, which is not there")
            if not re.search(r"[\s,]", text.strip()):
                raise ValueError(f"--vocab {text} is no file and no list of tokens: give such as [0, 1, 2], or a,b,c")
            return list(read_vocabulary(text))
        given = Path(text).read_text(encoding="utf-8", errors="replace")
    try:
        found = json.loads(given)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'--vocab is no JSON list of tokens, such as [0, 1, 2] or ["a", "b"]: {error}') from None
    if not isinstance(found, list):
        raise ValueError(f"--vocab is a JSON {type(found).__name__}: give a list of tokens, such as [0, 1, 2]")
    return found
