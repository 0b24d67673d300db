"""The decompiler's shape, data and training, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from weightspace.train.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class DecompilerConfig:
    """A reader of weights and a decoder of programs.

    Raises:
        ValueError: if a field is out of its range; the message says what is allowed.
    """

    width: int = 128
    """Size of the vector of a node and of a token, a multiple of `heads`."""

    reader: Literal["graph", "rows", "chunks"] = "graph"
    """What reads the weights: messages along the graph, or an encoder over rows of matrices or over flat chunks."""

    rounds: int = 4
    """Rounds of messages between directions, hidden units and heads, or layers of the encoder, at least 1."""

    message: int = 16
    """Size of a message in each scale of each matrix, at least 1."""

    depth: int = 3
    """Layers of the decoder, at least 1."""

    heads: int = 4
    """Attention heads a layer of the decoder."""

    dropout: float = 0.0
    """Share of each sublayer's output that is dropped in training, 0 to below 1."""

    lengths: tuple[int, ...] = (4, 5, 6, 7, 8)
    """Lengths of the programs it is trained on, in S-ops, inputs counted."""

    other_shapes: float = 0.25
    """Share of training programs compiled for another vocabulary or length than the distribution's, 0 to 1."""

    fixed: float = 0.25
    """Share of training programs compiled by `fixed`, 0 to 1; the others are Tracr's."""

    noisy: float = 0.35
    """Share of training weights under noise of 0.5 to 15% of each matrix's scale, 0 to 1."""

    squeezed: float = 0.15
    """Share of training weights seen through a stream of fewer directions, 0 to 1."""

    answer: float = 0.5
    """Share of training weights of which it is said where the answer stands, 0 to 1."""

    most_nodes: int = 400
    """Larger graphs are left out of the training."""

    renamed: bool = False
    """Whether directions, units and heads are put in a random order, which only the graph's reader can do without."""

    excluded: tuple[str, ...] = ()
    """Canonical keys, in hexadecimal digits, of programs that must not be trained on."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How it is trained."""

    def __post_init__(self) -> None:
        shares = ("other_shapes", "fixed", "noisy", "squeezed", "answer")
        checks = {
            f"width {self.width}": (self.width >= 1 and self.width % max(1, self.heads) == 0, "a multiple of `heads`"),
            f"rounds {self.rounds}": (self.rounds >= 1, "at least 1"),
            f"message {self.message}": (self.message >= 1, "at least 1"),
            f"depth {self.depth}": (self.depth >= 1, "at least 1"),
            f"heads {self.heads}": (self.heads >= 1, "at least 1"),
            f"dropout {self.dropout}": (0 <= self.dropout < 1, "0 to below 1"),
            f"most_nodes {self.most_nodes}": (self.most_nodes >= 10, "at least 10"),
            f"lengths {self.lengths}": (bool(self.lengths) and all(2 < n <= 20 for n in self.lengths), "3 to 20"),
            **{f"{name} {getattr(self, name)}": (0 <= getattr(self, name) <= 1, "0 to 1") for name in shares},
        }
        for what, (holds, allowed) in checks.items():
            if not holds:
                raise ValueError(f"the decompiler's {what} will not do: choose {allowed}")
