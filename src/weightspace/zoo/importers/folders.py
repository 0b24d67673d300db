"""State dicts in folders and in repositories of the Hugging Face hub, with a table of labels, as a foreign zoo."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightspace.files.checkpoints import SUFFIXES
from weightspace.files.hub import SCHEME, HubError, Repository, repository
from weightspace.files.shards import index_beside
from weightspace.weights.state_dict import Topology
from weightspace.zoo.importers.foreign import (
    MEASURES,
    Checkpoint,
    ForeignNetwork,
    ForeignZoo,
    LabelTable,
    SourceError,
    Unfit,
    number,
    read_table,
)
from weightspace.zoo.importers.state_dicts import StateDicts

_CONTROL = ("file", "name", "network", "epoch")


# -- labels -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _StateDictFile:
    """A state dict, what it is called, the files it lies in, and its row of the table."""

    name: str
    paths: tuple[Path, ...]
    row: Mapping[str, Any]


def _candidates(files: Sequence[_StateDictFile], unfit: list[Unfit]) -> list[ForeignNetwork]:
    """Files grouped by `network`, each alone where there is none, in the order of `epoch`, or of the table.

    A column is a label where all checkpoints of each network have it in common; otherwise it is a fact of checkpoints.
    """
    groups: dict[str, list[_StateDictFile]] = {}
    for file in files:
        groups.setdefault(str(file.row.get("network") or file.name), []).append(file)
    columns = [c for c in dict.fromkeys(name for file in files for name in file.row) if c not in _CONTROL]
    varying = {c for c in columns for group in groups.values() if len({file.row.get(c) for file in group}) > 1}
    candidates = []
    for name, group in groups.items():
        stored = []
        for place, file in enumerate(group):
            epoch = file.row.get("epoch", place)
            if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
                unfit.append(Unfit("labels", f"{file.name} has {epoch!r} as its epoch: give a whole number from 0 on"))
                continue
            facts = {c: number(file.row.get(c)) if c in MEASURES else file.row.get(c) for c in columns}
            measures = {c: value for c, value in facts.items() if c in MEASURES or c in varying}
            stored.append(Checkpoint(epoch, file.paths, measures))
        if stored:
            labels = {c: group[0].row.get(c) for c in columns if c not in MEASURES and c not in varying}
            candidates.append(ForeignNetwork(name, labels, tuple(stored)))
    return candidates


def _labels(path: Path) -> tuple[LabelTable, str]:
    """A table of labels, and the column that says which file each row is of."""
    table = read_table(path, texts=("file", "name", "network"))
    key = next((name for name in ("file", "name") if name in table.columns), None)
    if key is None:
        raise SourceError(
            f"{path} has no column 'file' (or 'name') that says which file a row is of; it has "
            f"{', '.join(table.columns)}"
        )
    return table, key


# -- a folder ---------------------------------------------------------------------------------------------------------


def state_dict_folder(
    folder: Path, labels: Path | None = None, topology: Topology = "unknown", part: str | None = None
) -> ForeignZoo:
    """Files of state dicts below a folder, and a CSV file of labels.

    The files are such as `files.checkpoints` reads: safetensors, PyTorch's, ONNX. Of several state dicts in one file
    the one that is a network is taken; where that is not plain, `part` says it. Files of one architecture under other
    names get the names of the first. Shards are one network by their index, or by their numbers. The CSV has `file`, a
    path below the folder, or `name`, the same without the ending; `network` where several files are checkpoints of one,
    with `epoch`; every other column is a label, but for losses and accuracies.

    Args:
        labels: the CSV file; the only one in the folder unless given.
        topology: how the arrays of all networks are connected, see `weights.state_dict`.
        part: see `state_dicts.network_in`.
    Raises:
        SourceError: if there is no folder or no table, or it has neither column.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder: give one with files of state dicts and a CSV file of labels")
    if labels is None:
        tables = sorted(folder.glob("*.csv"))
        if len(tables) != 1:
            raise SourceError(f"{folder} holds {len(tables)} CSV files, and one of labels is expected: name it (--csv)")
        labels = tables[0]
    table, key = _labels(labels)
    there = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES and p.is_file()]
    unfit: list[Unfit] = []
    files: dict[tuple[Path, ...], _StateDictFile] = {}
    for place in range(len(table)):
        row = table.row(place)
        try:
            paths = whole(_named(folder, row[key], f"row {place + 1} of {labels}"))
            if paths in files:
                raise Unfit("twice", f"row {place + 1} of {labels} names {row[key]} again: leave one row a network")
            files[paths] = _StateDictFile(paths[0].relative_to(folder).as_posix(), paths, row)
        except Unfit as error:
            unfit.append(error)
    listed = {path for paths in files for path in paths}
    for path in there:
        index = index_beside(path)
        if path not in listed and index not in listed:
            unfit.append(Unfit("labels", f"{path} has no row in {labels.name}: add one, or take the file away"))
    candidates = _candidates(list(files.values()), unfit)
    reader = StateDicts(list(files), topology, part)
    name = folder.resolve().name
    return ForeignZoo(name, candidates, lambda _, c: reader.read(c.place), unfit=unfit, notes=reader.notes)


_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.\w+)")


def whole(path: Path) -> tuple[Path, ...]:
    """The files of a network of which one is named: its index where it has one, all its shards by their numbers, or it.

    Raises:
        Unfit: if a shard is missing.
    """
    index = index_beside(path)
    if index is not None:
        return (index,)
    found = _SHARD.fullmatch(path.name)
    if found is None:
        return (path,)
    begin, _, count, suffix = found.groups()
    shards = tuple(path.with_name(f"{begin}-{number:05d}-of-{count}{suffix}") for number in range(1, int(count) + 1))
    missing = [shard for shard in shards if not shard.is_file()]
    if missing:
        raise Unfit("missing", f"{path} is a shard of {int(count)}, and {missing[0].name} is not there: put it there")
    return shards


def _named(folder: Path, name: str | None, where: str) -> Path:
    """The file below the folder that a row names."""
    if name is None:
        raise Unfit("labels", f"{where} names no file: fill it in")
    path = folder / name
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise Unfit("missing", f"{where} names {name}, which leads out of the folder: give a path below {folder}")
    if path.is_file():
        return path
    for suffix in (*SUFFIXES, *(f"{one}.index.json" for one in SUFFIXES)):
        if (found := path.with_name(path.name + suffix)).is_file():
            return found
    raise Unfit("missing", f"{where} names {name}, and there is no such file in {folder}: put it there")


# -- the hub ----------------------------------------------------------------------------------------------------------


def hub_repositories(
    targets: Sequence[str],
    labels: Path | None = None,
    topology: Topology = "unknown",
    cache: Path | None = None,
    part: str | None = None,
) -> ForeignZoo:
    """The safetensors files of repositories of the Hugging Face hub, each a network; nothing else is fetched.

    The commit is pinned before anything is fetched. Files that share out one network (`-00001-of-00003`) are one.

    Args:
        targets: hf://OWNER/NAME or hf://OWNER/NAME@REVISION each.
        labels: a CSV file as for `state_dict_folder`, its `file` OWNER/NAME or OWNER/NAME/FILE; no labels unless given.
        cache: where files are kept; the hub's own cache unless given.
        part: see `state_dicts.network_in`.
    Raises:
        SourceError: if the labels cannot be read.
    """
    rows: dict[str, dict[str, Any]] = {}
    if labels is not None:
        table, key = _labels(labels)
        for place in range(len(table)):
            row = table.row(place)
            name = str(row[key] or "").removeprefix(SCHEME)
            rows[re.sub(r"@[^/]*", "", name)] = row
    unfit: list[Unfit] = []
    files: list[_StateDictFile] = []
    commits: list[str] = []
    for target in targets:
        try:
            found, groups = _fetched(target, cache)
        except Unfit as error:
            unfit.append(error)
            continue
        commits.append(str(found))
        for name, paths in groups.items():
            row = rows.get(f"{found.name}/{name}", rows.get(found.name, {}))
            if labels is not None and not row:
                unfit.append(Unfit("labels", f"{found.name}/{name} has no row in {labels}: add one"))
                continue
            files.append(_StateDictFile(f"{found.name}@{found.commit}/{name}", paths, row))
    candidates = _candidates(files, unfit)
    reader = StateDicts([file.paths for file in files], topology, part)
    name = " ".join(commits)
    return ForeignZoo(name, candidates, lambda _, c: reader.read(c.place), unfit=unfit, notes=reader.notes)


def _fetched(target: str, cache: Path | None) -> tuple[Repository, dict[str, tuple[Path, ...]]]:
    """A repository, and the local files of each network in it by the name of its (first) file."""
    groups: dict[str, list[str]] = {}
    try:
        found = repository(target)
        for name in found.files:
            if name.endswith(".safetensors"):
                groups.setdefault(re.sub(r"-\d{5}-of-\d{5}(?=\.safetensors$)", "", name), []).append(name)
        fetched = {name: tuple(found.fetch(part, cache) for part in parts) for name, parts in groups.items()}
    except HubError as error:
        raise Unfit("missing", f"{target}: {error}") from None
    if not fetched:
        raise Unfit("missing", f"{target} holds no safetensors file: others are not fetched, as they may hold code")
    return found, fetched
