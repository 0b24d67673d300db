"""What an importer gives: networks of a foreign zoo with their labels, and their weights, one at a time, when asked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from weightspace.errors import WeightspaceError
from weightspace.weights.spec import Leaf, NetworkSpec, plain
from weightspace.zoo.records import Architecture

Reason = Literal["code", "unreadable", "which", "not finite", "shape", "missing", "labels", "twice", "duplicate"]
REASONS: dict[Reason, str] = {
    "code": "refused, as it would run code",
    "unreadable": "torn, or of no kind that is read",
    "which": "with several networks, of which one has to be named",
    "not finite": "with NaN or infinite weights",
    "shape": "of another shape than expected",
    "missing": "named and not there",
    "labels": "without labels",
    "twice": "named twice",
    "duplicate": "with the weights of another network",
}
"""Why something is not imported, in words."""
MEASURES = (
    *("train_loss", "train_accuracy", "test_loss", "test_accuracy"),
    *("validation_loss", "validation_accuracy"),
)
"""What is known of a checkpoint and is no label."""


class SourceError(WeightspaceError):
    """A source of which nothing can be imported; a sentence."""


class Unfit(WeightspaceError):
    """One network, checkpoint or file that cannot be imported, while the others can; a sentence."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason: Reason = reason


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint of a network, before its weights are read.

    Attributes:
        epoch: after which it was stored.
        place: where it lies, as its reader understands it.
        measures: what is known of it alone, such as `test_accuracy`.
    """

    epoch: int
    place: Any
    measures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ForeignNetwork:
    """A network of a source, before its weights are read.

    Attributes:
        name: what the source calls it, unique there.
        labels: its hyperparameters and whatever else is true of all its checkpoints.
        checkpoints: at least one.
        split: of `store.SPLITS`, where the source's own splits are kept; None for one that we draw.
    """

    name: str
    labels: Mapping[str, Any]
    checkpoints: tuple[Checkpoint, ...]
    split: str | None = None


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of a checkpoint: (spec.size,) float32, and how to run them, where that is known."""

    spec: NetworkSpec
    flat: np.ndarray
    architecture: Architecture | None = None


@dataclass(frozen=True, eq=False)
class ForeignZoo:
    """A foreign zoo whose labels were read and whose weights were not.

    Attributes:
        name: of the source, as it goes into the description of the zoo.
        candidates: its networks.
        read: the weights of a checkpoint of one; raises `Unfit` where it has none that can be used.
        images: the image set that all were trained on, where it is known.
        unfit: what was found to be of no use already.
        notes: what the person who imports should know, a sentence each.
    """

    name: str
    candidates: Sequence[ForeignNetwork]
    read: Callable[[ForeignNetwork, Checkpoint], Weights]
    images: str = "unknown"
    unfit: Sequence[Unfit] = ()
    notes: Sequence[str] = ()


def flat_spec(size: int) -> NetworkSpec:
    """The spec of weights of which only the number is known: one array, no neurons."""
    return NetworkSpec((Leaf("weights", (size,), "other", (plain(size),), "float32"),), ())


def number(value: Any) -> float | None:
    """A finite number, or a text that is one, as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def of_one_type(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Records with every key in each, and the values of each key of one type, as a column of the index needs them.

    True and False, whole numbers, numbers or text; what is neither, and what is of several kinds, becomes JSON text.
    Empty text, NaN, infinity and what is not there become None.
    """
    names = list(dict.fromkeys(name for record in records for name in record))
    made: list[dict[str, Any]] = [{} for _ in records]
    for name in names:
        values = [_present(record.get(name)) for record in records]
        for record, value in zip(made, _of_one_type(values), strict=True):
            record[name] = value
    return made


def _of_one_type(values: Sequence[Any]) -> Sequence[Any]:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    too_long = kinds == {int} and any(value is not None and abs(value) >= 2**63 for value in values)
    if too_long or len(kinds) > 1 or not kinds <= {bool, int, float, str}:
        return [None if value is None else _text(value) for value in values]
    return values


def _present(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):  # half of a surrogate pair, which JSON may hold, is no text that can be stored
        return value.encode("utf-8", "backslashreplace").decode() or None
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


@dataclass(frozen=True, eq=False)
class LabelTable:
    """A CSV file: its columns as Arrow arrays, each of one type."""

    path: Path
    columns: Mapping[str, Any]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def row(self, place: int, names: Iterable[str] | None = None) -> dict[str, Any]:
        """A row by name of column, or what it has in some of them; None where it is empty."""
        return {name: self.columns[name][place].as_py() for name in (self.columns if names is None else names)}


def read_table(path: Path, required: Sequence[str] = (), texts: Sequence[str] = ()) -> LabelTable:
    """A CSV file, also one that is compressed by gzip.

    A column is of whole numbers, numbers, True and False, or text. Empty cells, NA and NaN are missing values. A column
    without a name, as pandas writes its index, is left out.

    Args:
        required: columns that it must have.
        texts: columns that stay text, whatever is in them, such as names of files.
    Raises:
        SourceError: if it is missing, torn or empty, or lacks a column.
    """
    import pyarrow as pa
    from pyarrow import csv

    try:
        with csv.open_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True)) as opened:
            names = opened.schema.names
        options = csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=True,
            null_values=[""],
        )
        table = csv.read_csv(path, convert_options=options, parse_options=csv.ParseOptions(newlines_in_values=True))
    except FileNotFoundError:
        raise SourceError(f"there is no file {path}: it should have the labels, one row a network") from None
    except (OSError, ValueError, EOFError) as error:
        what = str(error).split("\n")[0][:200]
        raise SourceError(f"{path} is torn or no CSV file ({what}): restore it, with a first row of names") from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SourceError(f"{path} has two columns named {twice[0]!r}: give each its own name")
    for name in required:
        if name not in names:
            raise SourceError(f"{path} has no column {name!r}, which must be there; it has {', '.join(names)}")
    if table.num_rows == 0:
        raise SourceError(f"{path} has no rows: it should have one a network, under a row of names")
    columns = {name: table.column(name).combine_chunks() for name in names if name}
    return LabelTable(path, {name: column if name in texts else _typed(column) for name, column in columns.items()})


def _typed(column: Any) -> Any:
    """A column of text as whole numbers, numbers or truth values, where all of it can be read so."""
    import pyarrow as pa
    from pyarrow import compute

    absent = compute.is_in(column, pa.array(["NA", "N/A", "NaN", "nan", "null", "NULL"]))  # pyright: ignore[reportAttributeAccessIssue]
    column = compute.if_else(absent, None, column)  # pyright: ignore[reportAttributeAccessIssue]
    if column.null_count == len(column):
        return column
    for kind in (pa.int64(), pa.float64()):
        try:
            return column.cast(kind)
        except pa.ArrowInvalid:
            continue
    if set(column.unique().to_pylist()) <= {"True", "False", "true", "false", "TRUE", "FALSE", None}:
        return column.cast(pa.bool_())
    return column
