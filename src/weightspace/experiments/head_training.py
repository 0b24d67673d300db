"""The reader of heads that comes with the package: trained on small models, its settings chosen among them alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from weightspace.experiments.heads import area
from weightspace.heads.few_shot import Prior, few_shot
from weightspace.heads.fingerprint import Fingerprints
from weightspace.heads.head_reader import READ, LabelledHeads, train_reader
from weightspace.heads.labelling import PLANTED, joined, labelled_heads, planted_heads

COUNTED = ("previous", "induction", "duplicate", "current", "local")
SPREADS = (0.1, 0.3)
COUNTS = (0.0, 0.1, 0.5)
"""How often a planted head counts, beside a trained one."""
PRIORS = tuple(Prior(own, 0.5, columns) for own in (1.0, 3.0) for columns in (0.1, 0.3, 1.0))
LABELLED = 3
PLANTED_MODELS = 40


def train_head_reader(zoo: Path, out: Path, *, planted: int = PLANTED_MODELS) -> dict[str, Any]:
    """Train on every model of a zoo and on planted ones; settings are those that do best on trained models left out.

    Returns:
        how many models and heads there were, how many had each behaviour, and the AUROC of every setting.
    """
    trained = labelled_heads(zoo)
    known = joined(trained, planted_heads(planted)) if planted else trained
    sets = column_sets(known.names)
    tried = {
        setting: left_out(known, sets[setting[0]], *setting[1:])
        for setting in product(sets, SPREADS, COUNTS if planted else (0.0,))
    }
    best = max(tried, key=lambda setting: _mean(list(tried[setting].values())))
    reader = train_reader(known, names=sets[best[0]], spread=best[1], counts=_counts(known, best[2]))
    reader.save(out)
    few = few_on_trained(known, sets[best[0]], best[1]) if planted else {}
    return {
        "trained models": len(np.unique(trained.models)),
        "their heads": len(trained.rows),
        "with each behaviour": _having(trained),
        "planted heads": len(known.rows) - len(trained.rows),
        "of them with each behaviour": _having(known, PLANTED),
        "AUROC, a trained model left out": {
            _words(setting): {name: round(value, 3) for name, value in areas.items()}
            for setting, areas in tried.items()
        },
        "chosen": _words(best),
        "few labels on trained heads, planted ones as prior": few,
        "file": str(out),
        "bytes": out.stat().st_size,
    }


def _mean(areas: Sequence[float]) -> float:
    """Their mean; 0 where no behaviour has heads of both kinds."""
    return float(np.mean(areas)) if areas else 0.0


def _words(setting: tuple[str, float, float]) -> str:
    return "{}, spread {:g}, planted count {:g}".format(*setting)


def _having(known: LabelledHeads, first: int = 0) -> dict[str, int]:
    return dict(zip(READ, (known.targets()[known.models >= first] >= 0.5).sum(0).tolist(), strict=True))


def _counts(known: LabelledHeads, planted: float) -> np.ndarray:
    return np.where(known.models >= PLANTED, planted, 1.0)


def column_sets(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Columns as they are, their ranks among the model's heads, or both."""
    half = len(names) // 2
    return {"numbers": tuple(names[:half]), "ranks": tuple(names[half:]), "both": tuple(names)}


def left_out(known: LabelledHeads, names: Sequence[str], spread: float, planted: float = 0.0) -> dict[str, float]:
    """AUROC over the heads of trained models, each scored by what was trained on all others.

    Args:
        planted: how often a planted head counts in training.
    """
    counts = _counts(known, planted)
    trained = np.unique(known.models[known.models < PLANTED])
    scores = np.zeros_like(known.scores)
    for model in trained:
        train = (known.models != model) & (counts > 0)
        reader = train_reader(_some(known, train), names=names, spread=spread, counts=counts[train], members=1)
        test = known.models == model
        rows = reader.standard(known.names, known.rows[test])
        scores[test] = rows @ reader.weights[0, :, :-1].T + reader.weights[0, :, -1]
    inside = known.models < PLANTED
    return {
        name: area(scores[inside, place], labels)
        for place, name in enumerate(READ)
        if name in COUNTED and 0 < (labels := _labels(known, place)[inside]).sum() < len(labels)
    }


def few_on_trained(known: LabelledHeads, names: Sequence[str], spread: float, *, draws: int = 20) -> dict[str, float]:
    """Mean AUROC on trained heads with three labels of each behaviour, by the prior; the reader knows planted heads."""
    planted = known.models >= PLANTED
    reader = train_reader(_some(known, planted), names=names, spread=spread, members=1)
    heads = Fingerprints(known.names, torch.from_numpy(known.rows[~planted]))
    random, found = np.random.default_rng(0), {}
    episodes = []
    for place, name in enumerate(READ):
        labels = _labels(known, place)[~planted]
        own, others = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
        if name in COUNTED and len(own) > LABELLED and len(others) > 3 * LABELLED:
            for _ in range(draws):
                some = random.choice(own, LABELLED, False), random.choice(others, 3 * LABELLED, False)
                chosen = np.concatenate(some)
                episodes.append((name, labels, chosen, np.setdiff1d(np.arange(len(labels)), chosen)))
    for prior in PRIORS:
        areas = [
            area(few_shot(reader, heads, chosen, labels[chosen], name, prior=prior)[test], labels[test])
            for name, labels, chosen, test in episodes
        ]
        found[f"own {prior.own:g}, columns {prior.columns:g}"] = round(_mean(areas), 4)
    return found


def _labels(known: LabelledHeads, place: int) -> np.ndarray:
    return (known.targets()[:, place] >= 0.5).astype(int)


def _some(known: LabelledHeads, chosen: np.ndarray) -> LabelledHeads:
    heads = tuple(name for name, inside in zip(known.heads, chosen, strict=True) if inside)
    return LabelledHeads(known.names, known.rows[chosen], known.scores[chosen], known.models[chosen], heads)
