"""The reader of heads: from the fingerprint of a head, out of its weights alone, to scores of its behaviours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import save

import weightspace
from weightspace.errors import NetworkError
from weightspace.files.atomic import write_atomically
from weightspace.files.tensors import read_safetensors
from weightspace.heads.behaviour import THRESHOLDS, Behaviour
from weightspace.heads.fingerprint import Fingerprints
from weightspace.heads.logistic import expit, fit_weights

PRETRAINED = Path(weightspace.__file__).parent / "pretrained" / "head-reader.safetensors"
READ: tuple[Behaviour, ...] = ("previous", "induction", "duplicate", "current", "local", "sink", "copying")
"""What is read off weights; punctuation has no meaning in the languages of the small models."""
MEMBERS = 8
FURTHEST = 3.0
"""Standard deviations from the small models' mean at which a column of another model's head is cut off."""
_DESCRIPTION = "weightspace head reader"


@dataclass(frozen=True, eq=False)
class LabelledHeads:
    """Fingerprints of heads with what they do.

    Attributes:
        names: of the columns.
        rows: (heads, columns).
        scores: (heads, behaviours of `READ`), as measured.
        models: (heads,) the number of the model of each.
        heads: model, layer and head of each, in words.
    """

    names: tuple[str, ...]
    rows: np.ndarray
    scores: np.ndarray
    models: np.ndarray
    heads: tuple[str, ...]

    def targets(self) -> np.ndarray:
        """Scores as probabilities: 1/2 at a behaviour's threshold, 1 at twice it."""
        return soft_targets(self.scores)


@dataclass(frozen=True, eq=False)
class HeadReader:
    """Several logistic regressions, each of other small models.

    Attributes:
        names: of the columns that are read.
        mean, deviation: (columns,) of the small models' heads.
        weights: (members, behaviours, columns + 1), the constant last.
        known: the heads that it was trained on.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    deviation: np.ndarray
    weights: np.ndarray
    known: LabelledHeads

    def standard(self, names: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """Columns by name, in the small models' deviations, cut off at `FURTHEST`: (heads, columns)."""
        places = [tuple(names).index(name) for name in self.names]
        return np.clip((rows[:, places] - self.mean) / self.deviation, -FURTHEST, FURTHEST)

    def log_odds(self, found: Fingerprints) -> np.ndarray:
        """Of each member: (members, heads, behaviours)."""
        rows = self.standard(found.names, found.rows.numpy())
        return np.einsum("hc,mbc->mhb", rows, self.weights[..., :-1]) + self.weights[:, None, :, -1]

    def scores(self, found: Fingerprints) -> tuple[np.ndarray, np.ndarray]:
        """Scores from 0 to 1, and the standard deviation of what members say: both (heads, behaviours of `READ`)."""
        each = expit(self.log_odds(found))
        return expit(self.log_odds(found).mean(0)), each.std(0)

    def save(self, path: Path) -> None:
        """Write safetensors; the file appears whole or not at all."""
        arrays = {
            "mean": self.mean.astype(np.float32),
            "deviation": self.deviation.astype(np.float32),
            "weights": self.weights.astype(np.float32),
            "known.rows": self.known.rows.astype(np.float16),
            "known.scores": self.known.scores.astype(np.float16),
            "known.models": self.known.models.astype(np.int32),
        }
        said = {"names": self.names, "known names": self.known.names, "heads": self.known.heads, "behaviours": READ}
        write_atomically(path, save(arrays, {_DESCRIPTION: json.dumps(said)}))

    @classmethod
    def load(cls, path: Path | None = None) -> HeadReader:
        """The reader in a file, or the one that comes with the package.

        Raises:
            UnreadableError: if there is no such file, or it is damaged.
            NetworkError: if it is no reader of heads, or one of other behaviours.
        """
        where = path or PRETRAINED
        arrays, metadata = read_safetensors(where)
        try:
            said = json.loads(metadata[_DESCRIPTION])
            if tuple(said["behaviours"]) != READ:
                raise NetworkError(
                    f"{where} reads the behaviours {', '.join(said['behaviours'])}: expected {', '.join(READ)}"
                )
            known = LabelledHeads(
                names=tuple(said["known names"]),
                rows=arrays["known.rows"].astype(np.float64),
                scores=arrays["known.scores"].astype(np.float64),
                models=arrays["known.models"],
                heads=tuple(said["heads"]),
            )
            mean, deviation, weights = (arrays[name].astype(np.float64) for name in ("mean", "deviation", "weights"))
            return cls(tuple(said["names"]), mean, deviation, weights, known)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, NetworkError):
                raise
            raise NetworkError(f"{where} is no reader of heads: it lacks {error}") from None


@cache
def pretrained() -> HeadReader:
    """The reader that comes with the package."""
    return HeadReader.load()


def soft_targets(scores: np.ndarray) -> np.ndarray:
    """Scores (heads, behaviours of `READ`) as probabilities: 1/2 at a behaviour's threshold, 1 at twice it."""
    return np.clip(np.nan_to_num(scores) / (2 * np.array([THRESHOLDS[name] for name in READ])), 0, 1)


def train_reader(
    known: LabelledHeads,
    *,
    names: Sequence[str],
    spread: float,
    counts: np.ndarray | None = None,
    members: int = MEMBERS,
    seed: int = 0,
) -> HeadReader:
    """A reader of labelled heads.

    Args:
        counts: how often each head counts, 1 unless given.
        members: of which the reader is the mean; one alone sees every model once.
        names: of the columns that it reads.
        spread: standard deviation of the prior of every weight.
        seed: of which models each member sees: as many as there are, drawn with replacement.
    """
    random = np.random.default_rng(seed)
    rows = known.rows[:, [known.names.index(name) for name in names]]
    times = np.ones(len(rows)) if counts is None else counts
    mean = np.average(rows, axis=0, weights=times)
    deviation = np.sqrt(np.average(np.square(rows - mean), axis=0, weights=times)) + 1e-6
    standard = np.clip((rows - mean) / deviation, -FURTHEST, FURTHEST)
    targets, models = known.targets(), np.unique(known.models)
    weights = np.zeros((members, len(READ), len(names) + 1))
    for member in range(members):
        drawn = models if members == 1 else random.choice(models, len(models))
        chosen = np.concatenate([np.flatnonzero(known.models == model) for model in drawn])
        for place in range(len(READ)):
            weights[member, place] = fit_weights(
                standard[chosen], targets[chosen, place], counts=times[chosen], spread=spread
            )
    return HeadReader(tuple(names), mean, deviation, weights, known)
