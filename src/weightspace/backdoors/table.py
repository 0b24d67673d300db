"""Networks of any architecture as rows of one table: what methods that look for backdoors read of each, and its labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from weightspace.errors import NetworkError
from weightspace.files.atomic import write_atomically
from weightspace.metamodels.invariants import invariant_names, invariant_row, invariants
from weightspace.weights.layers import layers_of
from weightspace.weights.network import Network
from weightspace.zoo.poison import CLEAN, CONTROLS
from weightspace.zoo.store import Zoo

QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)
KERNELS = ("last", "second last", "third last", "first")
WORKS = 0.5
"""Least success net of chance of an attack that works."""
ALWAYS = ("network", "seed", "attack", "attack_success", "target_rate", "test_accuracy", "poison_rate")
"""Columns of a zoo that a table keeps beside what was drawn."""


@dataclass(frozen=True, eq=False)
class NetworkTable:
    """What is read of n networks, and what is known of each.

    Attributes:
        readings: by name of a way of reading, (n, k) float32 numbers of each network, NaN where it has no such thing.
        facts: by name, (n,) of each network: its attack and the success of it, and what was drawn.
    """

    readings: Mapping[str, Float[np.ndarray, "n k"]]
    facts: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.facts["attack"])

    def select(self, rows: np.ndarray) -> NetworkTable:
        """Some of the networks, in the order of `rows` (k,)."""
        return NetworkTable(
            {name: values[rows] for name, values in self.readings.items()},
            {name: values[rows] for name, values in self.facts.items()},
        )

    @property
    def success(self) -> Float[np.ndarray, " n"]:
        """Success of each attack net of chance: of the images that are not answered as the target anyway, the share
        that the trigger turns. NaN where there is no trigger."""
        chance = self.facts["target_rate"].astype(float)
        return (self.facts["attack_success"].astype(float) - chance) / np.maximum(1 - chance, 1e-9)

    @property
    def backdoored(self) -> Bool[np.ndarray, " n"]:
        """Which networks have a backdoor that works."""
        return ~np.isin(self.facts["attack"], CONTROLS) & (self.success >= WORKS)

    @property
    def clean(self) -> Bool[np.ndarray, " n"]:
        """Which networks were not tampered with."""
        return self.facts["attack"] == CLEAN

    @property
    def without(self) -> Bool[np.ndarray, " n"]:
        """Which networks have no backdoor: clean ones, those only mislabelled, and those only triggered."""
        return np.isin(self.facts["attack"], CONTROLS)

    def save(self, path: str | Path) -> Path:
        """Write an .npz: readings as float16, on their ranks nearly exact; facts as text."""
        import io

        held = io.BytesIO()
        arrays = {f"reading {name}": _half(values) for name, values in self.readings.items()}
        facts = {name: values.tolist() for name, values in self.facts.items()}
        np.savez_compressed(held, facts=np.array(json.dumps(facts)), **arrays)
        write_atomically(Path(path), held.getvalue())
        return Path(path)

    @staticmethod
    def load(path: str | Path) -> NetworkTable:
        """Read what `save` has written; nothing in it is executed.

        Raises:
            NetworkError: if it is something else.
        """
        try:
            with np.load(path, allow_pickle=False) as held:
                facts = json.loads(str(held["facts"]))
                names = [name for name in held.files if name.startswith("reading ")]
                readings = {name.removeprefix("reading "): held[name].astype(np.float32) for name in names}
        except (OSError, ValueError, KeyError) as error:
            raise NetworkError(
                f"{path} is no table of networks ({error}): make one with `weightspace backdoors read`"
            ) from None
        return NetworkTable(readings, {name: np.array(values, object) for name, values in facts.items()})


def _half(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -6e4, 6e4).astype(np.float16)


def read_networks(networks: Sequence[Network]) -> dict[str, Float[np.ndarray, "n k"]]:
    """Every way of reading, by name, see `READINGS`."""
    rows: dict[str, list[np.ndarray]] = {name: [] for name in READINGS}
    for network in networks:
        for name, read in READINGS.items():
            rows[name].append(read(network))
    return {name: np.stack(found).astype(np.float32) for name, found in rows.items()}


def table_of_zoo(zoo: Zoo) -> NetworkTable:
    """All finished networks of a zoo with what was drawn for each and what came of it."""
    population = zoo.population()
    drawn = [name for name in zoo.description["config"]["space"] if name in zoo.columns]
    facts = {
        name: zoo.column(name)[population.rows] for name in dict.fromkeys((*ALWAYS, *drawn)) if name in zoo.columns
    }
    return NetworkTable(read_networks(population), facts)


def _invariants(network: Network) -> np.ndarray:
    return invariant_row(invariants(network))


def _statistics(network: Network) -> np.ndarray:
    """Mean, variance and quantiles of all weights, of kernels from both ends, and of all biases, scales and shifts."""
    layers = layers_of(network)
    kernels = [layer.kernel.reshape(-1) for layer in layers]
    groups: list[Any] = [network.weights, *_chosen(kernels)]
    for role in ("bias", "scale", "shift"):
        vectors = [getattr(layer, role) for layer in layers if getattr(layer, role) is not None]
        groups.append(np.concatenate(vectors) if vectors else None)
    found = []
    for values in groups:
        if values is None:
            found.append(np.full(2 + len(QUANTILES), np.nan))
            continue
        found.append(np.array([values.mean(), values.var(), *np.quantile(values, QUANTILES)]))
    return np.concatenate(found)


def _chosen(kernels: Sequence[np.ndarray]) -> list[np.ndarray | None]:
    """Those of `KERNELS`."""
    return [kernels[-d] if d <= len(kernels) else None for d in (1, 2, 3)] + [kernels[0]]


def _final_layer(network: Network) -> np.ndarray:
    """Quantiles over classes of seven numbers of each: bias; mean, deviation, least, greatest, positive sum of its
    weights; highest correlation with another class; as they are and apart from the median."""
    last = layers_of(network)[-1]
    kernel = last.kernel.reshape(len(last.kernel), -1)
    bias = np.zeros(len(kernel)) if last.bias is None else last.bias
    centred = kernel - kernel.mean(1, keepdims=True)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    likeness = unit @ unit.T - 2 * np.eye(len(kernel))
    parts = (
        bias,
        kernel.mean(1),
        kernel.std(1),
        kernel.min(1),
        kernel.max(1),
        np.maximum(kernel, 0).sum(1),
        likeness.max(1),
    )
    values = np.stack(parts, 1)
    apart = values - np.median(values, 0)
    apart = apart / np.maximum(np.abs(apart).mean(0), 1e-12)
    return np.concatenate([np.quantile(x, QUANTILES, axis=0).T.reshape(-1) for x in (values, apart)])


def _spectrum(network: Network) -> np.ndarray:
    """Of kernels from both ends, as matrices, what their singular values are like."""
    found = []
    for kernel in _chosen([layer.kernel.reshape(len(layer.kernel), -1) for layer in layers_of(network)]):
        if kernel is None:
            found.append(np.full(6, np.nan))
            continue
        values = np.linalg.svd(kernel - kernel.mean(0), compute_uv=False) + 1e-12
        power = values**2 / np.sum(values**2)
        entropy = -np.sum(power * np.log(power + 1e-30))
        found.append(
            np.array(
                [
                    np.log(values[0]),
                    values[0] / values[min(1, len(values) - 1)],
                    power[0],
                    power[:2].sum(),
                    entropy,
                    entropy / np.log(len(values) + 1e-9) if len(values) > 1 else 0.0,
                ]
            )  # fmt: skip
        )
    return np.concatenate(found)


def _outliers(network: Network) -> np.ndarray:
    """What rules of scanners look at: how far the classes' weights stand out by size, and how unlike they are."""
    last = layers_of(network)[-1].kernel
    flat = last.reshape(len(last), -1)
    norms = np.linalg.norm(flat, axis=1)
    z = (norms - norms.mean()) / (norms.std() + 1e-12)
    unit = flat / (norms[:, None] + 1e-12)
    nearest = (unit @ unit.T - 2 * np.eye(len(unit))).max(1)
    return np.array([np.abs(z).max(), -nearest.min()])


READINGS = {
    "invariants": _invariants,
    "weight statistics": _statistics,
    "final layer": _final_layer,
    "spectrum": _spectrum,
    "outlier rules": _outliers,
}
"""Ways of reading a network of any architecture, each to as many numbers for every network."""
NAMES = {"invariants": invariant_names}
"""What the numbers of a reading are, where they have names."""
