"""A transformer's matrices as tensors, with its forward pass and its loss: what training moves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from weightspace.decompiler.examples import Answers, readout_of
from weightspace.decompiler.lifting.rewrite import WRITING
from weightspace.rasp.compiler.bare import MATRICES, POSITIONS, TOKENS, BareTransformer
from weightspace.rasp.language import BOS


@dataclass(frozen=True)
class TrainableInputs:
    """All inputs in one array, the short ones filled up with BOS, which nothing then sees.

    Attributes:
        codes: (n, places) tensor.
        hidden: (n, places) tensor, 0 or minus infinity where there is no place.
        classes: (n, places - 1) tensor of what is answered; -1 for None, -2 where there is no place.
        targets: (n, places - 1) tensor of numbers in units of `scale`, or None.
        scale: standard deviation of the numbers.
    """

    codes: Tensor
    hidden: Tensor
    classes: Tensor
    targets: Tensor | None
    scale: float


def data_of(bare: BareTransformer, wanted: Answers) -> TrainableInputs:
    """All inputs of a transformer and what is wanted on them, as tensors."""
    places = bare.max_seq_len + 1

    def joined(groups: Sequence[np.ndarray], width: int, fill: int) -> np.ndarray:
        return np.concatenate([np.pad(g, ((0, 0), (0, width - g.shape[1])), constant_values=fill) for g in groups])

    bos = bare.space.index(BOS)
    codes = joined(wanted.codes, places, bos)
    classes = joined(wanted.classes, places - 1, -2)
    there = np.insert(classes > -2, 0, True, axis=1)
    hidden = np.where(there, 0.0, -np.inf).astype(np.float32)
    targets, scale = None, 1.0
    if wanted.numbers is not None:
        numbers = joined(wanted.targets, places - 1, 0).astype(np.float32)
        scale = max(1e-3, float(numbers[classes > -1].std())) if (classes > -1).any() else 1.0
        targets = torch.from_numpy(numbers)
    return TrainableInputs(torch.from_numpy(codes), torch.from_numpy(hidden), torch.from_numpy(classes), targets, scale)


class TrainableTransformer:
    """The parameters of a transformer as tensors that are trained, without the columns that do nothing."""

    def __init__(self, bare: BareTransformer) -> None:
        self.start = bare
        self.readout = readout_of(bare)
        self.directions = torch.from_numpy(np.ascontiguousarray(self.readout.directions, np.float32))
        self.tensors: dict[str, Tensor] = {}
        self.parts: dict[str, tuple[Any, ...]] = {}
        self.heads: list[list[int]] = []
        for name in (TOKENS, POSITIONS):
            self._take(name, np.s_[:])
        for layer in range(bare.num_layers):
            prefix = f"transformer/layer_{layer}/"
            heads = [n for n in range(bare.num_heads) if bare.linear[layer][bare.head(n)].any()]
            self.heads.append(heads)
            columns = np.concatenate([np.arange(bare.key_size) + n * bare.key_size for n in heads] or [[]]).astype(int)
            units = np.flatnonzero(bare.second[layer].any(1))
            for matrix in MATRICES:
                chosen = columns if matrix.startswith("attn") else units
                if len(chosen):
                    self._take(f"{prefix}{matrix}/w", np.s_[chosen] if matrix in WRITING else np.s_[:, chosen])
        self.trained = [tensor for tensor in self.tensors.values() if bool(tensor.detach().any())]

    def _take(self, name: str, part: Any) -> None:
        self.parts[name] = part
        self.tensors[name] = torch.tensor(self.start.params[name][part], requires_grad=True)

    def bare(self) -> BareTransformer:
        """The transformer as it is now."""
        params = dict(self.start.params)
        for name, tensor in self.tensors.items():
            array = params[name].copy()
            array[self.parts[name]] = tensor.detach().numpy()
            params[name] = array
        return replace(self.start, params=params)

    def stream(self, codes: Tensor, hidden: Tensor) -> Tensor:
        """(batch, places, width) the final stream."""
        batch, places = codes.shape
        size, p = self.start.key_size, self.tensors
        mask = hidden[:, None, None]
        if self.start.causal:
            mask = mask + torch.full((places, places), -torch.inf).triu(1)
        stream = p[TOKENS][codes] + p[POSITIONS][:places]
        for layer in range(self.start.num_layers):
            prefix = f"transformer/layer_{layer}/"
            if self.heads[layer]:
                query, key, value = (
                    (stream @ p[f"{prefix}attn/{which}/w"]).view(batch, places, -1, size).transpose(1, 2)
                    for which in ("query", "key", "value")
                )
                scores = query @ key.transpose(2, 3) / math.sqrt(size) + mask
                mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, places, -1)
                stream = stream + mixed @ p[f"{prefix}attn/linear/w"]
            if f"{prefix}mlp/linear_1/w" in p:
                stream = stream + (stream @ p[f"{prefix}mlp/linear_1/w"]).relu() @ p[f"{prefix}mlp/linear_2/w"]
        return stream

    def loss(self, data: TrainableInputs, rows: Tensor, sharpness: float) -> Tensor:
        """How far the answers on some inputs are from what is wanted."""
        stream = self.stream(data.codes[rows], data.hidden[rows])[:, 1:]
        classes = data.classes[rows]
        read = stream @ self.directions
        if data.targets is None:
            if self.readout.strict:  # None is where nothing reaches 1/2
                read = torch.cat([read, torch.full_like(read[..., :1], 0.5)], -1)
            classes = torch.where(classes == -1, read.shape[-1] - 1, classes)
            return cross_entropy((sharpness * read).flatten(0, 1), classes.flatten(), ignore_index=-2)
        some = classes > -1
        errors = (read[..., 0] - data.targets[rows]) / data.scale
        loss = (errors.square() * some).sum() / some.sum().clamp(min=1)
        if self.readout.none is not None:
            there = classes > -2
            missing = sharpness * (stream @ torch.from_numpy(self.readout.none) - 0.5)
            loss = loss + binary_cross_entropy_with_logits(missing[there], (classes[there] == -1).float())
        return loss
