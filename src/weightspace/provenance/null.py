"""What likeness unrelated networks have: surrogates of a network, and the p-value of a likeness that was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from weightspace.provenance.filters import balanced_filters, group_entries
from weightspace.provenance.matching import match_filters
from weightspace.weights.spec import NetworkSpec

SURROGATES = 30
"""Surrogates whose likeness is measured for a pair."""
CONVERGENCE = (0.05, 0.05)
"""Mean and deviation of the excess likeness (`excess`) of unrelated networks: what like training makes alike."""
LEAST = 1e-4
"""Smallest p-value that is told: so many unrelated pairs were looked at, and no tail beyond them is known."""
FEWEST = 20
"""Candidates that a null of a folder's own needs."""


@dataclass(frozen=True)
class Null:
    """What likeness unrelated networks have.

    Attributes:
        kind: `surrogates` of one of the two networks, or `candidates` of a folder.
        mean, deviation: of their likeness.
        count: of them.
    """

    kind: Literal["surrogates", "candidates"]
    mean: float
    deviation: float
    count: int

    def p_value(self, likeness: float, looked_at: int = 1) -> float:
        """The chance that the most alike of so many unrelated networks is so alike, by a normal distribution.

        At least `LEAST`, and 1 where the null does not vary.
        """
        from scipy.stats import norm

        if self.deviation <= 0:
            return 1.0
        one = float(norm.sf((likeness - self.mean) / self.deviation))
        return min(1.0, max(LEAST, one * looked_at))


def surrogate_null(
    first: Float[np.ndarray, " size"], second: Float[np.ndarray, " size"], spec: NetworkSpec, *, seed: int = 0
) -> Null:
    """The likeness of unrelated networks, from surrogates of the second.

    A surrogate has each group of neurons replaced by as many random orthogonal mixtures of them, in all that they read
    and all that reads them: it keeps what the weights have in common, such as a preference for smooth filters, and has
    no neuron of the network. Networks that were trained alike are more alike than that, by features that all of them
    find: by `CONVERGENCE`, which was measured on unrelated networks.

    Args:
        first, second: balanced filters.
    """
    rng = np.random.default_rng(seed)
    found = [match_filters(first, surrogate(second, spec, rng), spec).likeness for _ in range(SURROGATES)]
    mean, deviation = float(np.mean(found)), float(np.std(found, ddof=1))
    shift, spread = CONVERGENCE
    return Null("surrogates", mean + shift * (1 - mean), float(np.hypot(deviation, spread * (1 - mean))), SURROGATES)


def surrogate(filters: Float[np.ndarray, " size"], spec: NetworkSpec, rng: np.random.Generator) -> np.ndarray:
    """Balanced filters of a network whose neurons are random mixtures of the given one's."""
    mixed = filters.copy()
    turns: dict[str, np.ndarray] = {}
    for entries in group_entries(spec):
        if entries.name not in turns:
            size = len(entries.places)
            turns[entries.name] = np.linalg.qr(rng.normal(size=(size, size)))[0].astype(np.float32)
        mixed[entries.places] = turns[entries.name] @ mixed[entries.places]
    return balanced_filters(mixed[None], spec)[0]


def excess(likeness: float, chance: float) -> float:
    """How far a likeness lies from that of surrogates towards that of the same network: 0 there, 1 here."""
    return (likeness - chance) / (1 - chance)


def candidate_null(likenesses: Float[np.ndarray, " n"]) -> Null | None:
    """The likeness of unrelated networks, from candidates drawn at random of whom most are unrelated.

    Median and median deviation, so that relatives among them do not count. None of fewer than `FEWEST`.
    """
    if len(likenesses) < FEWEST:
        return None
    middle = float(np.median(likenesses))
    deviation = 1.4826 * float(np.median(np.abs(likenesses - middle)))
    return Null("candidates", middle, deviation, len(likenesses))
