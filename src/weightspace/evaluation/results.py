"""What a comparison found: one record, its JSON form, who is ahead, and a table for the terminal."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from weightspace.evaluation.record_reading import ResultsError, mapping, number, only, sequence
from weightspace.evaluation.single_answers import SingleAnswers
from weightspace.files.atomic import write_atomically
from weightspace.notebook import card

META_MODEL = "meta-model"
"""The name under which a comparison lists the meta-model; the report singles it out."""

_Record = TypeVar("_Record")


@dataclass(frozen=True, kw_only=True)
class Row:
    """How one predictor did on one target.

    Attributes:
        target: what was asked, such as "activation".
        predictor: who answered, such as "meta-model" or "statistics + LightGBM".
        accuracy: share of test networks answered correctly, 0 to 1.
        low, high: its 95% interval; `low <= accuracy <= high`.
        chance: accuracy of guessing uniformly among the classes, 0 to 1.
        majority: accuracy of always giving the commonest training label, 0 to 1.
        n: test networks scored, at least 1.
        seconds_fit: wall-clock seconds to fit, if measured.
        seconds_predict: wall-clock seconds to answer for all test networks, if measured.
        parameters: numbers the predictor learned, if counted.
    """

    target: str
    predictor: str
    accuracy: float
    low: float
    high: float
    chance: float
    majority: float
    n: int
    seconds_fit: float | None = None
    seconds_predict: float | None = None
    parameters: int | None = None

    def __post_init__(self) -> None:
        where = f"the row of predictor {self.predictor!r} on target {self.target!r}"
        if not self.target or not self.predictor:
            raise ResultsError(f"{where} has an empty name")
        if not 0 <= self.low <= self.accuracy <= self.high <= 1:
            raise ResultsError(
                f"{where} has accuracy {self.accuracy} in [{self.low}, {self.high}]: "
                "it must be 0 <= low <= accuracy <= high <= 1"
            )
        if not (0 <= self.chance <= 1 and 0 <= self.majority <= 1):
            raise ResultsError(
                f"{where} has chance {self.chance} and majority {self.majority}: they must be from 0 to 1"
            )
        if self.n < 1:
            raise ResultsError(f"{where} counts {self.n} networks: it must be at least 1")
        # `not >= 0` also refuses a NaN, which JSON could not hold
        for name in ("seconds_fit", "seconds_predict", "parameters"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ResultsError(f"{where} has {name} {value}: it must be 0 or more")

    @property
    def above_floor(self) -> bool:
        """Whether the whole interval lies above chance and above the majority answer."""
        return self.low > max(self.chance, self.majority)


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Where training stood after `step` optimiser steps; None where not measured.

    Attributes:
        step: 0 or more.
        training_loss: mean loss on training networks, nats.
        validation_loss: mean loss on validation networks, nats.
        validation_accuracy: share of validation networks answered correctly, 0 to 1.
    """

    step: int
    training_loss: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Test networks by truth and answer.

    Attributes:
        classes: their names, in the order of rows and columns.
        matrix: (classes, classes) counts; row = truth, column = answer.
        predictor: whose answers they are.
    """

    classes: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]
    predictor: str

    def __post_init__(self) -> None:
        size = len(self.classes)
        if size == 0 or [len(row) for row in self.matrix] != [size] * size:
            shape = f"{len(self.matrix)} rows of lengths {sorted({len(row) for row in self.matrix})}"
            raise ResultsError(f"a confusion matrix has {shape} for {size} classes: it must be square")
        if any(count < 0 for row in self.matrix for count in row):
            raise ResultsError("a confusion matrix holds a negative count")


@dataclass(frozen=True, kw_only=True)
class Results:
    """A whole comparison: predictors side by side on the same test networks of one zoo.

    Attributes:
        task: the name of the task, such as "hyperparameters".
        rows: at least one; no two of one target and predictor. Their order is the order of display.
        zoo: JSON-serialisable facts about the population: "recipe", "networks", "trained", "dropped"
            (reason to count), and counts of what it holds.
        accuracies: final test accuracy of every base network, 0 to 1.
        curves: how training went, by predictor.
        confusion: by target.
        examples: single answers, each a flat JSON-serialisable mapping; the report makes them a table.
        answers: what each predictor said of each test network, by target; left out where they are many.
        provenance: JSON-serialisable facts that let somebody make it again: "version", "commit", "seed",
            "command", "hardware", "date", "seconds".
    """

    task: str
    rows: tuple[Row, ...]
    zoo: Mapping[str, Any] = field(default_factory=dict)
    accuracies: tuple[float, ...] = ()
    curves: Mapping[str, tuple[CurvePoint, ...]] = field(default_factory=dict)
    confusion: Mapping[str, Confusion] = field(default_factory=dict)
    examples: tuple[Mapping[str, Any], ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    answers: Mapping[str, SingleAnswers] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.rows:
            raise ResultsError(f"the comparison {self.task!r} has no rows")
        seen: set[tuple[str, str]] = set()
        for row in self.rows:
            if (row.target, row.predictor) in seen:
                raise ResultsError(f"two rows are of predictor {row.predictor!r} on {row.target!r}")
            seen.add((row.target, row.predictor))
        if not all(0 <= accuracy <= 1 for accuracy in self.accuracies):
            raise ResultsError("accuracies of base networks must be from 0 to 1")

    def __repr__(self) -> str:
        """In one line; `str` is the table."""
        predictors = len({row.predictor for row in self.rows})
        return f"<Results {self.task!r}: {predictors} predictors on {', '.join(self.targets)}>"

    def __str__(self) -> str:
        return format_table(self)

    def _repr_html_(self) -> str:
        rows = [
            (row.target, row.predictor, percent(row.accuracy), f"{100 * row.low:.1f} - {100 * row.high:.1f}", row.n)
            for row in self.rows
        ]
        header = ("target", "predictor", "accuracy", "95% interval", "networks")
        return card(self.task, {}, header=header, rows=rows, most=40)

    @property
    def targets(self) -> dict[str, tuple[Row, ...]]:
        """The rows of each target, in the order in which targets first appear."""
        names = dict.fromkeys(row.target for row in self.rows)
        return {name: tuple(row for row in self.rows if row.target == name) for name in names}

    def to_json(self) -> dict[str, Any]:
        """Plain lists and dictionaries from which `from_json` makes an equal record; empty parts left out."""
        record: dict[str, Any] = {
            "task": self.task,
            "rows": [_without_none(row) for row in self.rows],
            "zoo": dict(self.zoo),
            "accuracies": list(self.accuracies),
            "curves": {name: [_without_none(point) for point in points] for name, points in self.curves.items()},
            "confusion": {
                target: {
                    "classes": list(confusion.classes),
                    "matrix": [list(row) for row in confusion.matrix],
                    "predictor": confusion.predictor,
                }
                for target, confusion in self.confusion.items()
            },
            "examples": [dict(example) for example in self.examples],
            "provenance": dict(self.provenance),
            "answers": {target: answers.to_json() for target, answers in self.answers.items()},
        }
        return {key: value for key, value in record.items() if value or key in ("task", "rows")}

    @staticmethod
    def from_json(record: Any) -> Results:
        """The inverse of `to_json`.

        Raises:
            ResultsError: if the record is not one that `to_json` makes; one sentence says where.
        """
        top = mapping(record, "the record")
        only(top, [f.name for f in dataclasses.fields(Results)], "the record")
        if not isinstance(top.get("task"), str):
            raise ResultsError("the record has no text 'task'")
        return Results(
            task=top["task"],
            rows=tuple(_read(Row, row, f"row {i}") for i, row in enumerate(sequence(top.get("rows"), "'rows'"))),
            zoo=mapping(top.get("zoo", {}), "'zoo'"),
            accuracies=tuple(
                number(value, float, f"accuracy {i}")
                for i, value in enumerate(sequence(top.get("accuracies", []), "'accuracies'"))
            ),
            curves={
                name: tuple(
                    _read(CurvePoint, point, f"point {i} of curve {name!r}")
                    for i, point in enumerate(sequence(points, f"curve {name!r}"))
                )
                for name, points in mapping(top.get("curves", {}), "'curves'").items()
            },
            confusion={
                target: _read_confusion(confusion, f"the confusion of {target!r}")
                for target, confusion in mapping(top.get("confusion", {}), "'confusion'").items()
            },
            examples=tuple(
                mapping(example, f"example {i}")
                for i, example in enumerate(sequence(top.get("examples", []), "'examples'"))
            ),
            provenance=mapping(top.get("provenance", {}), "'provenance'"),
            answers={
                target: SingleAnswers.from_json(answers, f"the single answers about {target!r}")
                for target, answers in mapping(top.get("answers", {}), "'answers'").items()
            },
        )

    def save(self, path: str | Path) -> None:
        """Write the record as a JSON file, which appears whole or not at all.

        Raises:
            ResultsError: if it holds something that JSON does not, such as an array or a NaN.
        """
        try:
            text = json.dumps(self.to_json(), indent=1, allow_nan=False, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise ResultsError(f"the results cannot be written as JSON: {error}") from error
        write_atomically(Path(path), (text + "\n").encode())

    @staticmethod
    def load(path: str | Path) -> Results:
        """Read a file that `save` wrote.

        Raises:
            ResultsError: if the file is missing, is no JSON, or holds no such record; one sentence names
                the file and the fault.
        """
        try:
            return Results.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise ResultsError(f"{path} cannot be read: {error.strerror}") from error
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ResultsError(f"{path} is no JSON file: {error}") from error
        except ResultsError as error:
            raise ResultsError(f"{path} holds no comparison: {error}") from error


def leaders(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Rows of one target that cannot be told from the best: the best first, then those whose interval reaches it.

    One that is not itself above chance and the majority answer leads nobody, however wide the intervals.

    One row alone is a clear winner. Overlap is the careful rule: intervals that do not overlap differ for
    sure (at 95%), intervals that overlap may still differ.
    """
    ranked = sorted(rows, key=lambda row: -row.accuracy)
    return tuple(row for row in ranked if row is ranked[0] or (row.above_floor and row.high >= ranked[0].low))


def percent(share: float) -> str:
    """A share from 0 to 1 as "91.5%"."""
    return f"{100 * share:.1f}%"


_COLUMNS = {"accuracy": 8, "interval": 12, "chance": 6, "majority": 8, "n": 7}


def format_table(results: Results, width: int = 80) -> str:
    """A table for a terminal or a file: a block for each target, a line for each predictor.

    Marks: `*` on a predictor ahead of all others; `~` on several that lead and that the intervals do not
    tell apart. Neither is given where the best is not above chance and the majority answer: a line says so.

    Args:
        results: what was found.
        width: columns, at least 60; longer names are wrapped.
    Returns:
        Lines of at most `width` columns, without colour or control codes: the same on a screen and in a file.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, force_terminal=False, emoji=False)
    marks: set[str] = set()
    console.print(Text(f"{results.task}: accuracy, with 95% intervals"))
    for target, rows in results.targets.items():
        first, *rest = leaders(rows)
        mark = "" if not first.above_floor else "~" if rest else "*"
        marks.add(mark)
        marked = {row.predictor for row in (first, *rest)} if mark else set()
        # plain columns, no box: a frame of line-drawing characters breaks in an ASCII log
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
        # widths of the longest entries, so that the blocks stand under each other
        table.add_column("", width=1)
        table.add_column("predictor", overflow="fold", width=width - 57)
        for name, columns in _COLUMNS.items():
            table.add_column(name, justify="right", no_wrap=True, width=columns)
        for row in rows:
            table.add_row(
                mark if row.predictor in marked else "",
                Text(row.predictor),
                percent(row.accuracy),
                f"{100 * row.low:.1f} - {100 * row.high:.1f}",
                percent(row.chance),
                percent(row.majority),
                f"{row.n}",
            )
        console.print()
        console.print(Text(target))
        console.print(table)
        if not mark:
            console.print("No predictor is clearly above chance and the majority answer.")
    console.print()
    if "*" in marks:
        console.print("* ahead of every other predictor: the intervals do not overlap")
    if "~" in marks:
        console.print("~ leading together: the intervals overlap, so none of these is called the best")
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip() + "\n"


def _without_none(record: Row | CurvePoint) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(record).items() if value is not None}


def _read(kind: type[_Record], record: Any, where: str) -> _Record:
    """A flat dataclass of texts and numbers from its JSON form."""
    values = mapping(record, where)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    only(values, list(fields), where)
    hints = get_type_hints(kind)
    read: dict[str, Any] = {}
    for name, described in fields.items():
        value = values.get(name)
        if value is None and described.default is None:
            continue
        if value is None:
            raise ResultsError(f"{where} has no {name!r}")
        if hints[name] is str:
            if not isinstance(value, str):
                raise ResultsError(f"{where}: {name!r} is {value!r}, it must be text")
            read[name] = value
        else:
            wanted = int if hints[name] in (int, int | None) else float
            read[name] = number(value, wanted, f"{where}: {name!r}")
    return kind(**read)


def _read_confusion(record: Any, where: str) -> Confusion:
    values = mapping(record, where)
    only(values, ["classes", "matrix", "predictor"], where)
    classes = tuple(sequence(values.get("classes"), f"'classes' of {where}"))
    if not all(isinstance(name, str) for name in (*classes, values.get("predictor"))):
        raise ResultsError(f"{where}: 'predictor' and every class must be text")
    matrix = sequence(values.get("matrix"), f"'matrix' of {where}")
    return Confusion(
        classes=classes,
        matrix=tuple(
            tuple(number(count, int, where) for count in sequence(row, f"a row of {where}")) for row in matrix
        ),
        predictor=values["predictor"],
    )
