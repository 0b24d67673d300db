"""A zoo of pairs on disk: a folder a network, sound ones apart from the others; a killed run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from weightspace import __version__
from weightspace.errors import NetworkError, ZooError
from weightspace.files.atomic import write_atomically
from weightspace.files.lock import writing
from weightspace.files.progress import progress
from weightspace.files.workers import processes, result
from weightspace.pairs.answers import AnswerClasses
from weightspace.pairs.card import CORRESPONDENCE, DESCRIPTION, FACTS, SOUND, UNSOUND, describe, folders_of, read
from weightspace.pairs.correspondence import Correspondence, Slot
from weightspace.pairs.making import Made, Recipe, of_name
from weightspace.pairs.network import NetworkPlan, state_dict
from weightspace.threads import one_thread
from weightspace.transformers.loading import load_trained
from weightspace.transformers.trained import TrainedTransformer

COUNT = 500


@dataclass(frozen=True, eq=False)
class Pair:
    """A network of a zoo.

    Attributes:
        folder: `load_transformer` reads it, and `Hypothesis.from_json` its `hypothesis.json`.
        facts: what is known of it.
    """

    folder: Path
    facts: Mapping[str, Any]

    @property
    def number(self) -> int:
        return int(self.folder.name)

    @property
    def sound(self) -> bool:
        return bool(self.facts["sound"])

    @property
    def plan(self) -> NetworkPlan:
        return NetworkPlan(**self.facts["plan"])

    @property
    def slots(self) -> list[Slot]:
        return self.plan.slots

    @property
    def answer(self) -> AnswerClasses:
        program = self.correspondence.program
        return AnswerClasses(program.name(program.output), tuple(self.facts["answers"]))

    @cached_property
    def correspondence(self) -> Correspondence:
        """Raises NetworkError if the file is damaged or names a component that is not there."""
        path = self.folder / CORRESPONDENCE
        try:
            found = Correspondence.from_record(read(path))
            found.check(self.transformer.shape)
        except NetworkError as error:
            raise NetworkError(f"{path}: {error}") from None
        return found

    @cached_property
    def transformer(self) -> TrainedTransformer:
        return load_trained(self.folder)


def make_pairs(
    recipe: str, folder: Path, count: int = COUNT, seed: int = 0, workers: int = 1, *, show: bool = True
) -> None:
    """Train what is missing of a zoo's networks; a kill loses at most one network a worker.

    Args:
        recipe: one of `card.RECIPES`.
        count: networks that are trained, sound or not.
    Raises:
        ZooError: if there is nothing to make, or the folder holds something else or a zoo of another recipe or seed.
    """
    if count < 1 or workers < 1:
        raise ZooError(f"a zoo of {count} networks by {workers} workers is none: give 1 or more of both")
    with writing(folder):
        _begin(folder, recipe, seed)
        missing = [number for number in range(count) if _path(folder, number) is None]
        with progress("networks", count, "networks", show, done=count - len(missing)) as advance:
            if workers == 1:
                for number in missing:
                    advance(1, _make(folder, of_name(recipe), seed, number))
                return
            with processes(workers) as (pool, _):
                for each in [pool.submit(_make, folder, of_name(recipe), seed, number) for number in missing]:
                    advance(1, result(each))


def _begin(folder: Path, recipe: str, seed: int) -> None:
    wanted = {"kind": "pairs", "recipe": recipe, "seed": seed}
    if (folder / DESCRIPTION).exists():
        found = describe(folder)
        if {name: found.get(name) for name in wanted} != wanted:
            raise ZooError(
                f"{folder} holds a zoo of the recipe {found.get('recipe')} with seed {found.get('seed')}: choose "
                "another folder with --out"
            )
        return
    if any(not path.name.startswith(".") for path in folder.iterdir()):
        raise ZooError(f"{folder} is not empty and holds no zoo of pairs: choose another folder with --out")
    write_atomically(folder / DESCRIPTION, json.dumps({**wanted, "version": __version__}).encode())


def _make(folder: Path, recipe: Recipe, seed: int, number: int) -> str:
    with one_thread():  # they are small: several side by side are faster than one on several cores
        found = recipe.made(seed, number)
    write_pair(folder / (SOUND if found.dropped is None else UNSOUND) / f"{number:05d}", found)
    return "the last one sound" if found.dropped is None else f"the last one dropped: {found.dropped}"


def write_pair(folder: Path, found: Made) -> None:
    """Write a network; it is there once its last file is."""
    write_atomically(folder / "model.safetensors", save(state_dict(found.plan, found.trained.weights)))
    write_atomically(folder / "config.json", json.dumps(found.plan.config).encode())
    found.correspondence.to_json(folder / CORRESPONDENCE)
    write_atomically(folder / FACTS, json.dumps(found.record, indent=1).encode())


def _path(folder: Path, number: int) -> Path | None:
    """Where a network is; None if it is not whole."""
    paths = (folder / kind / f"{number:05d}" for kind in (SOUND, UNSOUND))
    return next((path for path in paths if (path / FACTS).exists()), None)


def pairs_of(folder: Path, *, sound: bool | None = True) -> Iterator[Pair]:
    """The networks of a zoo in order.

    Args:
        sound: whether sound ones, others, or (None) both.
    Raises:
        ZooError: if it is no zoo of pairs, or has none of them.
    """
    for path in folders_of(folder, sound=sound):
        yield Pair(path, read(path / FACTS))
