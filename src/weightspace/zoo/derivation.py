"""Networks derived from others: finetuned, retargeted, distilled, merged, pruned, quantised, reordered, rescaled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from weightspace.errors import WeightspaceError
from weightspace.weights.network import Network
from weightspace.weights.scaling import random_scales, rescale
from weightspace.weights.spec import NetworkSpec
from weightspace.weights.symmetry import permute, random_permutation
from weightspace.zoo.networks import spec_of
from weightspace.zoo.records import TrainedNetwork, TrainingPlan
from weightspace.zoo.training import accuracy_of, train_networks

PRUNED = (0.2, 0.5)
"""Share of the weights that pruning sets to zero, uniform between these."""
BITS = (3, 4)
"""Bits to which quantising rounds, one of these."""
SPREAD = 0.7
"""Deviation of the logarithms of rescalings."""


class DerivationError(WeightspaceError):
    """A step that no network can be derived by."""


def make_networks(plans: Sequence[TrainingPlan], device: torch.device | str = "cpu") -> list[TrainedNetwork]:
    """Networks of plans of one shape of training: trained, or derived from their parents one by one."""
    if any(plan.derivation for plan in plans):
        return [derive(plan, device) if plan.derivation else train_networks([plan], device)[0] for plan in plans]
    return train_networks(plans, device)


def derive(plan: TrainingPlan, device: torch.device | str = "cpu") -> TrainedNetwork:
    """A network derived from its plan's parent, which is made anew from its own plan, so that each stands alone.

    Returns:
        with `measures["derived_accuracy"]`, on the test images of the plan's own classes; dropped if the parent is.
    Raises:
        DerivationError: on an unknown step, or a plan without a parent.
    """
    if plan.parent is None:
        raise DerivationError(f"network {plan.network} is to be derived and has no parent: give its plan one")
    unknown = set(plan.derivation) - STEPS.keys()
    if unknown:
        raise DerivationError(f"no network is derived by {min(unknown)!r}: there are {', '.join(STEPS)}")
    parent = _parent(_Key(plan.parent), str(device))
    weights, curves, dropped = parent.weights, dict[str, list[float]](), parent.dropped
    rng = np.random.default_rng([plan.seed, 0xDE71])
    for step in plan.derivation:
        if weights is None:
            break
        if step in TRAINED:
            trained = TRAINED[step](plan, weights, device)
            weights, curves, dropped = trained.weights, dict(trained.curves), trained.dropped
        else:
            weights = CHANGED[step](weights, spec_of(plan.architecture), rng)
    if weights is None:
        return TrainedNetwork(plan, None, curves, dropped or "diverged: the parent did")
    return TrainedNetwork(plan, weights, curves, None, {"derived_accuracy": accuracy_of(plan, weights, device)})


class _Key:
    """A plan as the key of a cache: two of one network and seed are the same."""

    def __init__(self, plan: TrainingPlan) -> None:
        self.plan = plan

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.plan == other.plan

    def __hash__(self) -> int:
        return hash((self.plan.network, self.plan.seed, self.plan.images, self.plan.epochs))


@lru_cache(maxsize=4)
def _parent(key: _Key, device: str) -> TrainedNetwork:
    """The parent, made once for the children that follow it in a shard."""
    return make_networks([key.plan], device)[0]


# -- steps that train --------------------------------------------------------------------------------------------------


def _finetune(plan: TrainingPlan, weights: np.ndarray, device: torch.device | str) -> TrainedNetwork:
    """Trained on, with images of its own."""
    return train_networks([_training(plan)], device, start=weights[None])[0]


def _distil(plan: TrainingPlan, weights: np.ndarray, device: torch.device | str) -> TrainedNetwork:
    """From an initialisation of its own, on the parent's answers to images of its own."""
    return train_networks([_training(plan)], device, teacher=weights[None])[0]


def _merge(plan: TrainingPlan, weights: np.ndarray, device: torch.device | str) -> TrainedNetwork:
    """The mean of the parent and of what finetuning makes of it."""
    tuned = _finetune(plan, weights, device)
    return tuned if tuned.weights is None else replace(tuned, weights=(tuned.weights + weights) / 2)


def _training(plan: TrainingPlan) -> TrainingPlan:
    return replace(plan, derivation=(), parent=None)


# -- steps that change weights -----------------------------------------------------------------------------------------


def _prune(weights: np.ndarray, spec: NetworkSpec, rng: np.random.Generator) -> np.ndarray:
    """The smallest weights of each kernel set to zero."""
    share = rng.uniform(*PRUNED)
    return _kernels(weights, spec, lambda w: np.where(np.abs(w) < np.quantile(np.abs(w), share), 0, w))


def _quantise(weights: np.ndarray, spec: NetworkSpec, rng: np.random.Generator) -> np.ndarray:
    """Each kernel rounded to evenly spaced numbers, symmetric about zero."""
    levels = 2 ** (int(rng.choice(BITS)) - 1) - 1

    def rounded(kernel: np.ndarray) -> np.ndarray:
        unit = np.abs(kernel).max() / levels
        return np.round(kernel / unit) * unit if unit else kernel

    return _kernels(weights, spec, rounded)


def _kernels(weights: np.ndarray, spec: NetworkSpec, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    changed = weights.copy()
    for leaf, place in spec.slices():
        if leaf.role == "kernel":
            changed[place] = change(changed[place])
    return changed


def _permute(weights: np.ndarray, spec: NetworkSpec, rng: np.random.Generator) -> np.ndarray:
    return permute(Network(spec, weights), random_permutation(spec, rng)).weights


def _rescale(weights: np.ndarray, spec: NetworkSpec, rng: np.random.Generator) -> np.ndarray:
    return rescale(Network(spec, weights), random_scales(spec, rng, SPREAD, exact=True)).weights


TRAINED: Mapping[str, Callable[[TrainingPlan, np.ndarray, Any], TrainedNetwork]] = {
    "finetune": _finetune,
    "retarget": _finetune,
    "distil": _distil,
    "merge": _merge,
}
"""Steps that train; to retarget is to finetune on other classes, which the plan decides."""
CHANGED: Mapping[str, Callable[[np.ndarray, NetworkSpec, np.random.Generator], np.ndarray]] = {
    "prune": _prune,
    "quantise": _quantise,
    "permute": _permute,
    "rescale": _rescale,
}
STEPS: Mapping[str, Any] = {**TRAINED, **CHANGED}
"""What a derivation is made of."""
