"""What reading heads is held against: depth, one number, raw weights, vocabulary scores, and running the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from weightspace.heads.behaviour import BEHAVIOURS, HeadInputs, head_behaviour, repeated_texts
from weightspace.heads.fingerprint import Fingerprints
from weightspace.heads.rewrites import rewritten_layer, transformer_of
from weightspace.transformers.trained import TrainedTransformer
from weightspace.transformers.weights import LayerWeights

if TYPE_CHECKING:
    from weightspace.experiments.heads import Task

    Method = Callable[[np.ndarray, np.ndarray, Task], np.ndarray]


def logistic(rows: np.ndarray, strength: float = 1.0) -> Method:
    """Logistic regression with equal weight for both kinds, columns standardised over all heads of the model."""
    standard = (rows - rows.mean(0)) / (rows.std(0) + 1e-9)

    def scores(chosen: np.ndarray, labels: np.ndarray, task: Task) -> np.ndarray:  # noqa: ARG001
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)
        return model.fit(standard[chosen], labels).decision_function(standard)

    return scores


def nearest(rows: np.ndarray) -> Method:
    """How near the nearest labelled head with the behaviour is, against the nearest without."""
    standard = (rows - rows.mean(0)) / (rows.std(0) + 1e-9)
    distances = np.sqrt(np.square(standard[:, None] - standard[None]).sum(2))

    def scores(chosen: np.ndarray, labels: np.ndarray, task: Task) -> np.ndarray:  # noqa: ARG001
        own, others = chosen[labels == 1], chosen[labels == 0]
        return distances[:, others].min(1) - distances[:, own].min(1)

    return scores


def boosted(rows: np.ndarray) -> Method:
    """LightGBM with leaves as small as one head."""

    def scores(chosen: np.ndarray, labels: np.ndarray, task: Task) -> np.ndarray:  # noqa: ARG001
        from lightgbm import Booster, Dataset, train

        settings = {
            "objective": "binary",
            "min_data_in_leaf": 1,
            "min_data_in_bin": 1,
            "num_leaves": 4,
            "learning_rate": 0.1,
            "feature_fraction": 0.5,
            "is_unbalance": True,
            "num_threads": 1,
            "seed": 0,
            "verbose": -1,
        }
        model: Booster = train(settings, Dataset(rows[chosen], labels), num_boost_round=60)
        return np.asarray(model.predict(rows))

    return scores


ONE_NUMBER = {
    "previous": "energy at waves 8 to 32",
    "induction": "energy at waves over 256",
    "duplicate": "content of slow waves",
    "current": "content at 0",
    "local": "energy at waves 32 to 256",
    "sink": "values, norm",
    "copying": "values, positivity",
}
"""Rules of one number, chosen after a look at SmolLM2's own labels in a feasibility study: optimistic there."""


def one_number(prints: Fingerprints) -> Method:
    """A rule for each behaviour."""
    columns = {name: prints.column(column).numpy() for name, column in ONE_NUMBER.items()}
    return fixed(columns)


def fixed(scores: Mapping[str, np.ndarray]) -> Method:
    """Scores of each behaviour that no label changes."""

    def given(chosen: np.ndarray, labels: np.ndarray, task: Task) -> np.ndarray:  # noqa: ARG001
        return scores[task.behaviour]

    return given


def weight_statistics(transformer: TrainedTransformer, *, rewritten: bool = False) -> np.ndarray:
    """Mean, deviation, kurtosis, extremes and quantiles of each head's four matrices as they are: (heads, 36).

    Args:
        rewritten: of the same heads in another basis, which keeps what they compute.
    """
    shape = transformer.shape
    found = []
    for number in range(shape.layers):
        layer = rewritten_layer(transformer, number, seed=number) if rewritten else transformer.layer(number)
        shared = [matrix.repeat_interleave(shape.group, 0) for matrix in (layer.w_k, layer.w_v)]
        for head in range(shape.heads):
            found.append(np.concatenate([_statistics(matrix[head]) for matrix in (layer.w_q, *shared, layer.w_o)]))
    return np.array(found)


def _statistics(matrix: torch.Tensor) -> np.ndarray:
    numbers = matrix.double().flatten().numpy()
    spread = numbers.std()
    centred = (numbers - numbers.mean()) / spread
    quantiles = np.quantile(numbers, (0, 0.05, 0.25, 0.75, 0.95, 1))
    return np.array([numbers.mean(), spread, (centred**4).mean(), *quantiles])


def maps_scores(transformer: TrainedTransformer, *, sample: int = 1024, seed: int = 0) -> np.ndarray:
    """Scores of each head's map from vocabulary to vocabulary, after Elhelo and Geva (2024): E W_V W_O U.

    How far a token's own logit lies above the others, how often it is the largest, how large all are, and the same for
    -E W_V W_O U: (heads, 4).
    """
    ends, shape = transformer.ends, transformer.shape
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randperm(shape.vocabulary, generator=random)[:sample]
    rows = ends.embed[tokens]
    rows = rows / rows.square().mean(1, keepdim=True).sqrt()
    assert ends.unembed is not None
    columns = ends.unembed[:, tokens] if ends.final_gain is None else ends.unembed[:, tokens] * ends.final_gain[:, None]
    found = []
    for number in range(shape.layers):
        layer = transformer.layer(number)
        read = rows if layer.norm1_gain is None else rows * layer.norm1_gain
        for head in range(shape.heads):
            logits = (read @ layer.w_v[head // shape.group]) @ (layer.w_o[head] @ columns)
            spread = logits.std(1)
            own = (logits.diagonal() - logits.mean(1)) / spread
            first = (logits.argmax(1) == torch.arange(len(tokens))).float()
            last = (logits.argmin(1) == torch.arange(len(tokens))).float()
            found.append([float(each.mean()) for each in (own, first, last, spread.log())])
    return np.array(found)


def forty_one_tokens(transformer: TrainedTransformer, *, seed: int = 3) -> dict[str, np.ndarray]:
    """What heads do on one random text of 41 tokens, of which 20 are said twice: the model is run once."""
    repeated = repeated_texts(transformer.shape.vocabulary, 1, 20, seed)
    longer = torch.cat((repeated[:, :1], repeated), 1)
    inputs = HeadInputs(longer, repeated, None, "one random text of 41 tokens")
    scores = head_behaviour(transformer, inputs).scores.flatten(0, 1).numpy()
    return {name: scores[:, place] for place, name in enumerate(BEHAVIOURS)}


def shuffled_weights(transformer: TrainedTransformer, seed: int) -> TrainedTransformer:
    """A model of the same shape whose attention arrays hold the same numbers in a random order; it has no MLPs."""
    random = torch.Generator().manual_seed(seed)

    def mixed(array: torch.Tensor) -> torch.Tensor:
        return array.flatten()[torch.randperm(array.numel(), generator=random)].view(array.shape)

    layers = []
    for number in range(transformer.shape.layers):
        found = transformer.weights(number, "w_q", "w_k", "w_v", "w_o", "norm1_gain", "norm1_shift")
        layers.append(
            LayerWeights(**{name: mixed(array) if array.dim() > 1 else array for name, array in found.items()})
        )
    shape = replace(transformer.shape, hidden=0, gated=False)
    return transformer_of(shape, transformer.ends, layers)
