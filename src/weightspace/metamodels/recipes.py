"""Meta-model recipes: settings by name, small ones for two CPU cores and the paper's side by side."""

from __future__ import annotations

from weightspace.metamodels.config import MetaModelConfig
from weightspace.train.config import TrainingConfig


def small() -> MetaModelConfig:
    """For a few hundred networks of a few thousand weights: about a minute on two cores.

    Chosen on validation networks; docs/results.md has the figures. Unlike the paper it embeds chunks by an MLP.
    """
    return MetaModelConfig(
        chunk_size=64,
        width=64,
        depth=3,
        heads=4,
        embedding="mlp",
        pooling="mean",
        dropout=0.2,
        training=TrainingConfig(
            steps=1000,
            batch_size=64,
            learning_rate=2e-3,
            weight_decay=1e-2,
            warmup=0.1,
            evaluate_every=100,
            checkpoint_every=50,
        ),
    )


def paper() -> MetaModelConfig:
    """The paper's meta-model: width 256, 6 layers, 4 heads, 100,000 steps of 64 networks: a GPU's work."""
    return MetaModelConfig(
        chunk_size=1024,
        training=TrainingConfig(steps=100_000, batch_size=64, learning_rate=3e-4, precision="bfloat16"),
    )


def narrow(training: TrainingConfig, *, chunk_size: int = 1024, depth: int = 2) -> MetaModelConfig:
    """The paper's reading of flat weights in chunks, narrow enough for comparisons of many trainings on two cores."""
    return MetaModelConfig(
        chunk_size=chunk_size, width=64, depth=depth, heads=4, pooling="mean", dropout=0.1, training=training
    )


def brief(
    steps: int, rate: float, *, batch_size: int = 32, decay: float = 1e-2, seed: int = 0, parts: int = 10
) -> TrainingConfig:
    """A training of some hundred steps, evaluated and kept after each of `parts` parts."""
    every = max(1, steps // parts)
    return TrainingConfig(
        steps=steps,
        batch_size=batch_size,
        learning_rate=rate,
        weight_decay=decay,
        warmup=0.1,
        seed=seed,
        evaluate_every=every,
        checkpoint_every=every,
    )


METAMODEL_RECIPES = {"small": small, "paper": paper}
