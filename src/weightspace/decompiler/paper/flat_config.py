"""What the paper's decompiler is, its reading of weights, its size and its training, as data."""

from __future__ import annotations

from dataclasses import dataclass, field

from weightspace.decompiler.paper.listing import Chunking
from weightspace.train.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class FlatConfig:
    """A causal decoder over [chunks of weights, start, program] (Langosco et al., Figure 8).

    Raises:
        ValueError: if a field is out of its range; the message says what is allowed.
    """

    chunking: Chunking = field(default_factory=Chunking)
    """How weights become tokens."""

    width: int = 128
    """Size of a token's vector, a multiple of `heads`."""

    depth: int = 4
    """Transformer layers, at least 1."""

    heads: int = 4
    """Attention heads a layer."""

    encoding: int = 32
    """How much of a chunk's vector is its layer encoding, which is concatenated to it: 1 to below `width`."""

    dropout: float = 0.0
    """Share of each sublayer's output that is dropped in training, 0 to below 1."""

    most_parameters: int = 49_999
    """Transformers that are larger are not read (section 4 of the paper)."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How it is trained."""

    def __post_init__(self) -> None:
        checks = {
            f"depth {self.depth}": (self.depth >= 1, "at least 1"),
            f"heads {self.heads}": (self.heads >= 1, "at least 1"),
            f"width {self.width}": (
                self.width >= 2 and self.width % max(1, self.heads) == 0,
                f"a multiple of the {self.heads} heads, at least 2",
            ),
            f"encoding {self.encoding}": (1 <= self.encoding < self.width, f"1 to {self.width - 1}"),
            f"dropout {self.dropout}": (0 <= self.dropout < 1, "0 to below 1"),
            f"most_parameters {self.most_parameters}": (self.most_parameters >= 1, "at least 1"),
        }
        for what, (holds, allowed) in checks.items():
            if not holds:
                raise ValueError(f"the flat decoder's {what} will not do: choose {allowed}")
