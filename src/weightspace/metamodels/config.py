"""What a meta-model is: every choice of its shape and of how it reads weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from weightspace.train.config import TrainingConfig

Pooling = Literal["first", "mean", "extremes"]
Normalisation = Literal["layer", "global"]
EmbeddingKind = Literal["linear", "mlp"]
Reading = Literal["chunks", "neurons", "leaves"]
Scale = Literal["deviations", "ranks"]


@dataclass(frozen=True, kw_only=True)
class MetaModelConfig:
    """The paper's meta-model (Langosco et al., Figure 1) and the choices around it.

    The defaults are the published ones where there is one: width 256, 6 layers, 4 heads, pre-norm, not causal, answer
    read at token 0.

    Raises:
        ValueError: if a field is out of its range; the message says what is allowed.
    """

    reading: Reading = "chunks"
    """What a token is: a chunk of flat weights, as in the paper; a neuron, described by statistics of what it reads
    and what reads it, which do not depend on the order of neurons; or a leaf, an array as its own chunks make it, at a
    cost that grows with the number of weights and no faster. `chunk_size`, `embedding`, `layer_encoding` and `permute`
    are about chunks, those of leaves too."""

    chunk_size: int = 128
    """Weights a token, 8 to 1024."""

    width: int = 256
    """Size of a token's vector, a multiple of `heads`."""

    depth: int = 6
    """Transformer layers, at least 1; of leaves those across the leaves of a network."""

    window: int = 16
    """Chunks of a leaf that attend to each other, 1 to 256; only of leaves."""

    window_depth: int = 1
    """Transformer layers inside a window, at least 1; only of leaves."""

    heads: int = 4
    """Attention heads a layer."""

    embedding: EmbeddingKind = "linear"
    """How a chunk becomes a vector: by a linear map, as in the paper, or by a GELU MLP of four times the width, which
    can see the spread of the weights in a chunk where a linear map sees only weighted sums."""

    other_widths: bool = False
    """Whether networks of the layers of a training network, but other widths, are judged too; not of chunks, which are
    told apart by their place."""

    causal: bool = False
    """Whether a token attends only to itself and those before it, as a decoder's do."""

    summary: bool = False
    """Whether the head also sees a few statistics of each array, besides what the transformer made of the tokens; not
    beside leaves, as quantiles need a whole array in memory."""

    exact: bool = False
    """Whether statistics are those of the weights as they are, and the head also sees, by thresholds, those of all
    arrays of each role together; not beside leaves. See `summary.exact_summary`."""

    scale: Scale = "deviations"
    """How numbers of neurons and statistics of arrays are put on one scale: in standard deviations of the training
    networks, or as normal scores of their rank among them, which tells small differences apart that a few networks with
    huge weights hide."""

    bins: int = 0
    """Parts of the scale of ranks in which each statistic of an array is encoded, 0 to 64, so that one layer sees
    thresholds as trees do (piecewise linear encoding, Gorishniy et al. 2022); 0 for the rank itself."""

    hidden: int = 0
    """Units of a hidden layer between everything that is pooled and the answers; 0 for a linear head."""

    pooling: Pooling = "first"
    """Where the answer is read: at a learnt token before all others, from the mean over the network's tokens, or from
    the mean and the largest value of each number over them, which one odd token among hundreds can move. A causal model
    puts the learnt token behind all others, where it can see them."""

    dropout: float = 0.0
    """Share of each sublayer's output that is dropped in training, 0 to below 1."""

    normalisation: Normalisation = "layer"
    """Weights are divided by a standard deviation of the training split: of each layer's arrays of one role, or of all
    weights together."""

    layer_encoding: bool = True
    """Whether a token also carries which roles and which layers its weights have (the paper's layer encoding)."""

    permute: bool = True
    """Whether each training example gets its neurons in a new random order (the paper's augmentation)."""

    permutations: int = 2048
    """Random orders that are drawn once for each spec; an example uses one of them each time it is seen."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How it is trained."""

    def __post_init__(self) -> None:
        checks = {
            f"chunk_size {self.chunk_size}": (8 <= self.chunk_size <= 1024, "8 to 1024"),
            f"depth {self.depth}": (self.depth >= 1, "at least 1"),
            f"window {self.window}": (1 <= self.window <= 256, "1 to 256"),
            f"window_depth {self.window_depth}": (self.window_depth >= 1, "at least 1"),
            f"heads {self.heads}": (self.heads >= 1, "at least 1"),
            f"width {self.width}": (
                self.width >= 1 and self.width % max(1, self.heads) == 0,
                f"a multiple of the {self.heads} heads",
            ),
            f"dropout {self.dropout}": (0 <= self.dropout < 1, "0 to below 1"),
            f"hidden {self.hidden}": (self.hidden >= 0, "0 or more"),
            f"scale {self.scale!r}": (self.scale in get_args(Scale), "deviations or ranks"),
            f"bins {self.bins}": (
                self.bins == 0 or (1 <= self.bins <= 64 and self.summary and self.scale == "ranks"),
                "0, or up to 64 with a summary on the scale of ranks",
            ),
            f"permutations {self.permutations}": (self.permutations >= 1, "at least 1"),
            f"other_widths {self.other_widths}": (
                self.reading != "chunks" or not self.other_widths,
                "False, or reading neurons or leaves",
            ),
            f"summary {self.summary}": (
                self.reading != "leaves" or not self.summary,
                "False, or reading chunks or neurons",
            ),
            f"exact {self.exact}": (
                self.reading != "leaves" or not self.exact,
                "False, or reading chunks or neurons",
            ),
            f"reading {self.reading!r}": (self.reading in get_args(Reading), "chunks, neurons or leaves"),
            f"pooling {self.pooling!r}": (self.pooling in get_args(Pooling), "first, mean or extremes"),
            f"embedding {self.embedding!r}": (self.embedding in get_args(EmbeddingKind), "linear or mlp"),
            f"normalisation {self.normalisation!r}": (self.normalisation in get_args(Normalisation), "layer or global"),
        }
        for what, (holds, allowed) in checks.items():
            if not holds:
                raise ValueError(f"the meta-model's {what} will not do: choose {allowed}")
