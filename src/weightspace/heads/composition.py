"""How much of what a head writes the queries, keys and values of later heads read, and whether keys match by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from weightspace.heads.folded import FoldedLayer
from weightspace.heads.kernels import weighted_rows

NEAR, FAR = 4, 48
"""Distances over which the map of scores is averaged where keys are matched by content."""
_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Composition:
    """Of each head (columns) with each head of an earlier layer (rows); 0 elsewhere. Heads are counted layer by layer.

    Attributes:
        query, key, value: the norm of the product of what the earlier head writes and what the later one reads, over
            both norms, times the square root of the width: 1 for matrices that have nothing to do with each other
            (composition scores of Elhage et al., 2021; averaged over the phases of rotary pairs).
        matched: the trace of the map of scores with the earlier head's output in the place of its keys, over both
            norms: how much a query attends to places into which the earlier head has moved the query's own content.
            -1 to 1; it is what makes an induction head of the later one if the earlier one looks at the last place.
    """

    query: Float[Tensor, "heads heads"]
    key: Float[Tensor, "heads heads"]
    value: Float[Tensor, "heads heads"]
    matched: Float[Tensor, "heads heads"]


@dataclass(frozen=True, eq=False)
class Reach:
    """What composition needs of a layer."""

    read_q: Tensor  # (heads * size, width), weighted
    read_k: Tensor
    read_v: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor
    values: Tensor  # (heads, size, size): Gram matrices of v
    far: Tensor  # (size, size): R averaged over distances
    norms: dict[str, Tensor]


def compositions(layers: Sequence[Reach]) -> Composition:
    """All pairs of heads of a model's layers."""
    heads, size = layers[0].values.shape[:2]
    count = heads * len(layers)
    found = {name: torch.zeros(count, count, dtype=torch.float64) for name in ("query", "key", "value", "matched")}
    for later, reader in enumerate(layers):
        for earlier, writer in enumerate(layers[:later]):
            rows, columns = slice(earlier * heads, (earlier + 1) * heads), slice(later * heads, (later + 1) * heads)
            for name, products in _between(writer, reader, heads, size).items():
                found[name][rows, columns] = products
    return Composition(**found)


def reach_of(layer: FoldedLayer) -> Reach:
    """That of a layer."""
    size = layer.q.shape[1]
    weighted = weighted_rows(layer)
    read_q, read_k = weighted[:, :size], weighted[:, size:]
    values = layer.v @ layer.v.transpose(1, 2)
    outputs = layer.o @ layer.o.transpose(1, 2)
    read_v = _root_times(outputs, layer.v)
    far = layer.turning.rotation(torch.arange(NEAR, FAR, dtype=torch.float64), size).mean(0)
    queries, keys = layer.q @ layer.q.transpose(1, 2), layer.k @ layer.k.transpose(1, 2)
    matching = torch.einsum("ab,hbc,dc,had->h", far, keys, far, queries).clamp(min=0).sqrt()
    norms = {
        "query": torch.linalg.vector_norm(read_q, dim=(1, 2)),
        "key": torch.linalg.vector_norm(read_k, dim=(1, 2)),
        "value": torch.linalg.vector_norm(read_v, dim=(1, 2)),
        "matched": matching,
        "written": (values * outputs).sum((1, 2)).clamp(min=0).sqrt(),
    }
    return Reach(
        read_q=read_q.flatten(0, 1),
        read_k=read_k.flatten(0, 1),
        read_v=read_v.flatten(0, 1),
        q=layer.q.flatten(0, 1),
        k=layer.k.flatten(0, 1),
        v=layer.v.flatten(0, 1),
        o=layer.o.flatten(0, 1),
        values=values,
        far=far,
        norms=norms,
    )


def _root_times(gram: Tensor, rows: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(gram)
    return (vectors * values.clamp(min=0).sqrt()[:, None]).transpose(1, 2) @ rows


def _between(writer: Reach, reader: Reach, heads: int, size: int) -> dict[str, Tensor]:
    """Of the heads of one layer (rows) and those of a later one (columns)."""
    written = writer.norms["written"].clamp(min=_TINY)[:, None]
    width = writer.o.shape[1]
    found = {}
    for name, rows in (("query", reader.read_q), ("key", reader.read_k), ("value", reader.read_v)):
        product = (rows @ writer.o.T).unflatten(0, (heads, size)).unflatten(2, (heads, size))  # (h, a, e, b)
        carried = torch.einsum("haeb,ebc->haec", product, writer.values)
        squared = (carried * product).sum((1, 3)).clamp(min=0).T
        found[name] = squared.sqrt() / written / reader.norms[name].clamp(min=_TINY) * width**0.5
    keys = (reader.k @ writer.o.T).unflatten(0, (heads, size)).unflatten(2, (heads, size))  # (h, a, e, b)
    queries = (writer.v @ reader.q.T).unflatten(0, (heads, size)).unflatten(2, (heads, size))  # (e, b, h, c)
    turned = torch.einsum("ca,haeb->hceb", reader.far, keys)
    trace = torch.einsum("hceb,ebhc->eh", turned, queries)
    found["matched"] = trace / written / reader.norms["matched"].clamp(min=_TINY)
    return found
