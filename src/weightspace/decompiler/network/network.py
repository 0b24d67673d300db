"""The decompiler's network: a reader of weights, and a decoder that writes programs token by token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace.decompiler.network.batch import GraphBatch
from weightspace.decompiler.network.config import DecompilerConfig
from weightspace.decompiler.network.grammar import FIELDS, MOST_SLOTS, PADDING, SIZE, VALUE_FEATURES
from weightspace.decompiler.network.plain_readers import PlainReader
from weightspace.decompiler.network.reader import Reader


@dataclass(frozen=True, eq=False)
class Lines:
    """Programs as the decoder reads them, padded: (b, t) each, `values` (b, t, VALUE_FEATURES)."""

    ids: Tensor
    fields: Tensor
    slots: Tensor
    names: Tensor
    values: Tensor

    def to(self, device: torch.device) -> Lines:
        return Lines(*(getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__))


class DecoderLayer(nn.Module):
    """Attention to what is written so far, attention to the weights, an MLP."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own, self.own_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.query, self.memory, self.cross_out = (
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
            nn.Linear(width, width),
        )
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)

    def split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        b, t, w = x.shape
        shape = (b, t, parts, self.heads, w // parts // self.heads)
        return tuple(x.view(shape).permute(2, 0, 3, 1, 4))

    def remember(self, memory: Tensor) -> tuple[Tensor, ...]:
        """Keys and values of the weights' nodes: (b, heads, nodes, size) each."""
        return self.split(self.memory(memory), 2)

    def forward(
        self,
        x: Float[Tensor, "b t width"],
        remembered: tuple[Tensor, ...],
        present: Bool[Tensor, "b 1 1 nodes"],
        past: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b t width"], tuple[Tensor, Tensor]]:
        """Args: past: keys and values of what stands before x; mask: (b, 1, t, past + t), None for causal."""
        query, key, value = self.split(self.own(self.norms[0](x)), 3)
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None)
        x = x + self.dropout(self.own_out(_joined(mixed)))
        (query,) = self.split(self.query(self.norms[1](x)), 1)
        mixed = F.scaled_dot_product_attention(query, *remembered, attn_mask=present)
        x = x + self.dropout(self.cross_out(_joined(mixed)))
        return x + self.dropout(self.mlp(self.norms[2](x))), (key, value)


def _joined(mixed: Tensor) -> Tensor:
    return mixed.transpose(1, 2).flatten(2)


class DecompilerNetwork(nn.Module):
    """Weights and the beginning of a program in, logits of the next token out.

    There is no encoding of place: what a token is to its operation, the slot it stands in and the causal order say it,
    so that longer programs than it was trained on look like its own.
    """

    def __init__(self, config: DecompilerConfig) -> None:
        super().__init__()
        width = config.width
        if config.reader == "graph":
            self.reader: nn.Module = Reader(width, config.rounds, config.message)
        else:
            self.reader = PlainReader(width, config.rounds, config.heads, config.reader == "rows")
        self.tokens, self.fields = nn.Embedding(SIZE, width), nn.Embedding(FIELDS, width)
        self.slots, self.names = nn.Embedding(MOST_SLOTS, width), nn.Embedding(SIZE, width)
        self.values = nn.Linear(VALUE_FEATURES, width, bias=False)
        self.layers = nn.ModuleList(DecoderLayer(width, config.heads, config.dropout) for _ in range(config.depth))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, SIZE)
        for table in (self.tokens, self.fields, self.slots, self.names):
            nn.init.normal_(table.weight, std=0.5)
        with torch.no_grad():
            self.names.weight[0].zero_()
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            last = layer.mlp[2]
            assert isinstance(last, nn.Linear)
            for linear in (layer.own_out, layer.cross_out, last):
                nn.init.normal_(linear.weight, std=linear.in_features**-0.5 / (3 * config.depth) ** 0.5)
        nn.init.zeros_(self.out.weight)

    def embed(self, lines: Lines) -> Float[Tensor, "b t width"]:
        named = self.names(lines.names) * (lines.names > 0)[..., None]
        x = self.tokens(lines.ids) + self.fields(lines.fields) + self.slots(lines.slots) + named
        return x + self.values(lines.values)

    def remember(self, g: GraphBatch) -> tuple[list[tuple[Tensor, ...]], Tensor]:
        """What each layer of the decoder keeps of the weights, and which nodes are there."""
        memory, present = self.reader(g)
        layers = [layer for layer in self.layers if isinstance(layer, DecoderLayer)]
        return [layer.remember(memory) for layer in layers], present[:, None, None]

    def forward(self, g: GraphBatch, lines: Lines) -> Float[Tensor, "b t vocabulary"]:
        remembered, present = self.remember(g)
        x = self.embed(lines)
        for layer, own in zip(self.layers, remembered, strict=True):
            x, _ = layer(x, own, present)
        return self.out(self.norm(x))


def next_token_loss(logits: Float[Tensor, "b t v"], ids: Int[Tensor, "b t"], inputs: int = 2) -> Tensor:
    """Mean cross-entropy of each token that is not padding, given those before it; the inputs' names are not asked."""
    target = ids[:, 1 + inputs :]
    kept = logits[:, inputs:-1].flatten(0, 1)
    return F.cross_entropy(kept, target.flatten(), ignore_index=PADDING)
