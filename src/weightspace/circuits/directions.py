"""Directions along which a stream holds an S-op, fitted on inputs: its slope, and the span of its classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from weightspace.circuits.alignment import Alignment, Rows
from weightspace.rasp.functions import is_number
from weightspace.transformers.places import Place

RANKS = (1, 2, 4, 8, 16, 32)
"""Sizes of subspaces of classes that are tried, besides that of all of them where it is smaller."""
CLASSES = 512
"""Of more values than these no classes are made."""
MOST = 20_000
"""Places of the text on which directions are fitted."""
RIDGE = 1e-6
"""Share of the largest number of places at which a value stands that is added to all of them in least squares."""
LEAST = 1e-4
"""A direction of classes is left out where its singular value is below this share of the largest."""


def fitted_directions(
    alignment: Alignment, variable: str, place: Place, rows: Rows
) -> Iterator[Float[Tensor, "width rank"]]:
    """Subspaces in which a place may hold a variable, the small ones first.

    With x what stands there and v the variable: the slope cov(x, v) / var(v) of a number, which is what changes with it
    (least squares in the other direction, a probe, finds what tells it best, and the transformer need not read that);
    the span of the means of x for each value of v, by its main axes. Each of them as it is, of what is left where the
    mean of each place of the text is taken away, and of what is left where that of each place and token is. The
    span of what each value of v adds where x is the sum of what the values of all S-ops, the token and the place add,
    as means mix with v whatever goes with it. At the logits first those that say the variable.

    Args:
        rows: numbers of the inputs on which they are fitted.
    """
    own = alignment.readout.logits_of(variable) if place.kind == "logits" else ()
    if own:
        yield torch.eye(alignment.transformer.shape.outputs)[:, own]
    values = alignment.values[variable]
    codes = values.codes[rows]
    real = codes >= 0
    x = alignment.activations(place)[torch.from_numpy(rows), alignment.offset :][torch.from_numpy(real)]
    where = np.broadcast_to(np.arange(codes.shape[1]), codes.shape)[real]
    token = alignment.batch.codes[rows][real]
    v = codes[real].astype(np.int64)
    kept = np.random.default_rng(0).permutation(len(v))[:MOST] if len(v) > MOST else np.arange(len(v))
    x, where, token, v = x[torch.from_numpy(kept)], where[kept], token[kept], v[kept]
    if not len(v) or (v == v[0]).all():
        return
    numbers = None
    if all(map(is_number, values.values)):
        numbers = torch.tensor(np.array(values.values, np.float64)[v], dtype=torch.float32)
    groups = (np.zeros_like(v), where.astype(np.int64), where.astype(np.int64) * len(alignment.batch.vocab) + token)
    spans = []
    for group in groups:
        left = _within(x, group)
        if numbers is not None:
            slope = _slope(left, _within(numbers[:, None], group)[:, 0])
            if slope is not None:
                yield slope
        if 2 < len(np.unique(v)) <= CLASSES or numbers is None:
            spans.append(_class_axes(left, v))
    others = [other.codes[rows][real][kept] for name, other in alignment.values.items() if name != variable]
    if len(np.unique(v)) <= CLASSES or numbers is None:
        spans.append(_added_axes(x, v, [token, where, *others]))
    for rank in RANKS:
        for axes in spans:
            if axes.shape[1] >= rank:
                yield axes[:, :rank]
    for axes in spans:
        if 0 < axes.shape[1] not in RANKS:
            yield axes


def _within(x: Float[Tensor, "n width"], group: Int[np.ndarray, " n"]) -> Float[Tensor, "n width"]:
    """What is left of each row where the mean of its group is taken away."""
    number, of = np.unique(group, return_inverse=True)
    places = torch.from_numpy(of.reshape(-1))
    total = torch.zeros(len(number), x.shape[1]).index_add_(0, places, x)
    count = torch.bincount(places, minlength=len(number)).float()
    return x - (total / count[:, None])[places]


def _slope(x: Float[Tensor, "n width"], v: Float[Tensor, " n"]) -> Float[Tensor, "width 1"] | None:
    """cov(x, v) / var(v) of centred x and v; None where v does not vary."""
    spread = float(v @ v)
    if spread < 1e-9:
        return None
    slope = (x.T @ v / spread)[:, None]
    return slope if float(slope.norm()) > 0 else None


def _class_axes(x: Float[Tensor, "n width"], v: Int[np.ndarray, " n"]) -> Float[Tensor, "width rank"]:
    """Orthonormal axes of the span of the means of x for each value of v, the main ones first."""
    classes, of = np.unique(v, return_inverse=True)
    places = torch.from_numpy(of.reshape(-1))
    total = torch.zeros(len(classes), x.shape[1]).index_add_(0, places, x)
    count = torch.bincount(places, minlength=len(classes)).float()
    return _main_axes(total / count[:, None] * count.sqrt()[:, None])


def _added_axes(
    x: Float[Tensor, "n width"], v: Int[np.ndarray, " n"], others: Sequence[Int[np.ndarray, " n"]]
) -> Float[Tensor, "width rank"]:
    """Orthonormal axes of the span of what each value of v adds to x beside other variables, by least squares."""
    columns = [_one_hot(codes) for codes in (v, *others) if len(np.unique(codes)) <= CLASSES]
    if len(np.unique(v)) > CLASSES:
        return torch.zeros(x.shape[1], 0)
    design = torch.cat(columns, 1)
    design = design - design.mean(0)
    square = design.T @ design
    square.diagonal().add_(RIDGE * float(square.diagonal().max().clamp(min=1.0)))  # values may go together entirely
    added = torch.linalg.solve(square, design.T @ (x - x.mean(0)).double())[: columns[0].shape[1]]
    count = columns[0].sum(0)
    added = added - (count @ added) / count.sum()
    return _main_axes((added * count.sqrt()[:, None]).float())


def _one_hot(codes: Int[np.ndarray, " n"]) -> Float[Tensor, "n values"]:
    classes, of = np.unique(codes, return_inverse=True)
    return torch.nn.functional.one_hot(torch.from_numpy(of.reshape(-1)), len(classes)).double()


def _main_axes(means: Float[Tensor, "classes width"]) -> Float[Tensor, "width rank"]:
    """Orthonormal axes of the span of some vectors, the main ones first."""
    _, sizes, axes = torch.linalg.svd(means, full_matrices=False)
    kept = int((sizes > LEAST * sizes[0].clamp(min=1e-12)).sum()) if float(sizes[0]) > 1e-9 else 0
    return axes[: min(kept, max(RANKS))].T
