"""What a run leaves to read: its history, `losses.csv`, and whatever trackers it is shown in."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from weightspace.files.atomic import write_atomically
from weightspace.train.trackers import Tracker

LOSSES = "losses.csv"
COLUMNS = ("step", "training_loss", "learning_rate", "gradient_norm", "seconds")
"""The columns of every row; `validation_...` columns join at the first evaluation, empty between evaluations."""


@dataclass(frozen=True)
class History:
    """What happened in a run, from its first step on, however often it was resumed.

    Attributes:
        steps: updates made.
        training_loss: the loss of each update, before it; `steps` numbers.
        evaluations: what `evaluate` gave, in order, each with `step`, the updates made before it.
        best_step: the `step` of the evaluation with the lowest loss, None where there was none.
        seconds: time spent training, evaluations and checkpoints included.
    """

    steps: int = 0
    training_loss: list[float] = field(default_factory=list)
    evaluations: list[dict[str, float | int]] = field(default_factory=list)
    best_step: int | None = None
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain lists and dictionaries, from which `History(**record)` makes an equal history."""
        return asdict(self)


class LossTable:
    """`losses.csv` in a folder: one row a step, on its way to the disk as soon as it is appended."""

    def __init__(self, folder: Path, done: int) -> None:
        """Open the table and drop what stands after step `done`, which a killed run wrote past its checkpoint."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / LOSSES
        self._write(*_read_until(self.path, done))

    def append(self, rows: Sequence[Mapping[str, object]]) -> None:
        new = tuple(dict.fromkeys(name for row in rows for name in row if name not in self.columns))
        if new:
            self._file.close()
            self._write((*self.columns, *new), _read_until(self.path, None)[1])
        csv.DictWriter(self._file, self.columns, lineterminator="\n").writerows(rows)
        self._file.flush()

    def sync(self) -> None:
        """Put every row on the disk: a checkpoint must never be ahead of the table."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _write(self, columns: tuple[str, ...], rows: Sequence[Mapping[str, object]]) -> None:
        """Replace the file by `rows` under `columns`, and open it for more."""
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path, text.getvalue().encode())
        self.columns = columns
        self._file = self.path.open("a", newline="")


def _read_until(path: Path, done: int | None) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """Columns and whole, consecutive rows of a table up to step `done`; COLUMNS and none if it is not one of ours."""
    if not path.is_file():
        return COLUMNS, []
    with path.open(newline="") as file:
        table = csv.DictReader(file)
        columns = tuple(table.fieldnames or ())
        if columns[: len(COLUMNS)] != COLUMNS:
            return COLUMNS, []
        rows: list[dict[str, str]] = []
        for row in table:
            # A kill may cut the last row short, and its step with it: 107 would come back as 1 or 10.
            whole = None not in row and None not in row.values() and row["step"].isdigit()
            if not whole or (rows and int(row["step"]) != int(rows[-1]["step"]) + 1):
                break
            if done is not None and int(row["step"]) > done:
                break
            rows.append(row)
    return columns, rows


class Log:
    """Where the rows of a run go: `losses.csv`, trackers, or nowhere without a folder."""

    def __init__(self, folder: Path | None, done: int, trackers: Sequence[Tracker] = ()) -> None:
        self._trackers = trackers
        self._table = LossTable(folder, done) if folder else None

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._table is not None:
            self._table.close()
        for tracker in self._trackers:
            tracker.close(kind is not None)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows, each with the keys of COLUMNS and possibly `validation_...`."""
        if self._table is not None:
            self._table.append(rows)
        for tracker in self._trackers:
            tracker.write(rows)

    def sync(self) -> None:
        if self._table is not None:
            self._table.sync()
        for tracker in self._trackers:
            tracker.flush()
