"""A zoo made to order: a recipe by its name, what is asked for in place of its own choices, by whom and where to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weightspace.files.mirror import Mirror
from weightspace.zoo.engines import engine_of
from weightspace.zoo.making import make_zoo
from weightspace.zoo.programs.making import make_program_zoo
from weightspace.zoo.recipes import PROGRAM_RECIPES, program_recipe, zoo_recipe

__all__ = ["make_to_order"]


def make_to_order(
    recipe: str,
    out: str | None,
    *,
    shared: Mapping[str, Any],
    trained: Mapping[str, Any],
    compiled: Mapping[str, Any],
    engine: str = "process",
    means: Mapping[str, Any],
) -> Path:
    """Make the zoo of a recipe of networks or of programs, and give its folder.

    Args:
        recipe: its name.
        out: the folder; or a URL, to which each file of `zoos/NAME` is copied; None for `zoos/RECIPE`.
        shared: arguments of both `zoo_recipe` and `program_recipe`; None, here and below, leaves the recipe's choice.
        trained: arguments of `zoo_recipe` alone, of networks.
        compiled: arguments of `program_recipe` alone, of programs.
        engine: who trains networks; programs are compiled by processes.
        means: arguments of `engine_of`.
    Raises:
        ValueError: if something is asked that says nothing of this kind of zoo, or programs are to go to a URL.
        RecipeError, WorkerError, ZooError, PlaceError: see `zoo_recipe`, `engine_of`, `make_zoo` and `Mirror`.
    """
    mirror = Mirror(out) if out is not None and ("://" in out or out.startswith("file:")) else None
    folder = Path("zoos") / mirror.name if mirror else Path(out) if out else Path("zoos") / recipe
    programs = recipe in PROGRAM_RECIPES
    if programs:
        stacked = {"stack": means.get("stack"), "engine": engine if engine != "process" else None}
        _check_silent("programs", {**trained, **stacked})
    else:
        _check_silent("networks", compiled)
    chosen = engine_of(engine, **means)
    if programs and mirror:
        raise ValueError(f"a zoo of programs is made in a folder, and {out} is a URL: give a folder with --out")
    if programs:
        make_program_zoo(program_recipe(recipe, **shared, **compiled), folder, means.get("workers"))
    else:
        make_zoo(zoo_recipe(recipe, **shared, **trained), folder, chosen, mirror=mirror)
    return folder


def _check_silent(kind: str, options: Mapping[str, Any]) -> None:
    """Refuse the first option that is given, and says nothing of a zoo of this kind."""
    for option, value in options.items():
        if value is not None and value != ():
            raise ValueError(f"--{option} says nothing of a zoo of {kind}: leave it out")
