"""A network read from its file leaf by leaf, in little memory however large it is, and what a meta-model says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from weightspace.errors import ScopeError
from weightspace.metamodels.contract import Predictions
from weightspace.metamodels.embed import leaf_kinds, squash
from weightspace.metamodels.hierarchical import LeafEmbedding, cut
from weightspace.metamodels.metamodel import MetaModel
from weightspace.train.loop import choose_device
from weightspace.weights.chunks import token_count
from weightspace.weights.leaves import LeafFile
from weightspace.weights.spec import Leaf

AT_ONCE = 1024
"""Chunks that are embedded at once: of 1,024 weights, the largest, 4 MiB of weights."""


def embed_file(path: str | Path, model: MetaModel) -> np.ndarray:
    """The vector that `MetaModel.embed` gives of the network in a checkpoint file, without the network in memory.

    It differs from that vector by rounding alone: sums over the windows of a leaf are taken in another order.

    Args:
        path: a safetensors file of any size, half precision and bfloat16 too. Of other kinds of checkpoint, what was
            read stays in memory.
        model: reads leaves.
    Returns:
        (width,) float32, or twice as wide where extremes are pooled.
    Raises:
        NetworkError: if the file is missing, torn, or holds a type that is not read or a weight that is NaN or
            infinite; a sentence that names the array.
        SpecError: if it holds no floating-point arrays.
        ScopeError: if the meta-model reads something else than leaves.
    """
    with torch.no_grad():
        return _pooled(LeafFile.open(path, model.specs), model)[0].float().cpu().numpy()


def predict_file(path: str | Path, model: MetaModel) -> Predictions:
    """The answers that `MetaModel.predict` gives about the network in a checkpoint file, likewise.

    Raises:
        as `embed_file`, and ScopeError: if the network is out of scope.
    """
    file = LeafFile.open(path, model.specs)
    model.check_scope(file.spec)
    with torch.no_grad():
        return model.answering.predictions(model.model.head(_pooled(file, model)))


def _pooled(file: LeafFile, model: MetaModel) -> Float[Tensor, "1 p"]:
    """What the head reads."""
    embedding = model.model.embedding
    if not isinstance(embedding, LeafEmbedding):
        raise ScopeError(
            f"a meta-model that reads {model.config.reading} needs a whole network in memory: train one with "
            "`--reading leaves`"
        )
    device = choose_device(model.config.training.device)
    model.model.to(device).eval()
    scales = model.normaliser.by_leaf(file.spec)
    vectors = [
        _vector(file, leaf, embedding, kind.to(device), *scale)
        for leaf, kind, scale in zip(file.spec.leaves, leaf_kinds(file.spec), scales, strict=True)
    ]
    x = torch.stack(vectors, 1)  # (1, leaves, d)
    return model.model.across(x, torch.ones(x.shape[:2], dtype=torch.bool, device=device), False)


def _vector(
    file: LeafFile, leaf: Leaf, embedding: LeafEmbedding, kind: Float[Tensor, " k"], mean: float, deviation: float
) -> Float[Tensor, "1 d"]:
    """The vector of one leaf."""
    chunks = token_count(leaf.size, embedding.size)
    window = min(embedding.window, chunks)  # a leaf with fewer chunks needs no padding
    most = AT_ONCE // window * window * embedding.size
    total = largest = None
    for piece in file.pieces(leaf, most):
        x = torch.from_numpy(piece)[None]
        # As float32 numbers, which is how the same weights are scaled where the network is in memory
        x = squash((x - torch.tensor(mean)) / torch.tensor(deviation)).to(kind.device)
        values = cut(x, window * embedding.size)[0]  # (w, window * size)
        counts = torch.full((len(values),), window, device=kind.device)
        counts[-1] = token_count(x.shape[1], embedding.size) - window * (len(values) - 1)
        sums, tops = embedding.gather(values, counts, kind.expand(len(values), -1))
        found, top = sums.double().sum(0), tops.amax(0)
        total = found if total is None else total + found
        largest = top if largest is None else torch.maximum(largest, top)
    assert total is not None and largest is not None  # no leaf of a spec is empty
    count = torch.tensor([[chunks]], device=kind.device)
    return embedding.vectors(total.to(largest.dtype)[None, None], largest[None, None], count)[:, 0]
