"""The reader of heads that comes with the package: trained on small models, its settings chosen among them alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.experiments.heads import area
from weightspace.heads.head_reader import FURTHEST, READ, LabelledHeads, train_reader
from weightspace.heads.labelling import labelled_heads
from weightspace.heads.logistic import fit_weights

COUNTED = ("previous", "induction", "duplicate", "current", "local")
SPREADS = (0.03, 0.1, 0.3)


def train_head_reader(zoo: Path, out: Path) -> dict[str, Any]:
    """Train on every model of a zoo, with the columns and the prior that leaving out one model at a time likes best.

    Returns:
        how many models and heads there were, how many had each behaviour, and the AUROC of every setting.
    """
    known = labelled_heads(zoo)
    sets = column_sets(known.names)
    tried = {(name, spread): left_out(known, sets[name], spread) for name, spread in product(sets, SPREADS)}
    best = max(tried, key=lambda setting: np.mean(list(tried[setting].values())))
    reader = train_reader(known, names=sets[best[0]], spread=best[1])
    reader.save(out)
    having = (known.targets() >= 0.5).sum(0)
    return {
        "models": len(np.unique(known.models)),
        "heads": len(known.rows),
        "with each behaviour": dict(zip(READ, having.tolist(), strict=True)),
        "AUROC, a model left out": {
            f"{name}, spread {spread:g}": {key: round(value, 3) for key, value in areas.items()}
            for (name, spread), areas in tried.items()
        },
        "chosen": f"{best[0]}, spread {best[1]:g}",
        "file": str(out),
        "bytes": out.stat().st_size,
    }


def column_sets(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Columns as they are, their ranks among the model's heads, or both."""
    half = len(names) // 2
    return {"numbers": tuple(names[:half]), "ranks": tuple(names[half:]), "both": tuple(names)}


def left_out(known: LabelledHeads, names: Sequence[str], spread: float) -> dict[str, float]:
    """AUROC over all heads, each scored by what was trained on the other models."""
    rows = known.rows[:, [known.names.index(name) for name in names]]
    targets = known.targets()
    scores = np.zeros_like(targets)
    for model in np.unique(known.models):
        test, train = known.models == model, known.models != model
        mean, deviation = rows[train].mean(0), rows[train].std(0) + 1e-6
        standard = np.clip((rows - mean) / deviation, -FURTHEST, FURTHEST)
        for place in range(len(READ)):
            weights = fit_weights(standard[train], targets[train, place], spread=spread)
            scores[test, place] = standard[test] @ weights[:-1] + weights[-1]
    found = {}
    for place, name in enumerate(READ):
        labels = (targets[:, place] >= 0.5).astype(int)
        if name in COUNTED and 0 < labels.sum() < len(labels):
            found[name] = area(scores[:, place], labels)
    return found
