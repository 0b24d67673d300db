"""State dicts in folders and in repositories of the Hugging Face hub, with a table of labels, as a foreign zoo."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.errors import UnreadableError
from weightspace.files.checkpoints import SUFFIXES, Outline, outlines, read
from weightspace.files.hub import SCHEME, HubError, Repository, repository
from weightspace.weights.spec import NetworkSpec, SpecError
from weightspace.weights.state_dict import Topology, natural_order, spec_of_state_dict
from weightspace.zoo.importers.foreign import (
    MEASURES,
    Checkpoint,
    ForeignNetwork,
    ForeignZoo,
    LabelTable,
    SourceError,
    Unfit,
    Weights,
    number,
    read_table,
)

_CONTROL = ("file", "name", "network", "epoch")
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


# -- one file ---------------------------------------------------------------------------------------------------------


def largest_state_dict(path: Path) -> Outline:
    """The largest state dict in a file of any kind that `files.checkpoints` reads; nothing in it is executed.

    Raises:
        Unfit: if it is missing, torn, without floating-point arrays, or refused as it would run code.
    """
    try:
        found = outlines(path)[0]
    except UnreadableError as error:
        reason = "code" if "is refused" in str(error) else "unreadable" if path.is_file() else "missing"
        raise Unfit(reason, str(error)) from None
    except Exception as error:  # a file can be wrong in ways that nobody thought of, and must not stop the others
        what = " ".join(str(error).split())[:120]
        raise Unfit("unreadable", f"{path} could not be read ({type(error).__name__}: {what})") from None
    if not any(np.prod(shape) for shape in found.floating.values()):
        raise Unfit("unreadable", f"{path} holds no array of floating-point numbers: give a file of weights")
    return found


def read_arrays(outline: Outline) -> tuple[list[str], list[np.ndarray]]:
    """Names of the floating-point arrays of a state dict in natural order, and the arrays as float32.

    Raises:
        Unfit: if the file cannot be read any more.
    """
    names = natural_order(name for name, shape in outline.floating.items() if np.prod(shape))
    try:
        arrays = read(outline, names)
    except UnreadableError as error:
        raise Unfit("unreadable", str(error)) from None
    except Exception as error:  # see above: PyTorch maps files lazily, so what is torn may show only here
        raise Unfit("unreadable", f"{outline.path} could not be read ({type(error).__name__})") from None
    return names, [arrays[name] for name in names]


@lru_cache(maxsize=256)
def _spec(arrays: tuple[tuple[str, tuple[int, ...], str], ...], topology: Topology) -> NetworkSpec:
    shapes = {name: shape for name, shape, _ in arrays}
    return spec_of_state_dict(shapes, topology=topology, dtypes={name: dtype for name, _, dtype in arrays})


def _read_files(paths: Sequence[Path], topology: Topology) -> Weights:
    """A network whose state dict lies in one file, or in several that share it out."""
    described: dict[str, tuple[tuple[int, ...], str]] = {}
    arrays: dict[str, np.ndarray] = {}
    for path in paths:
        outline = largest_state_dict(path)
        for name, array in zip(*read_arrays(outline), strict=True):
            if name in arrays:
                raise Unfit("shape", f"{path} holds the array {name!r}, which another part of the network has too")
            arrays[name] = array
            described[name] = (array.shape, _DTYPES[outline.dtypes[name]])
    names = natural_order(arrays)
    try:
        spec = _spec(tuple((name, *described[name]) for name in names), topology)
    except SpecError as error:
        raise Unfit("shape", f"{paths[0]} does not fit topology {topology}: {error}") from None
    return Weights(spec, np.concatenate([arrays[name].ravel() for name in names]))


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


def state_dict_folder(folder: Path, labels: Path | None = None, topology: Topology = "unknown") -> ForeignZoo:
    """Files of state dicts below a folder, and a CSV file of labels.

    The files are such as `files.checkpoints` reads: safetensors, PyTorch's, ONNX; of several state dicts in one file
    the largest is taken. The CSV has `file`, a path below the folder, or `name`, the same without the ending; `network`
    where several files are checkpoints of one, with `epoch`; every other column is a label, but for losses and
    accuracies.

    Args:
        labels: the CSV file; the only one in the folder unless given.
        topology: how the arrays of all networks are connected, see `weights.state_dict`.
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
    files: dict[Path, _StateDictFile] = {}
    for place in range(len(table)):
        row = table.row(place)
        try:
            path = _named(folder, row[key], f"row {place + 1} of {labels}")
            if path in files:
                raise Unfit("twice", f"row {place + 1} of {labels} names {row[key]} again: leave one row a file")
            files[path] = _StateDictFile(path.relative_to(folder).as_posix(), (path,), row)
        except Unfit as error:
            unfit.append(error)
    for path in there:
        if path not in files:
            unfit.append(Unfit("labels", f"{path} has no row in {labels.name}: add one, or take the file away"))
    candidates = _candidates(list(files.values()), unfit)
    return ForeignZoo(folder.resolve().name, candidates, lambda _, c: _read_files(c.place, topology), unfit=unfit)


def _named(folder: Path, name: str | None, where: str) -> Path:
    """The file below the folder that a row names."""
    if name is None:
        raise Unfit("labels", f"{where} names no file: fill it in")
    path = folder / name
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise Unfit("missing", f"{where} names {name}, which leads out of the folder: give a path below {folder}")
    if path.is_file():
        return path
    for suffix in SUFFIXES:
        if (found := path.with_name(path.name + suffix)).is_file():
            return found
    raise Unfit("missing", f"{where} names {name}, and there is no such file in {folder}: put it there")


# -- the hub ----------------------------------------------------------------------------------------------------------


def hub_repositories(
    targets: Sequence[str],
    labels: Path | None = None,
    topology: Topology = "unknown",
    cache: Path | None = None,
) -> ForeignZoo:
    """The safetensors files of repositories of the Hugging Face hub, each a network; nothing else is fetched.

    The commit is pinned before anything is fetched. Files that share out one network (`-00001-of-00003`) are one.

    Args:
        targets: hf://OWNER/NAME or hf://OWNER/NAME@REVISION each.
        labels: a CSV file as for `state_dict_folder`, its `file` OWNER/NAME or OWNER/NAME/FILE; no labels unless given.
        cache: where files are kept; the hub's own cache unless given.
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
    return ForeignZoo(" ".join(commits), candidates, lambda _, c: _read_files(c.place, topology), unfit=unfit)


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
