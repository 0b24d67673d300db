"""A network that writes the paper's listing from weights alone: its shape, data and training, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from weightspace.train.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class ListingConfig:
    """A reader of weights, and a decoder of lines.

    Raises:
        ValueError: if a field is out of its range; the message says what is allowed.
    """

    width: int = 128
    """Size of the vector of a node and of a token, a multiple of `heads`."""

    reader: Literal["graph", "chunks"] = "graph"
    """What reads the weights: messages along the graph, or an encoder over flat chunks of the same matrices."""

    rounds: int = 4
    """Rounds of messages, or layers of the encoder, at least 1."""

    message: int = 16
    """Size of a message in each scale of each matrix, at least 1."""

    depth: int = 3
    """Layers of the decoder, at least 1."""

    heads: int = 4
    """Attention heads a layer."""

    ordered: bool = True
    """Whether the graph's reader knows how directions stand, as the compiler has laid them out; chunks always do."""

    half: bool = True
    """Whether linear layers multiply in bfloat16."""

    settled: bool = True
    """Whether it is trained on targets in which what weights leave open is written in one way."""

    shards: int = 1
    """Files of drawn programs that it is trained on, at least 1; read again in another order when they are through."""

    first: int | None = None
    """So many of the files are read from the beginning, and one more after every `growth` steps, while others are drawn
    beside the training; None for all from the beginning."""

    growth: int = 50
    """Steps after which one more file is read, at least 1; nothing where `first` is None."""

    part: int = 32
    """Examples of alike size that go through the network side by side, at least 1; a batch has several such parts."""

    group: int = 4
    """Files whose examples are sorted by size together, at least 1."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How it is trained."""

    def __post_init__(self) -> None:
        checks = {
            f"width {self.width}": (self.width >= 1 and self.width % max(1, self.heads) == 0, "a multiple of `heads`"),
            f"rounds {self.rounds}": (self.rounds >= 1, "at least 1"),
            f"message {self.message}": (self.message >= 1, "at least 1"),
            f"depth {self.depth}": (self.depth >= 1, "at least 1"),
            f"heads {self.heads}": (self.heads >= 1, "at least 1"),
            f"shards {self.shards}": (self.shards >= 1, "at least 1"),
            f"first {self.first}": (self.first is None or 1 <= self.first <= self.shards, "1 to `shards`, or None"),
            f"growth {self.growth}": (self.growth >= 1, "at least 1"),
            f"part {self.part}": (
                1 <= self.part <= self.training.batch_size and self.training.batch_size % self.part == 0,
                "a divisor of the batch size",
            ),
            f"group {self.group}": (self.group >= 1, "at least 1"),
            f"reader {self.reader!r}": (self.reader in ("graph", "chunks"), "graph or chunks"),
        }
        for what, (holds, allowed) in checks.items():
            if not holds:
                raise ValueError(f"the listing decoder's {what} will not do: choose {allowed}")
