"""The shards of an imported zoo as they fill, those on disk that fit kept; and which of its labels can be asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightspace import __version__
from weightspace.errors import NetworkError, ZooError
from weightspace.weights.network import check_finite
from weightspace.weights.spec import NetworkSpec
from weightspace.zoo.importers.foreign import MEASURES, Checkpoint, ForeignNetwork, ForeignZoo, Unfit, Weights
from weightspace.zoo.making import check_place
from weightspace.zoo.store import (
    DESCRIPTION,
    MANIFEST,
    SHARDS,
    Record,
    Shard,
    checksum,
    damaged_networks,
    finish,
    read_description,
    remove_torn,
    shard_path,
    split_of,
    write_description,
    write_shard,
)

CLASSES = 50
"""Most values of a label that is a choice; one that has more is a range, if they are numbers."""
LARGEST = 2**27
"""Bytes of weights after which a shard is full, however few networks it has."""
_PLACE = frozenset(("signature", "shard", "row", "checksum", "architecture"))
"""Columns that are known only when the weights are."""
_COLUMNS = _PLACE | {"network", "epoch", "seed", "split", "dropped", "source"}


def column_name(label: str) -> str:
    """A label's column in the index: its own name, or `source_NAME` where the index has such a column of its own."""
    return f"source_{label}" if label in _COLUMNS or label in MEASURES else label


@dataclass(frozen=True, eq=False)
class CheckpointRow:
    """A checkpoint that can be taken.

    Attributes:
        facts: its row of the index.
        place: shard and row in it where it stands already; None if it stands in none.
        weights: None if it stands in a shard already.
    """

    candidate: ForeignNetwork
    checkpoint: Checkpoint
    facts: Mapping[str, Any]
    spec: NetworkSpec
    checksum: str
    place: tuple[int, int] | None = None
    weights: Weights | None = None


@dataclass(frozen=True, eq=False)
class Accepted:
    """A network that was taken: where it comes from, its spec's signature, and its last epoch that was taken."""

    candidate: ForeignNetwork
    signature: str
    last: int


class ForeignStore:
    """An imported zoo while it is written.

    Attributes:
        accepted: the networks that were taken, by number.
        checkpoints: how many of them all.
        seen: name of the network that has the weights of each checksum.
    """

    def __init__(self, folder: Path, asked: Mapping[str, Any], source: ForeignZoo) -> None:
        """Find what is on disk already.

        Args:
            asked: what decides the zoo, which a run that goes on must have in common with the first.
        Raises:
            ZooError: if the folder holds something else, or another zoo.
        """
        self.folder, self.asked, self.source = folder, json.loads(json.dumps(asked)), source
        self.accepted: list[Accepted] = []
        self.checkpoints = 0
        self.seen: dict[str, str] = {}
        self._check_place()
        self._lengths: dict[int, int] = {}
        self._specs: dict[str, NetworkSpec] = {}
        self._known: dict[tuple[str, int], tuple[tuple[int, int], dict[str, Any]]] = {}
        for path in sorted((folder / SHARDS).glob("*.safetensors")):
            if path.stem.isdigit() and damaged_networks(path) == []:
                self._keep(int(path.stem), Shard.open(path))
        self._waiting: list[CheckpointRow] = []
        self._networks = self._bytes = self._shards = 0

    def _check_place(self) -> None:
        if not (self.folder / DESCRIPTION).exists():
            return check_place({"kind": "networks", "config": self.asked}, self.folder)
        found = read_description(self.folder, "networks")["config"]
        differing = [f"{n} ({found.get(n)!r}, not {v!r})" for n, v in self.asked.items() if found.get(n) != v]
        if differing:
            raise ZooError(
                f"{self.folder} holds a zoo of another configuration, which differs in {', '.join(differing)}: choose "
                "another folder, or the options it was made with"
            )
        return None

    def _keep(self, number: int, shard: Shard) -> None:
        self._lengths[number] = len(shard.rows)
        for signature, spec in shard.specs.items():
            self._specs.setdefault(signature, NetworkSpec.from_json(spec))
        for place, row in enumerate(shard.rows):
            self._known[str(row.get("source")), int(row.get("epoch", -1))] = ((number, place), row)

    def row(self, candidate: ForeignNetwork, checkpoint: Checkpoint) -> CheckpointRow:
        """A checkpoint of the network that is to be the next; its weights are read only if no shard has them.

        Raises:
            Unfit: if they cannot be read, or are not finite.
        """
        network = len(self.accepted)
        facts: dict[str, Any] = {
            **dict.fromkeys(MEASURES[:4]),
            **candidate.labels,
            **{name if name in MEASURES else column_name(name): v for name, v in checkpoint.measures.items()},
            "network": network,
            "epoch": checkpoint.epoch,
            "seed": network,  # one of its own: what `seed` the source has is a label
            "split": candidate.split or split_of(network, self.asked["seed"]),
            "source": candidate.name,
            "dropped": None,
        }
        place, known = self._known.get((candidate.name, checkpoint.epoch), (None, {}))
        if place is not None and known.keys() - _PLACE == facts.keys() and all(known[n] == facts[n] for n in facts):
            facts["architecture"] = known["architecture"]
            return CheckpointRow(
                candidate, checkpoint, facts, self._specs[known["signature"]], known["checksum"], place
            )
        weights = self._read(candidate, checkpoint)
        built = weights.architecture
        facts["architecture"] = None if built is None else json.dumps(built.to_json(), sort_keys=True)
        return CheckpointRow(candidate, checkpoint, facts, weights.spec, checksum(weights.flat), weights=weights)

    def _read(self, candidate: ForeignNetwork, checkpoint: Checkpoint) -> Weights:
        weights = self.source.read(candidate, checkpoint)
        try:
            check_finite(weights.spec, weights.flat, f"{candidate.name} after epoch {checkpoint.epoch}")
        except NetworkError as error:
            raise Unfit("not finite", str(error)) from None
        return weights

    def add(self, rows: Sequence[CheckpointRow]) -> None:
        """Take the next network, with these checkpoints; without any it is left out."""
        if not rows:
            return
        self.accepted.append(Accepted(rows[0].candidate, rows[0].spec.signature, rows[-1].facts["epoch"]))
        self.checkpoints += len(rows)
        self._networks += 1
        for row in rows:
            self.seen[row.checksum] = row.candidate.name
            self._waiting.append(row)
            self._bytes += 4 * row.spec.size
        if self._networks >= self.asked["shard_size"] or self._bytes >= LARGEST:
            self._close()

    def _close(self) -> None:
        """Write the shard that is full, unless it is on disk just so."""
        number, rows = self._shards, self._waiting
        self._shards, self._waiting, self._networks, self._bytes = number + 1, [], 0, 0
        there = [row.place for row in rows] == [(number, i) for i in range(len(rows))]
        if there and self._lengths[number] == len(rows):
            return
        (self.folder / MANIFEST).unlink(missing_ok=True)
        if not (self.folder / DESCRIPTION).exists():
            self._describe({}, [], {})
        remove_torn(self.folder)
        records = []
        for row in rows:
            weights = row.weights or self._read(row.candidate, row.checkpoint)
            records.append(Record(row.spec, weights.flat, row.facts))
        write_shard(self.folder, number, records)

    def _describe(self, space: Mapping[str, Any], given_away: Sequence[str], skipped: Mapping[str, int]) -> None:
        config = {**self.asked, "count": len(self.accepted), "space": space, "architectural": given_away}
        config["skipped"] = skipped
        write_description(self.folder, {"kind": "networks", "config": config, "arithmetic": {}, "version": __version__})

    def finish(self, space: Mapping[str, Any], given_away: Sequence[str], skipped: Mapping[str, int]) -> None:
        """Complete the zoo.

        Args:
            space: distributions of the labels that can be asked for.
            given_away: those of them that the spec gives away.
            skipped: counts by reason.
        """
        if self._waiting:
            self._close()
        (self.folder / MANIFEST).unlink(missing_ok=True)
        written = {shard_path(self.folder, number) for number in range(self._shards)}
        for path in (self.folder / SHARDS).glob("*.safetensors"):
            if path not in written:
                path.unlink()  # of a source that had more
        self._describe(space, given_away, skipped)
        finish(self.folder, self._shards)


# -- labels -----------------------------------------------------------------------------------------------------------


def space_of(labels: Sequence[Mapping[str, Any]], wanted: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """What labels (of each network) can be asked for, as distributions, and what is to be said of the others.

    A label of 2 to 50 values is a choice, a number of more is a range; one that is missing somewhere, or is text of
    more values, cannot be asked for.

    Args:
        wanted: which; all unless given.
    """
    space: dict[str, Any] = {}
    notes = []
    for name in sorted({name for one in labels for name in one}):
        if name not in wanted if wanted else name.startswith("source_"):
            continue
        values = [one.get(name) for one in labels]
        found = sorted({value for value in values if value is not None})
        lacking = values.count(None)
        if lacking == len(values):
            notes.append(f"label {name!r} is empty everywhere, so that it cannot be asked for")
        elif lacking:
            notes.append(
                f"label {name!r} is missing in {lacking} of {len(values)} networks, so that it cannot be asked for: "
                f"fill it in, or skip those networks with --labels {name}"
            )
        elif 2 <= len(found) <= CLASSES:
            space[name] = {"kind": "Choice", "values": found}
        elif len(found) > CLASSES and isinstance(found[0], int | float):
            space[name] = {"kind": "Uniform", "low": found[0], "high": found[-1]}
        elif len(found) > CLASSES:
            notes.append(f"label {name!r} has {len(found)} different texts, so that it cannot be asked for")
    return space, notes


def architectural(space: Mapping[str, Any], accepted: Sequence[Accepted]) -> list[str]:
    """The labels that a network's arrays give away: each spec, of at least two, has one value of them."""
    given_away = []
    for name in space:
        values: dict[str, set[Any]] = {}
        for one in accepted:
            values.setdefault(one.signature, set()).add(one.candidate.labels[name])
        if len(values) > 1 and all(len(found) == 1 for found in values.values()):
            given_away.append(name)
    return given_away
