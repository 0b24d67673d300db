"""Logistic regression towards given weights: what is known before, moved by few examples."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize


def fit_weights(
    rows: np.ndarray,
    targets: np.ndarray,
    *,
    counts: np.ndarray | float = 1.0,
    prior: np.ndarray | None = None,
    spread: np.ndarray | float = 1.0,
) -> np.ndarray:
    """The most probable weights under a normal prior, the constant last.

    Args:
        rows: (n, columns), standardised.
        targets: (n,) probabilities from 0 to 1; a label is 0 or 1.
        counts: how often each row counts.
        prior: (columns + 1,) mean of the prior; zeros unless given.
        spread: standard deviations of the prior, of each column or of all; the constant's is 10.
    Returns:
        (columns + 1,): `rows @ found[:-1] + found[-1]` are log-odds.
    """
    columns = rows.shape[1]
    start = np.zeros(columns + 1) if prior is None else np.asarray(prior, np.float64)
    widths = np.append(np.broadcast_to(spread, columns), 10.0)
    scaled = np.concatenate((rows, np.ones((len(rows), 1))), 1) * widths  # in units of the prior
    offset = np.concatenate((rows, np.ones((len(rows), 1))), 1) @ start

    def loss(change: np.ndarray) -> tuple[float, np.ndarray]:
        odds = offset + scaled @ change
        value = np.sum(counts * (np.logaddexp(0, odds) - targets * odds)) + change @ change / 2
        return float(value), scaled.T @ (counts * (expit(odds) - targets)) + change

    found = minimize(loss, np.zeros(columns + 1), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return start + widths * found.x


def expit(odds: np.ndarray) -> np.ndarray:
    """Probabilities of log-odds."""
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -60, 60))))
