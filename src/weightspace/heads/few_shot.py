"""A behaviour from a few labelled heads: what the reader knows of it, or of others, moved by the labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from weightspace.heads.behaviour import Behaviour
from weightspace.heads.fingerprint import Fingerprints
from weightspace.heads.head_reader import FURTHEST, READ, HeadReader
from weightspace.heads.logistic import expit, fit_weights


class Prior(NamedTuple):
    """What is believed before any label; chosen on heads of small models, see `weightspace heads train`.

    Attributes:
        own: weight of the reader's own log-odds of the behaviour.
        read: standard deviation of the weights of all log-odds of the reader.
        columns: of the weights of columns, in the mean.
    """

    own: float = 1.0
    read: float = 0.5
    columns: float = 0.3


PRIOR = Prior()


def few_shot(
    reader: HeadReader,
    found: Fingerprints,
    chosen: np.ndarray,
    labels: np.ndarray,
    behaviour: Behaviour | None = None,
    *,
    without: Behaviour | None = None,
    prior: Prior = PRIOR,
) -> np.ndarray:
    """Scores of all heads after a few labels.

    A logistic regression on what the reader says of each of its behaviours and on the columns themselves, all in
    deviations of this model's heads. Weights have normal priors: of columns wider where they matter to the behaviours
    that the reader knows; of the reader's own log-odds of this behaviour, where it is one of them, around `prior.own`.

    Args:
        chosen: (k,) places of labelled heads among the fingerprints.
        labels: (k,) 0 or 1; both kinds count alike.
        behaviour: which one of the reader's, or None for another.
        without: a behaviour of the reader's that is treated as if it were not.
    Returns:
        (heads,) from 0 to 1.
    """
    known = [place for place, name in enumerate(READ) if name != without]
    said = _standard(reader.log_odds(found).mean(0)[:, known])
    columns = _standard(found.rows[:, [found.names.index(name) for name in reader.names]].numpy())
    matter = np.square(reader.weights.mean(0)[known, :-1]).mean(0)
    widths = prior.columns * np.sqrt((1 + matter / matter.mean()) / 2)
    start = np.zeros(said.shape[1] + columns.shape[1] + 1)
    if behaviour is not None:
        start[known.index(READ.index(behaviour))] = prior.own
    rows = np.concatenate((said, columns), 1)
    spread = np.concatenate((np.full(said.shape[1], prior.read), widths))
    counts = np.where(labels == 1, (labels == 0).sum() / max(int((labels == 1).sum()), 1), 1.0)
    weights = fit_weights(rows[chosen], labels.astype(np.float64), counts=counts, prior=start, spread=spread)
    return expit(rows @ weights[:-1] + weights[-1])


def _standard(rows: np.ndarray) -> np.ndarray:
    return np.clip((rows - rows.mean(0)) / (rows.std(0) + 1e-6), -FURTHEST, FURTHEST)
