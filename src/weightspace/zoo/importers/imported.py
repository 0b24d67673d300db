"""Zoos of networks that people already have, written into our store: shards, index, splits; resumable."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

from weightspace.files.lock import writing
from weightspace.files.progress import progress as progress_line
from weightspace.weights.state_dict import Topology
from weightspace.zoo.importers.eilertsen_zoo import eilertsen_zoo
from weightspace.zoo.importers.folders import hub_repositories, state_dict_folder
from weightspace.zoo.importers.foreign import (
    REASONS,
    Checkpoint,
    ForeignNetwork,
    ForeignZoo,
    Reason,
    SourceError,
    Unfit,
    of_one_type,
)
from weightspace.zoo.importers.foreign_store import (
    Accepted,
    CheckpointRow,
    ForeignStore,
    architectural,
    column_name,
    space_of,
)
from weightspace.zoo.importers.model_jungle import model_jungle
from weightspace.zoo.importers.modelzoos import modelzoos
from weightspace.zoo.importers.small_cnn_zoo import small_cnn_zoo

KINDS = ("modelzoos", "small-cnn-zoo", "eilertsen", "model-jungle", "state-dicts", "huggingface")
"""Forms of foreign zoos that can be imported."""


@dataclass(frozen=True)
class Skipped:
    """How many networks, checkpoints or files were left out for one reason, and what is said of the first."""

    reason: Reason
    count: int
    first: str


@dataclass(frozen=True)
class Imported:
    """What came of an import.

    Attributes:
        folder: of the zoo.
        networks, checkpoints: that are in it.
        labels: that a task can ask for.
        skipped: by reason.
        notes: what else the person who imported should know, a sentence each.
    """

    folder: Path
    networks: int
    checkpoints: int
    labels: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        skipped = [{"reason": s.reason, "count": s.count, "first": s.first} for s in self.skipped]
        return {**self.__dict__, "folder": str(self.folder), "skipped": skipped}


def summary(found: Imported) -> str:
    """What came of an import, as a person reads it."""
    lines = [f"imported: {found.networks:,} networks, {found.checkpoints:,} checkpoints"]
    lines.append(f"labels that can be asked for: {', '.join(found.labels) or 'none'}")
    for skipped in found.skipped:
        lines += [f"skipped: {skipped.count:,} {REASONS[skipped.reason]}", f"  the first: {skipped.first}"]
    return "\n".join([*lines, *(f"note: {note}" for note in found.notes)])


def open_source(
    kind: str,
    sources: Sequence[str],
    *,
    table: Path | None = None,
    topology: str = "unknown",
    cache: Path | None = None,
    part: str | None = None,
    layer: str | None = None,
    splits: Path | None = None,
) -> ForeignZoo:
    """A foreign zoo, whose labels are read and whose weights are not.

    Args:
        kind: one of `KINDS`.
        sources: a folder, or a file, of the kind; repositories, hf://OWNER/NAME@REVISION, of the kind huggingface.
        table: CSV file of labels, of the kinds state-dicts and huggingface.
        topology: how the arrays are connected, of the same two kinds.
        cache: where files of the hub are kept.
        part: of files with several state dicts the keys that lead to the one that is meant, of the same two kinds.
        layer: of the kind model-jungle the one array that is taken of each model; all unless given.
        splits: of the kind small-cnn-zoo a published order of its rows, see `small_cnn_zoo`.
    Raises:
        SourceError: if there is no such kind, or nothing of the source can be used; a sentence.
    """
    if kind not in KINDS:
        raise SourceError(f"there is no kind {kind!r} of zoo to import: choose from {', '.join(KINDS)}")
    if topology not in get_args(Topology):
        raise SourceError(f"topology {topology!r}: choose from {', '.join(get_args(Topology))}")
    for name, given, of in (("--splits", splits, "small-cnn-zoo"), ("--layer", layer, "model-jungle")):
        if given is not None and kind != of:
            raise SourceError(f"{name} is an option of the kind {of}: leave it out for {kind}")
    connected = cast(Topology, topology)
    if kind == "huggingface":
        return hub_repositories(sources, table, connected, cache, part)
    if len(sources) != 1:
        raise SourceError(f"{len(sources)} sources were given, and one zoo of kind {kind} is imported at a time")
    place = Path(sources[0])
    if not place.exists():
        raise SourceError(f"there is no {place}: give the place of a zoo of kind {kind}")
    if kind == "state-dicts":
        return state_dict_folder(place, table, connected, part)
    if table is not None or topology != "unknown" or part is not None:
        raise SourceError(f"a zoo of kind {kind} has its own labels and arrays: leave --csv, --topology and --part out")
    if kind == "model-jungle":
        return model_jungle(place, layer)
    if kind == "small-cnn-zoo":
        return small_cnn_zoo(place, splits)
    return {"modelzoos": modelzoos, "eilertsen": eilertsen_zoo}[kind](place)


def import_zoo(
    kind: str,
    sources: Sequence[str],
    folder: str | Path,
    *,
    labels: Sequence[str] = (),
    table: Path | None = None,
    topology: str = "unknown",
    images: str | None = None,
    epochs: Sequence[int] = (),
    count: int | None = None,
    seed: int = 0,
    shard_size: int = 0,
    cache: Path | None = None,
    part: str | None = None,
    layer: str | None = None,
    splits: Path | None = None,
    show: bool = True,
) -> Imported:
    """Import a foreign zoo into `folder`, or what is still missing of it.

    Networks are numbered in an order that their names and the seed decide, so that neither their numbers nor their
    splits go with labels, as they would in the order of a grid. What cannot be imported is counted and stops nothing. A
    run that was killed and is started again keeps every whole shard that has the right networks and labels, and ends in
    the same zoo, byte for byte, if the source has not changed.

    Weights are read one network at a time, and at most a shard is held in memory.

    Args:
        kind, sources, table, topology, cache, part, layer, splits: see `open_source`.
        labels: which labels to ask for, so that a network without one of them is skipped. All unless given; one that is
            missing anywhere is then not asked for.
        images: name of the image set that the networks were trained on, if the source does not say it.
        epochs: which checkpoints; all unless given.
        count: most networks; chosen by the seed.
        seed: decides order and splits.
        shard_size: networks a shard; 0 chooses.
        show: print the progress on standard error.
    Raises:
        SourceError: if nothing could be imported.
        ZooError: if the folder holds something else or another zoo, or another run writes into it.
    """
    folder = Path(folder)
    _check_numbers(seed, shard_size, count)
    source = open_source(
        kind, sources, table=table, topology=topology, cache=cache, part=part, layer=layer, splits=splits
    )
    tally = Tally()
    candidates = _chosen(source, labels, epochs, seed, tally)[:count]
    shard_size = shard_size or max(16, -(-len(candidates) // 500))
    asked = {"recipe": f"imported {kind}", "seed": seed, "images": images or source.images, "source": source.name}
    asked |= {"asked": list(labels), "epochs": list(epochs), "most": count}
    asked |= {"topology": topology, "shard_size": shard_size}
    # unless given, zoos are as they were before these could be
    asked |= {} if part is None else {"part": part}
    asked |= {} if layer is None else {"layer": layer}
    asked |= {} if splits is None else {"splits": splits.name}
    with writing(folder):
        store = ForeignStore(folder, asked, source)
        _fill(store, candidates, tally, show)
        if not store.accepted:
            first = tally.first or f"it has no network{' at these epochs' * bool(epochs)}"
            raise SourceError(f"nothing of {' '.join(sources)} could be imported: {first}")
        return _finished(folder, store, source, labels, tally)


def _check_numbers(seed: int, shard_size: int, count: int | None) -> None:
    if seed < 0 or shard_size < 0 or (count is not None and count < 1):
        raise SourceError(
            f"seed {seed}, {shard_size} networks a shard, {count} networks: give none below 0, or below 1"
        )


def _fill(store: ForeignStore, candidates: Sequence[ForeignNetwork], tally: Tally, show: bool) -> None:
    """Bring the networks into the store, one after the other."""
    with progress_line("importing", total=len(candidates), unit="networks", enabled=show) as advance:
        for candidate in candidates:
            store.add(_rows(candidate, store, tally))
            advance(1)


def _finished(folder: Path, store: ForeignStore, source: ForeignZoo, labels: Sequence[str], tally: Tally) -> Imported:
    """Write the index and the manifest, and say what came of the import."""
    space, notes = space_of([one.candidate.labels for one in store.accepted], labels)
    given_away = architectural(space, store.accepted)
    skipped = tally.skipped
    store.finish(space, given_away, {one.reason: one.count for one in skipped})
    return Imported(
        folder,
        networks=len(store.accepted),
        checkpoints=store.checkpoints,
        labels=tuple(name for name in space if name not in given_away),
        skipped=skipped,
        notes=(*source.notes, *notes, *_shortened(store.accepted)),
    )


class Tally:
    """What is skipped, counted by reason."""

    def __init__(self) -> None:
        self.counts: Counter[Reason] = Counter()
        self.firsts: dict[Reason, str] = {}

    def add(self, error: Unfit) -> None:
        self.counts[error.reason] += 1
        self.firsts.setdefault(error.reason, str(error))

    @property
    def first(self) -> str:
        return next(iter(self.firsts.values()), "")

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        return tuple(
            Skipped(reason, self.counts[reason], self.firsts[reason]) for reason in REASONS if self.counts[reason]
        )


# -- which networks, and in which order -------------------------------------------------------------------------------


def _chosen(
    source: ForeignZoo, labels: Sequence[str], epochs: Sequence[int], seed: int, tally: Tally
) -> list[ForeignNetwork]:
    """The candidates that have these labels and epochs, in order; what is missing of the others is counted."""
    for error in source.unfit:
        tally.add(error)
    return _ordered(_labelled(source, labels, tally), epochs, seed, tally)


def _labelled(source: ForeignZoo, wanted: Sequence[str], tally: Tally) -> list[ForeignNetwork]:
    """The candidates with labels of one type each; those that lack a wanted one are skipped."""
    made = of_one_type([{column_name(n): value for n, value in c.labels.items()} for c in source.candidates])
    known = sorted({name for labels in made for name in labels})
    for name in wanted:
        if name not in known:
            raise SourceError(f"{source.name} has no label {name!r}: it has {', '.join(known) or 'none'}")
    kept = []
    for candidate, labels in zip(source.candidates, made, strict=True):
        missing = [name for name in wanted if labels[name] is None]
        if missing:
            tally.add(Unfit("labels", f"{candidate.name} has no {missing[0]}, which was asked for: fill it in"))
        else:
            kept.append(replace(candidate, labels=labels))
    return kept


def _ordered(
    candidates: Sequence[ForeignNetwork], epochs: Sequence[int], seed: int, tally: Tally
) -> list[ForeignNetwork]:
    """The candidates that have checkpoints at these epochs, in the order of a hash of seed and name."""
    kept = []
    for candidate in candidates:
        stored: dict[int, Checkpoint] = {}
        for checkpoint in candidate.checkpoints:
            if checkpoint.epoch in stored:
                sentence = f"{candidate.name} has two checkpoints of epoch {checkpoint.epoch}: the first one is taken"
                tally.add(Unfit("twice", sentence))
            elif not epochs or checkpoint.epoch in epochs:
                stored[checkpoint.epoch] = checkpoint
        if stored:
            inner = tuple(stored[epoch] for epoch in sorted(stored))
            kept.append(replace(candidate, checkpoints=inner))
    return sorted(kept, key=lambda c: hashlib.blake2b(f"order {seed} {c.name}".encode()).digest())


def _shortened(accepted: Sequence[Accepted]) -> list[str]:
    ends = [one for one in accepted if one.last < one.candidate.checkpoints[-1].epoch]
    if not ends:
        return []
    first = ends[0].candidate.name
    return [f"{len(ends)} networks end before their last checkpoint, which was skipped; the first is {first}"]


# -- one network ------------------------------------------------------------------------------------------------------


def _rows(candidate: ForeignNetwork, store: ForeignStore, tally: Tally) -> list[CheckpointRow]:
    """The checkpoints of a network that can be taken; none if its last one has the weights of another network."""
    taken: list[CheckpointRow] = []
    twins: list[Unfit] = []
    for checkpoint in candidate.checkpoints:
        try:
            row = store.row(candidate, checkpoint)
            if taken and row.spec != taken[0].spec:
                raise Unfit(
                    "shape",
                    f"{candidate.name} has other arrays after epoch {checkpoint.epoch} than after epoch "
                    f"{taken[0].facts['epoch']}: leave one of the two out",
                )
            other = store.seen.get(row.checksum, candidate.name)
            if other == candidate.name:
                taken.append(row)
                continue
            sentence = f"{candidate.name} has after epoch {checkpoint.epoch} the very weights of {other}"
            twins.append(Unfit("duplicate", f"{sentence}, which is imported already"))
            if checkpoint is candidate.checkpoints[-1]:
                tally.add(twins[-1])
                return []
        except Unfit as error:
            tally.add(error)
    for twin in twins:
        tally.add(twin)
    return taken
