"""A head as one row of numbers of fixed length, whatever model it is from, out of its invariants."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from weightspace.heads.invariants import HeadInvariants
from weightspace.heads.kernels import SPAN

SHARPNESS = (0.3, 1.0)
"""By which kernels of a direction are multiplied before a softmax: how much of the stream may lie along it."""
WINDOWS = {"at 0": (0, 1), "at 1": (1, 2), "at 2 to 4": (2, 5), "at 5 to 15": (5, 16), "from 16": (16, SPAN)}
WAVES = {"under 8": (0, 8), "8 to 32": (8, 32), "32 to 256": (32, 256), "over 256": (256, math.inf)}
"""Wavelengths of rotary pairs, places a turn; what is not turned counts to the last."""
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """Rows of numbers, heads layer by layer.

    Attributes:
        names: of the columns.
        rows: (layers * heads, columns).
    """

    names: tuple[str, ...]
    rows: Float[Tensor, "heads columns"]

    def column(self, name: str) -> Float[Tensor, " heads"]:
        """One of them."""
        return self.rows[:, self.names.index(name)]


def fingerprints(found: HeadInvariants) -> Fingerprints:
    """The numbers of each head, and where each lies among those of its model's heads.

    The second half are ranks among the heads of the model as quantiles of a normal distribution: what is large differs
    from model to model, and what is larger than in other heads does less.
    """
    columns = _of_kernels(found) | _of_waves(found) | _of_values(found)
    columns |= _of_composition(found, predicted_previous(found))
    plain = torch.stack(list(columns.values()), 1)
    ranked = _ranks(plain)
    names = (*columns, *(f"{name}, among its model's heads" for name in columns))
    return Fingerprints(names, torch.cat((plain, ranked), 1))


def predicted_previous(found: HeadInvariants) -> Float[Tensor, " heads"]:
    """How much attention goes to the last place if queries and keys lay along one direction: the larger of two."""
    masses = [
        torch.cat([_softmax(getattr(kernels, name), 1.0)[:, 1] for kernels in found.kernels])
        for name in ("own", "shared")
    ]
    return torch.maximum(*masses)


def _softmax(kernel: Tensor, sharpness: float) -> Tensor:
    return (kernel * sharpness).softmax(1)


def _of_kernels(found: HeadInvariants) -> dict[str, Tensor]:
    columns: dict[str, Tensor] = {}
    for name in ("own", "shared"):
        kernel = torch.cat([getattr(each, name) for each in found.kernels])
        for sharpness in SHARPNESS:
            mass = _softmax(kernel, sharpness)
            for window, (first, last) in WINDOWS.items():
                columns[f"{name} direction {window}, times {sharpness:g}"] = mass[:, first:last].sum(1)
        centred = kernel - kernel.mean(1, keepdim=True)
        spread = centred.square().mean(1).sqrt().clamp(min=_TINY)
        for distance in range(4):
            columns[f"{name} direction, height at {distance}"] = centred[:, distance] / spread
        columns[f"{name} direction, spread"] = torch.log(spread + 1e-3)
    trace = torch.cat([each.trace for each in found.kernels])
    norm = torch.cat([each.norm for each in found.kernels]).clamp(min=_TINY)
    coherence = trace / norm / found.size**0.5
    for window, (first, last) in WINDOWS.items():
        columns[f"content {window}"] = coherence[:, first:last].mean(1)
    columns["content at 0 beyond far"] = columns["content at 0"] - columns["content from 16"]
    columns["content at 1 beyond far"] = columns["content at 1"] - columns["content from 16"]
    columns["size of scores"] = torch.log(norm.mean(1) + 1e-3)
    own = torch.cat([each.own_energy.sum(1) for each in found.kernels]).sqrt()
    columns["weight of the own direction"] = own / norm.mean(1)
    return columns


def _of_waves(found: HeadInvariants) -> dict[str, Tensor]:
    lengths = torch.cat((2 * math.pi / found.frequencies, torch.tensor([1e9], dtype=torch.float64)))
    columns: dict[str, Tensor] = {}
    for name, attribute in (("energy", "energy"), ("own energy", "own_energy")):
        energy = torch.cat([getattr(each, attribute) for each in found.kernels])
        share = energy / energy.sum(1, keepdim=True).clamp(min=_TINY)
        for wave, (first, last) in WAVES.items():
            columns[f"{name} at waves {wave}"] = share[:, (lengths >= first) & (lengths < last)].sum(1)
        columns[f"{name}, mean wave"] = (share * torch.log2(lengths.clamp(max=4096))).sum(1)
    cosine = torch.cat([each.cosine for each in found.kernels])
    slow = cosine[:, lengths[:-1] >= WAVES["over 256"][0]].sum(1)
    whole = torch.cat([each.energy.sum(1) for each in found.kernels]).sqrt().clamp(min=_TINY)
    still = torch.cat([each.trace.mean(1) for each in found.kernels]) if not cosine.shape[1] else slow
    columns["content of slow waves"] = still / whole / found.size**0.5
    return columns


def _of_values(found: HeadInvariants) -> dict[str, Tensor]:
    def together(name: str) -> Tensor:
        return torch.cat([getattr(each, name) for each in found.values])

    return {
        "values, trace": together("trace"),
        "values, positivity": together("positivity"),
        "values, rank": torch.log(together("rank").clamp(min=1)),
        "values, top": together("spectrum")[:, 0],
        "values, norm": torch.log(together("norm") + 1e-3),
    }


def _of_composition(found: HeadInvariants, previous: Float[Tensor, " heads"]) -> dict[str, Tensor]:
    between = found.composition
    scale = (found.width * found.size) ** 0.5
    matched = between.matched * scale
    heads = torch.arange(len(matched))
    first = heads // found.heads == 0  # nothing is written before the first layer
    looking = matched * previous[:, None]

    def most(products: Tensor) -> Tensor:
        return products.max(0).values.masked_fill(first, 0.0)

    return {
        "keys matched by what heads of the last place wrote": most(looking),
        "the same, summed": looking.sum(0),
        "keys matched by what any head wrote": most(matched),
        "keys made of earlier heads": most(between.key),
        "keys made of heads of the last place": most(between.key * previous[:, None]),
        "queries made of earlier heads": most(between.query),
        "values made of earlier heads": most(between.value),
        "read by later matches": matched.max(1).values,
        "read by later keys": between.key.max(1).values,
    }


def _ranks(rows: Float[Tensor, "heads columns"]) -> Float[Tensor, "heads columns"]:
    """Ranks among rows as quantiles of a normal distribution; equal numbers have the mean of their ranks."""
    below = (rows[None] < rows[:, None] - _TINY).double().sum(1)
    same = ((rows[None] - rows[:, None]).abs() <= _TINY).double().sum(1)
    share = (below + same / 2) / len(rows)
    return torch.special.ndtri(share.clamp(1e-4, 1 - 1e-4))
