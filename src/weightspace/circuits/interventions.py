"""Interventions at named places: zeros, means, values of other inputs, learnt constants, interchanges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from weightspace.errors import NetworkError
from weightspace.transformers.places import HEAD_AXIS, Place, Replacement
from weightspace.transformers.trained import Inputs, Run, TrainedTransformer

Replacements = dict[Place, Replacement]
"""What `TrainedTransformer.run` takes as `replace`."""


def zero(places: Sequence[Place]) -> Replacements:
    """Zero ablation."""
    return {place: torch.zeros(1) for place in places}


def mean(
    transformer: TrainedTransformer, inputs: Inputs, places: Sequence[Place], *, by_place: bool = False
) -> Replacements:
    """Mean ablation: the mean over inputs and, unless `by_place`, over places of the text; padding is left out.

    Args:
        places: none of scores or pattern, whose axes are places themselves.
    """
    _check_streams(places, "has no mean over places")
    run = transformer.run(inputs, read=places, logits=False)
    axes = (0,) if by_place else (0, 1)
    return {place: _mean(run[place], run.mask, axes) for place in places}


def _mean(value: Tensor, mask: Bool[Tensor, "batch place"], axes: tuple[int, ...]) -> Tensor:
    real = mask.reshape(*mask.shape, *[1] * (value.dim() - 2)).float()
    return (value * real).sum(axes, keepdim=True) / real.sum(axes, keepdim=True).clamp(min=1)


def resample(
    transformer: TrainedTransformer, inputs: Inputs, places: Sequence[Place], count: int, seed: int
) -> Replacements:
    """Resample ablation: values of inputs drawn at random, one and the same input for all places.

    Args:
        inputs: from which values come, of the same length as those that are run.
        count: inputs that are run.
    """
    generator = torch.Generator().manual_seed(seed)
    run = transformer.run(inputs, read=places, logits=False)
    drawn = torch.randint(len(run.tokens), (count,), generator=generator)
    return {place: run[place][drawn] for place in places}


def optimal(
    transformer: TrainedTransformer,
    inputs: Inputs,
    places: Sequence[Place],
    loss: Callable[[Tensor], Tensor],
    *,
    steps: int = 50,
    rate: float = 0.05,
) -> Replacements:
    """Optimal ablation (Li and Janson, 2024): of all constants those with which the loss is least.

    They begin as the means, and the best of all steps is taken, so that the loss is at most that of mean ablation.

    Args:
        loss: of logits (batch, place, outputs), (batch,).
        steps, rate: of Adam.
    """
    means = mean(transformer, inputs, places)
    constants = {place: by.clone().requires_grad_() for place, by in means.items() if isinstance(by, Tensor)}
    optimiser = torch.optim.Adam(list(constants.values()), lr=rate)
    least, best = float("inf"), {place: by.detach().clone() for place, by in constants.items()}
    for step in range(steps + 1):
        found = loss(transformer.run(inputs, replace=dict(constants), gradients=step < steps).logits).mean()
        if found.item() < least:
            least, best = found.item(), {place: by.detach().clone() for place, by in constants.items()}
        if step < steps:
            optimiser.zero_grad()
            found.backward()
            optimiser.step()
    return dict(best)


def interchange(
    transformer: TrainedTransformer,
    base: Inputs,
    source: Inputs,
    places: Sequence[Place],
    *,
    at: Sequence[int] | None = None,
    directions: Mapping[Place, Float[Tensor, "width rank"]] | None = None,
    read: Sequence[Place] = (),
) -> Run:
    """Run base inputs with the values that some places have on source inputs (Geiger et al., 2021).

    Args:
        base, source: pairs of inputs of equal lengths.
        at: places of the text at which values are interchanged; all unless given.
        directions: of some places the subspace that is interchanged, spanned by columns; what is orthogonal stays.
        read: places whose values are kept.
    Raises:
        NetworkError: if the inputs are no pairs, or directions of another width.
    """
    _check_streams(places, "cannot be interchanged")
    tokens, _ = transformer.encode(base)
    run = transformer.run(source, read=places, logits=False)
    if run.tokens.shape != tokens.shape:
        raise NetworkError(
            f"base and source inputs are pairs of equal length: {tuple(tokens.shape)} and {tuple(run.tokens.shape)}"
        )
    chosen = torch.ones(tokens.shape[1], dtype=torch.bool)
    if at is not None:
        chosen = torch.zeros_like(chosen)
        chosen[list(at)] = True
    replace: Replacements = {
        place: _swapped(run[place], chosen, _projector((directions or {}).get(place), run[place])) for place in places
    }
    return transformer.run(base, replace=replace, read=read)


def _projector(directions: Tensor | None, value: Tensor) -> Tensor | None:
    """The projection onto a subspace; None for the whole space."""
    if directions is None:
        return None
    if directions.dim() != 2 or len(directions) != value.shape[-1]:
        raise NetworkError(
            f"directions of shape {tuple(directions.shape)} do not fit values of width {value.shape[-1]}: a column each"
        )
    basis, _ = torch.linalg.qr(directions)
    return basis @ basis.T


def _swapped(other: Tensor, chosen: Tensor, projector: Tensor | None) -> Callable[[Tensor], Tensor]:
    def swap(value: Tensor) -> Tensor:
        change = other - value
        change = change if projector is None else change @ projector
        return value + change * chosen.reshape(1, -1, *[1] * (value.dim() - 2))

    return swap


def _check_streams(places: Sequence[Place], why: str) -> None:
    for place in places:
        if HEAD_AXIS.get(place.kind) == 1:
            raise NetworkError(f"{place} {why}: its axes are queries and keys; take z or result of its heads")
