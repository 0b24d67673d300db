"""Verbs of pairs: a zoo of trained transformers whose circuits are known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from weightspace.cli.arguments import Positional
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


def judge(zoo: Positional[Path], count: int | None = None, mutants: int = 6, seed: int = 0, json: bool = False) -> int:
    """Whether interventions accept the planted circuits of a zoo, and reject wrong ones: the power of the judgement.

    Judged are each network's own correspondence; its program with S-ops at other components; programs of other
    networks; and hypotheses that are wrong in one thing.

    Args:
        zoo: folder of a zoo of pairs, made with `zoo make circuits-small`.
        count: at most so many sound networks, and so many others.
        mutants: hypotheses a network that are wrong in one thing.
        seed: of inputs, pairs and whatever is drawn.
        json: print the figures as JSON.

    Examples:
        weightspace pairs judge zoos/circuits-small
        weightspace pairs judge zoos/circuits-small --count 10 --json
    """
    from weightspace.pairs.acceptance import accept, format_acceptance

    if mutants < 0 or (count is not None and count < 1):
        raise ValueError(f"--count {count} --mutants {mutants}: give at least 1 network, and 0 mutants or more")
    found = accept(zoo, count=count, mutants=mutants, seed=seed)
    return say_json(found) if json else say(format_acceptance(found))


def tasks(zoo: Positional[Path], seed: int = 0, json: bool = False) -> int:
    """Which components are used, and what they compute: readers of weights and of activations against baselines.

    Learnt and scored on a zoo's sound networks; programs are held out fold by fold, and then depths.

    Args:
        zoo: folder of a zoo of pairs, made with `zoo make circuits-small`.
        seed: of folds, inputs and forests.
        json: print the figures as JSON.

    Examples:
        weightspace pairs tasks zoos/circuits-small
        weightspace pairs tasks zoos/circuits-small --seed 1 --json
    """
    from weightspace.pairs.tasks import format_study, study

    found = study(zoo, seed=seed)
    return say_json(found) if json else say(format_study(found))
