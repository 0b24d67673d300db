"""A zoo of compiled programs opened for reading: its index, and its programs with their weights, shard by shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.errors import ZooError
from weightspace.rasp.compiler.transformer import Configuration, Layout, layout_of
from weightspace.rasp.program import Program
from weightspace.zoo.programs.config import KIND, ProgramZooConfig
from weightspace.zoo.programs.shards import CONFIGURATION, read_shard, shard_file
from weightspace.zoo.store import SPLITS, read_description, read_index, read_manifest


@dataclass(frozen=True, eq=False)
class Entry:
    """One program of a zoo, with its weights as they are stored.

    Attributes:
        number: in the zoo.
        split: train, validation or test.
        text: the program.
        key: its canonical form in 16 bytes.
        layout: where each parameter stands in the flat vector.
        places, values: of the entries that are not zero.
    """

    number: int
    split: str
    text: str
    key: bytes
    layout: Layout
    places: np.ndarray
    values: np.ndarray

    @property
    def program(self) -> Program:
        return Program.parse(self.text)

    @property
    def flat(self) -> np.ndarray:
        """(parameters,) float32: all weights, in the order of `layout`."""
        flat = np.zeros(self.layout.size, dtype=np.float32)
        flat[self.places] = self.values
        return flat


@dataclass(frozen=True, eq=False)
class ProgramZoo:
    """A complete zoo of compiled programs, opened for reading.

    Attributes:
        folder: where it lies.
        description: what it was asked to be.
        manifest: how many programs and shards it has, what was dropped and why, and the hash of every file.
    """

    folder: Path
    description: dict[str, Any]
    manifest: dict[str, Any]

    @staticmethod
    def open(folder: str | Path) -> ProgramZoo:
        """Open a complete zoo; nothing but its description and manifest is read yet.

        Raises:
            ZooError: if it is no zoo, one of another kind, not complete, or its manifest is damaged.
        """
        folder = Path(folder)
        return ProgramZoo(folder, read_description(folder, KIND), read_manifest(folder))

    def __len__(self) -> int:
        return int(self.manifest["networks"])

    @property
    def config(self) -> ProgramZooConfig:
        facts = dict(self.description["config"])
        return ProgramZooConfig(**{**facts, "lengths": tuple(facts["lengths"])})

    @cached_property
    def index(self) -> Any:
        """An Arrow table: network, shard, row, key (its first 64 bits), length, parameters, split."""
        return read_index(self.folder)

    def entries(self, split: str | None = None) -> Iterator[Entry]:
        """The programs of one split, or all, shard by shard; memory holds the index and one shard.

        Raises:
            ZooError: if a shard is missing or damaged.
        """
        if split not in (None, *SPLITS):
            raise ZooError(f"there is no split {split!r}: choose from {', '.join(SPLITS)}")
        shards, rows = self.index["shard"].to_numpy(), self.index["row"].to_numpy()
        splits = self.index["split"].to_pylist()
        bounds = np.searchsorted(shards, np.arange(self.manifest["shards"] + 1))
        for number, (start, end) in enumerate(pairwise(bounds)):
            wanted = [n for n in range(start, end) if split in (None, splits[n])]
            if not wanted:
                continue
            table = read_shard(shard_file(self.folder, number)).take([int(rows[n]) for n in wanted])
            columns = {name: table[name].to_pylist() for name in table.column_names if name not in ("places", "values")}
            places, values = table["places"].combine_chunks(), table["values"].combine_chunks()
            for place, n in enumerate(wanted):
                shape = Configuration(*(columns[name][place] for name in CONFIGURATION))
                size = (columns["tokens"][place], columns["positions"][place] - 1, columns["width"][place])
                yield Entry(
                    n,
                    splits[n],
                    columns["program"][place],
                    columns["key"][place],
                    layout_of(*size, shape),
                    places[place].values.to_numpy(),
                    values[place].values.to_numpy(),
                )
