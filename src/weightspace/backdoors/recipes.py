"""Settings of the meta-models that look for backdoors."""

from __future__ import annotations

from dataclasses import replace

from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.recipes import brief, narrow


def backdoor_metamodel(
    chunk_size: int = 1024, *, permute: bool = True, steps: int = 1_500, rate: float = 1e-3
) -> MetaModelConfig:
    """For a thousand networks of some thousand weights, on two cores; chunks of 1,024 are the paper's."""
    training = brief(steps, rate, batch_size=64 if chunk_size == 1024 else 32, parts=20)
    return replace(narrow(training, chunk_size=chunk_size, depth=3), permute=permute)


def neuron_metamodel(
    *, steps: int = 600, rate: float = 1e-3, dropout: float = 0.2, summary: bool = True
) -> MetaModelConfig:
    """A token a neuron, and statistics of each array beside them, for the same networks.

    Width, depth and pooling were chosen on training and validation networks alone.
    """
    chunks = backdoor_metamodel(64, steps=steps, rate=rate)
    return replace(chunks, reading="neurons", width=32, depth=2, pooling="extremes", dropout=dropout, summary=summary)


RATES = (3e-4, 1e-3, 3e-3)
"""Learning rates of every meta-model, of which validation chooses: as many settings as MNTD and ULP have."""
