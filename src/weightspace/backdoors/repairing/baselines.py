"""Repairs of others, to be measured beside ours: finetuning and its kin, minimax unlearning, and pruning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from weightspace.backdoors.repairing.classifier import Classifier
from weightspace.backdoors.repairing.unlearning import distorted
from weightspace.zoo.networks import BatchNorm

NORMS = nn.LayerNorm | nn.GroupNorm | BatchNorm
Images = Float[Tensor, "n c h w"]
Labels = Int[Tensor, " n"]
Baseline = Callable[[Classifier, Images, Labels, torch.Generator], Classifier]
"""A network, clean images to repair it by, and their classes, to a repaired network."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a baseline trains: steps of Adam on `images` images each, flips and crops as ours has them."""

    rate: float
    steps: int = 120
    images: int = 96


def _batches(x: Images, y: Labels, tuning: Tuning, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    found = []
    for _ in range(tuning.steps):
        rows = torch.randint(len(x), (tuning.images,), generator=generator)
        found.append((distorted(x[rows], 2, generator, mixed=False), y[rows]))
    return found


def finetuned(network: Classifier, x: Images, y: Labels, tuning: Tuning, generator: torch.Generator) -> Classifier:
    """Trained further on clean images."""
    module = network.trainable()
    optimiser = torch.optim.Adam(module.parameters(), lr=tuning.rate)
    for images, labels in _batches(x, y, tuning, generator):
        optimiser.zero_grad()
        F.cross_entropy(module(images), labels).backward()
        optimiser.step()
    return network.with_module(module)


def sharpness_aware(
    network: Classifier, x: Images, y: Labels, tuning: Tuning, radius: float, generator: torch.Generator
) -> Classifier:
    """Trained further by the gradient at the worst weights nearby (Foret et al. 2021; as a repair Zhu et al. 2023, who
    choose the neighbourhood of each weight by its size)."""
    module = network.trainable()
    parameters = list(module.parameters())
    optimiser = torch.optim.Adam(parameters, lr=tuning.rate)
    for images, labels in _batches(x, y, tuning, generator):
        gradients = torch.autograd.grad(F.cross_entropy(module(images), labels), parameters)
        with torch.no_grad():
            length = torch.cat([(g * p.abs()).flatten() for g, p in zip(gradients, parameters, strict=True)]).norm()
            moves = [
                radius * p.square() * g / length.clamp(min=1e-12) for g, p in zip(gradients, parameters, strict=True)
            ]
            for parameter, move in zip(parameters, moves, strict=True):
                parameter.add_(move)
        optimiser.zero_grad()
        F.cross_entropy(module(images), labels).backward()
        with torch.no_grad():
            for parameter, move in zip(parameters, moves, strict=True):
                parameter.sub_(move)
        optimiser.step()
    return network.with_module(module)


def feature_shift(
    network: Classifier, x: Images, y: Labels, tuning: Tuning, weight: float, generator: torch.Generator
) -> Classifier:
    """FST (Min et al. 2023): the classifying layer starts anew and is kept away from what it was, at its old length,
    while all layers train."""
    module = network.trainable()
    last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
    before = last.weight.detach().clone()
    with torch.no_grad():
        bound = last.in_features**-0.5
        last.weight.uniform_(-bound, bound, generator=generator)
        if last.bias is not None:
            last.bias.zero_()
    optimiser = torch.optim.Adam(module.parameters(), lr=tuning.rate)
    for images, labels in _batches(x, y, tuning, generator):
        optimiser.zero_grad()
        loss = F.cross_entropy(module(images), labels) + weight * (last.weight * before).sum() / before.norm()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            last.weight.mul_(before.norm() / last.weight.norm().clamp(min=1e-12))
    return network.with_module(module)


def minimax(
    network: Classifier,
    x: Images,
    y: Labels,
    tuning: Tuning,
    radius: float,
    generator: torch.Generator,
    inner: int = 5,
) -> Classifier:
    """I-BAU (Zeng et al. 2022): unlearning of the perturbation, shared by a batch, that does most harm, with the
    gradient that goes through how the perturbation answers the weights (a fixed point iterated `inner` times).

    Args:
        radius: of the perturbation's Euclidean norm, in standardised pixels.
    """
    module = network.trainable()
    parameters = list(module.parameters())
    optimiser = torch.optim.Adam(parameters, lr=tuning.rate)
    shared = torch.zeros(1, *network.shape)
    for number, (images, labels) in enumerate(_batches(x, y, tuning, generator)):
        if number % 10 == 0:  # a new one for each round, as theirs
            shared = torch.zeros(1, *network.shape)
            for _ in range(inner):
                shared = _uphill(module, images, labels, shared, radius).detach()
        start = shared.clone().requires_grad_(True)
        harm = F.cross_entropy(module(images + start), labels)
        direct = torch.autograd.grad(harm, [start, *parameters], retain_graph=True)
        moved = _uphill(module, images, labels, start, radius)
        through = direct[0]
        for _ in range(inner):
            (more,) = torch.autograd.grad(moved, start, through, retain_graph=True)
            through = 0.1 * more + direct[0]
        implicit = torch.autograd.grad(moved, parameters, through, allow_unused=True)
        clean = torch.autograd.grad(F.cross_entropy(module(images), labels), parameters)
        for parameter, one, two, three in zip(parameters, direct[1:], implicit, clean, strict=True):
            parameter.grad = one + three + (0.1 * two if two is not None else 0)
        optimiser.step()
    return network.with_module(module)


def _uphill(module: nn.Module, images: Tensor, labels: Tensor, shared: Tensor, radius: float) -> Tensor:
    """One step of a shared perturbation towards more harm, inside its radius, that can be differentiated."""
    value = shared if shared.requires_grad else shared.clone().requires_grad_(True)
    harm = F.cross_entropy(module(images + value), labels)
    (gradient,) = torch.autograd.grad(harm, value, create_graph=True)
    moved = value + radius * gradient / gradient.norm().detach().clamp(min=1e-12)
    return moved * (radius / moved.norm().detach().clamp(min=radius))


# -- pruning ----------------------------------------------------------------------------------------------------------


def _units(module: nn.Module) -> list[tuple[str, list[str]]]:
    """What stands for a layer's neurons: the parameters whose first axis they are, by layer; normalisations where there
    are any, else convolutions."""
    layers = dict(module.named_modules())
    norms = [name for name, layer in layers.items() if isinstance(layer, NORMS)]
    chosen = norms or [name for name, layer in layers.items() if isinstance(layer, nn.Conv2d)]
    own = dict(module.named_parameters())
    return [(name, [f"{name}.{p}" for p in ("weight", "bias") if f"{name}.{p}" in own]) for name in chosen]


def neuron_pruning(
    network: Classifier,
    x: Images,
    y: Labels,
    tuning: Tuning,
    radius: float,
    limit: float,
    generator: torch.Generator,
) -> Classifier:
    """ANP (Wu and Wang 2021): neurons whose mask falls while the network must stay right although its neurons are
    perturbed adversarially; those below a limit are taken out. Masks multiply the scales of LayerNorm and GroupNorm as
    theirs do those of BatchNorm, or kernels where there is no normalisation.

    Args:
        radius: of the perturbations, relative to scale and shift.
        limit: of the masks, below which a neuron is taken out.
    """
    module = network.trainable().requires_grad_(False)
    units, own = _units(module), dict(module.named_parameters())
    masks = {name: torch.ones(len(own[arrays[0]]), requires_grad=True) for name, arrays in units}
    optimiser = torch.optim.SGD(masks.values(), lr=tuning.rate, momentum=0.9)

    def loss(images: Tensor, labels: Tensor, moves: Mapping[str, Tensor]) -> Tensor:
        changed = {}
        for name, arrays in units:
            for array in arrays:
                by = moves.get(array, torch.zeros(len(own[array])))
                factor = (masks[name] if array.endswith("weight") else 1.0) + by
                changed[array] = own[array] * factor.reshape(-1, *[1] * (own[array].ndim - 1))
        return F.cross_entropy(functional_call(module, changed, (images,)), labels)

    for images, labels in _batches(x, y, tuning, generator):
        moves = {
            array: (torch.rand(len(own[array]), generator=generator) * 2 - 1).mul(radius).requires_grad_(True)
            for _, arrays in units
            for array in arrays
        }
        worse = torch.autograd.grad(loss(images, labels, moves), list(moves.values()))
        moves = {
            array: (move.detach() + radius * gradient.sign()).clamp(-radius, radius)
            for (array, move), gradient in zip(moves.items(), worse, strict=True)
        }
        optimiser.zero_grad()
        (0.2 * loss(images, labels, {}) + 0.8 * loss(images, labels, moves)).backward()
        optimiser.step()
        with torch.no_grad():
            for mask in masks.values():
                mask.clamp_(0, 1)
    with torch.no_grad():
        for name, arrays in units:
            for array in arrays:
                own[array][masks[name] < limit] = 0
    return network.with_module(module)


def lipschitz_pruning(network: Classifier, limit: float) -> Classifier:
    """CLP (Zheng et al. 2022): channels of convolutions whose Lipschitz bound is `limit` standard deviations above
    their layer's mean are taken out, without data. The bound is the largest singular value of a channel's kernel times
    what the normalisation after it multiplies by; what LayerNorm and GroupNorm divide by is shared, and drops out.
    """
    module = network.trainable().requires_grad_(False)
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | NORMS)]
    for layer, after in zip(layers, [*layers[1:], None], strict=True):
        if not isinstance(layer, nn.Conv2d):
            continue
        bounds = torch.linalg.matrix_norm(layer.weight.flatten(2), 2)
        norm = after if isinstance(after, NORMS) else None
        if norm is not None:
            bounds = bounds * norm.weight.abs()
        if isinstance(norm, BatchNorm):
            bounds = bounds * torch.rsqrt(norm.running_var + norm.eps)
        high = bounds > bounds.mean() + limit * bounds.std()
        for array in (layer.weight, layer.bias, *(() if norm is None else (norm.weight, norm.bias))):
            if array is not None:
                array[high] = 0
    return network.with_module(module)
