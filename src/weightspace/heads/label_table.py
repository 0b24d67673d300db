"""Labels of heads as a CSV: a row a head, a column a behaviour."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from weightspace.errors import UnreadableError
from weightspace.files.atomic import write_atomically
from weightspace.heads.behaviour import BEHAVIOURS, HeadBehaviour
from weightspace.heads.reading import Labels, threshold_of

LARGEST = 16 * 2**20


def write_labels(found: HeadBehaviour, path: Path) -> None:
    """Every head's scores; what cannot be measured is left empty."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["layer", "head", *BEHAVIOURS])
    for layer, heads in enumerate(found.scores.tolist()):
        for head, scores in enumerate(heads):
            rows.writerow([layer, head, *("" if math.isnan(score) else f"{score:.4f}" for score in scores)])
    write_atomically(path, text.getvalue().encode())


def read_labels(path: Path) -> Labels:
    """Labels by behaviour: columns `layer`, `head`, and one for each behaviour, of any name.

    A number says yes from the behaviour's threshold on, or from 1/2 on where it is new; an empty cell says nothing.

    Raises:
        UnreadableError: if there is no such file, or it is no such table.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it is larger than {LARGEST:,} bytes")
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    except (OSError, ValueError, csv.Error) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableError(f"{path} holds no labels: {said.lower()}") from None
    columns = list(rows[0]) if rows else []
    if not {"layer", "head"} <= set(columns) or len(columns) < 3:
        raise UnreadableError(f"{path} holds no labels: expected the columns layer, head, and one for each behaviour")
    found: dict[str, dict[tuple[int, int], bool]] = {name: {} for name in columns if name not in ("layer", "head")}
    for number, row in enumerate(rows, 2):
        for name, labels in found.items():
            if not (value := (row[name] or "").strip()):
                continue
            try:
                labels[int(row["layer"]), int(row["head"])] = float(value) >= threshold_of(name)
            except (TypeError, ValueError):
                raise UnreadableError(f"line {number} of {path} says {name} {value!r}: expected numbers") from None
    return {name: labels for name, labels in found.items() if labels}
