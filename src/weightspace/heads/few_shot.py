"""A behaviour from a few labelled heads: what the reader knows of it, or of others, moved by the labels."""

from __future__ import annotations

import numpy as np

from weightspace.heads.behaviour import Behaviour
from weightspace.heads.fingerprint import Fingerprints
from weightspace.heads.head_reader import READ, HeadReader
from weightspace.heads.logistic import expit, fit_weights

OTHERS = 2.0
"""How far labels may move weights, in units of how large the reader's weights are; chosen on small models."""


def few_shot(
    reader: HeadReader,
    found: Fingerprints,
    chosen: np.ndarray,
    labels: np.ndarray,
    behaviour: Behaviour | None = None,
    *,
    without: Behaviour | None = None,
    stretch: float = OTHERS,
) -> np.ndarray:
    """Scores of all heads after a few labels.

    The prior of each weight is normal. Its spread is how much that column matters for the behaviours that the reader
    was trained on; its mean is the reader's own weight where the behaviour is one of them, and 0 where it is new.

    Args:
        chosen: (k,) places of labelled heads among the fingerprints.
        labels: (k,) 0 or 1.
        behaviour: which one of the reader's, or None for another.
        without: a behaviour of the reader's that is treated as if it were not.
    Returns:
        (heads,) from 0 to 1.
    """
    rows = reader.standard(found.names, found.rows.numpy())
    mean = reader.weights.mean(0)  # (behaviours, columns + 1)
    others = [place for place, name in enumerate(READ) if name not in (behaviour, without)]
    spread = stretch * np.sqrt(np.square(mean[others, :-1]).mean(0)) + 1e-3
    prior = np.zeros(rows.shape[1] + 1) if behaviour is None else mean[READ.index(behaviour)]
    weights = fit_weights(rows[chosen], labels.astype(np.float64), prior=prior, spread=spread)
    return expit(rows @ weights[:-1] + weights[-1])
