"""Verbs of pairs: a zoo of trained transformers whose circuits are known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from weightspace.cli.output import say, say_json


def make_pairs(
    recipe: str,
    out: str | None,
    count: int | None,
    seed: int | None,
    workers: int | None,
    given: Mapping[str, object],
    json: bool,
) -> int:
    """Make a zoo of pairs, or what is missing of it, and say what it holds.

    Args:
        given: options that say nothing of such a zoo.
    """
    for option, value in given.items():
        if value is not None:
            raise ValueError(f"--{option} says nothing of a zoo of known circuits: leave it out")
    if out is not None and "://" in out:
        raise ValueError(f"a zoo of known circuits is made in a folder, and {out} is a URL: give a folder with --out")
    from weightspace.files.workers import cores
    from weightspace.pairs.zoo import COUNT
    from weightspace.pairs.zoo import make_pairs as make

    folder = Path(out or f"zoos/{recipe}")
    make(recipe, folder, COUNT if count is None else count, seed or 0, cores() if workers is None else workers)
    return card(folder, json)


def card(folder: Path, json: bool) -> int:
    """What a zoo of pairs holds."""
    from weightspace.pairs.card import card, format_card

    found = card(folder)
    return say_json(found) if json else say(format_card(found))
