"""Networks of any architecture as rows of one table: what methods read of each, and what is known of it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from weightspace.errors import NetworkError
from weightspace.files.atomic import write_atomically
from weightspace.metamodels.invariants import Invariants, invariant_row, invariants
from weightspace.weights.layers import layers_of
from weightspace.weights.network import Network
from weightspace.weights.spec import NetworkSpec
from weightspace.weights.state_dict import load_state_dict
from weightspace.zoo.poison import CLEAN, CONTROLS
from weightspace.zoo.store import SHARDS, Shard, read_description

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
        sets: neurons and classes of each network, for methods that read these; None where they are not kept.
        networks: themselves, for methods that ask them; None where there are only numbers. They are not saved.
    """

    readings: Mapping[str, Float[np.ndarray, "n _"]]
    facts: Mapping[str, np.ndarray]
    sets: Sequence[Invariants] | None = None
    networks: Sequence[Network] | None = None

    def __len__(self) -> int:
        return len(self.facts["attack"])

    def select(self, rows: np.ndarray) -> NetworkTable:
        """Some of the networks, in the order of `rows` (k,)."""
        return NetworkTable(
            {name: values[rows] for name, values in self.readings.items()},
            {name: values[rows] for name, values in self.facts.items()},
            None if self.sets is None else [self.sets[row] for row in rows],
            None if self.networks is None else [self.networks[row] for row in rows],
        )

    def with_networks(self, folders: Sequence[str | Path]) -> NetworkTable:
        """The same with its networks, out of the zoos that it was read from.

        Raises:
            NetworkError: if one is in none of them.
        """
        found: dict[tuple[Any, Any], Network] = {}
        for folder in folders:
            networks, rows, config = _networks_of(folder)
            found |= {(config["recipe"], row["network"]): one for one, row in zip(networks, rows, strict=True)}
        keys = list(zip(self.facts["zoo"].tolist(), self.facts["network"].tolist(), strict=True))
        missing = [key for key in keys if key not in found]
        if missing:
            zoo, number = missing[0]
            raise NetworkError(
                f"{len(missing)} networks of the table, such as number {number} of {zoo}, are in none of the zoos given"
            )
        return replace(self, networks=[found[key] for key in keys])

    @staticmethod
    def joined(tables: Sequence[NetworkTable]) -> NetworkTable:
        """All networks of several tables; what is known in one alone is None in the others."""
        names = dict.fromkeys(name for table in tables for name in table.facts)
        facts = {
            name: np.concatenate([table.facts.get(name, np.full(len(table), None, object)) for table in tables])
            for name in names
        }
        ways = [name for name in tables[0].readings if all(name in table.readings for table in tables)]
        sets = [one for table in tables for one in table.sets or ()]
        readings = {name: np.concatenate([table.readings[name] for table in tables]) for name in ways}
        whole = all(table.sets is not None for table in tables)
        return NetworkTable(readings, facts, sets if whole else None)

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

    def save(self, path: str | Path, *, sets: bool = False) -> Path:
        """Write an .npz: numbers as float16, of which the ranks stay nearly as they are; facts as JSON.

        Args:
            sets: whether neurons and classes are written too: five times as much.
        """
        arrays = {f"reading {name}": _half(values) for name, values in self.readings.items()}
        if sets and self.sets is not None:
            layers = [layer for one in self.sets for layer in one.neurons]
            arrays |= {
                "neurons": _half(np.concatenate(layers)),
                "layer sizes": np.array([len(layer) for layer in layers]),
                "layers": np.array([len(one.neurons) for one in self.sets]),
                "classes": _half(np.concatenate([one.classes for one in self.sets])),
                "class counts": np.array([len(one.classes) for one in self.sets]),
                "whole": _half(np.stack([one.whole for one in self.sets])),
            }
        arrays["facts"] = np.array(json.dumps({name: values.tolist() for name, values in self.facts.items()}))
        held = io.BytesIO()
        np.savez_compressed(held, allow_pickle=False, **arrays)
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
                sets = _sets(held) if "neurons" in held.files else None
        except (OSError, ValueError, KeyError) as error:
            raise NetworkError(
                f"{path} is no table of networks ({error}): make one with `weightspace backdoors read`"
            ) from None
        return NetworkTable(readings, {name: np.array(values, object) for name, values in facts.items()}, sets)


def _half(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -6e4, 6e4).astype(np.float16)


def _sets(held: Mapping[str, np.ndarray]) -> list[Invariants]:
    neurons = np.split(held["neurons"].astype(np.float64), np.cumsum(held["layer sizes"])[:-1])
    classes = np.split(held["classes"].astype(np.float64), np.cumsum(held["class counts"])[:-1])
    ends = np.cumsum(held["layers"])
    return [
        Invariants(tuple(neurons[end - count : end]), of_class, whole.astype(np.float64))
        for end, count, of_class, whole in zip(ends, held["layers"], classes, held["whole"], strict=True)
    ]


def read_networks(
    networks: Iterable[Network], facts: Mapping[str, Sequence[Any]], ways: Sequence[str] | None = None
) -> NetworkTable:
    """Networks read in some ways, or in every one of `READINGS`, with facts of each by name.

    The fact `weights` is how many each has.
    """
    chosen = {name: READINGS[name] for name in (READINGS if ways is None else ways)}
    rows: dict[str, list[np.ndarray]] = {name: [] for name in chosen}
    sets: list[Invariants] = []
    sizes: list[int] = []
    for network in networks:
        sizes.append(network.spec.size)
        sets.append(invariants(network))
        for name, read in chosen.items():
            rows[name].append(invariant_row(sets[-1]) if read is None else read(network))
    facts = {**facts, "weights": sizes}
    columns = {name: np.array([*values, None], object)[:-1] for name, values in facts.items()}
    return NetworkTable({name: np.stack(found).astype(np.float32) for name, found in rows.items()}, columns, sets)


def read_zoo(folder: str | Path) -> NetworkTable:
    """The networks of a zoo that are there, finished or not, with what was drawn for each and what came of it; those
    with weights that are not finite are left out.

    Raises:
        ZooError: if it is no zoo, or a shard is torn.
        NetworkError: if it has no networks yet.
    """
    networks, rows, config = _networks_of(folder)
    drawn = config["space"]
    names = dict.fromkeys((*ALWAYS, *drawn))
    known = {name: [row.get(name) for row in rows] for name in names}
    # What all networks of a zoo have in common stands in its configuration alone
    common = {name: config.get(name) for name in ("images", "image_size", "family") if name not in known}
    common |= {name: value for name, value in config["fixed"].items() if name not in known}
    shared = {name: [value] * len(rows) for name, value in {**common, "zoo": config["recipe"]}.items()}
    return read_networks(networks, {**known, **shared})


def _networks_of(folder: str | Path) -> tuple[list[Network], list[dict[str, Any]], dict[str, Any]]:
    """The networks of a zoo that are there, with their architectures; their rows; and the zoo's configuration."""
    config = read_description(folder, "networks")["config"]
    networks: list[Network] = []
    rows: list[dict[str, Any]] = []
    for path in sorted((Path(folder) / SHARDS).glob("*.safetensors")):
        shard = Shard.open(path)
        specs = {name: NetworkSpec.from_json(record) for name, record in shard.specs.items()}
        kept = [row for row in shard.rows if row["row"] >= 0]
        # Of a network's checkpoints the last
        last = {row["network"]: row for row in sorted(kept, key=lambda row: row.get("epoch") or 0)}
        for row in last.values():
            weights = np.array(shard.matrices[row["signature"]][row["row"]])
            if np.isfinite(weights).all():  # a training that diverged is no network
                facts = {"architecture": json.loads(row["architecture"])} if row.get("architecture") else {}
                networks.append(Network(specs[row["signature"]], weights, facts))
                rows.append(row)
    if not rows:
        raise NetworkError(f"zoo {folder} holds no networks yet: run the same `weightspace zoo make` again")
    return networks, rows, config


def read_plain(folder: str | Path) -> NetworkTable:
    """The networks that `examples/train_many_plain_cnns.py` trained, of which no layer or recipe is the zoo's; those
    with weights that are not finite are left out.

    Raises:
        NetworkError: if there are none.
    """
    found = sorted(path for path in Path(folder).glob("*.json") if path.with_suffix(".safetensors").exists())
    if not found:
        raise NetworkError(f"{folder} holds no networks with their .json beside them")
    read = [(json.loads(path.read_bytes()), load_state_dict(path.with_suffix(".safetensors"))) for path in found]
    records, networks = zip(*(pair for pair in read if np.isfinite(pair[1].weights).all()), strict=True)
    names = list(dict.fromkeys(name for record in records for name in record))
    facts = {name: [record.get(name) for record in records] for name in names}
    facts["attack"] = [CLEAN if kind == "none" else f"plain {kind}" for kind in facts.pop("backdoor")]
    return read_networks(networks, facts)


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
        even = entropy / np.log(len(values)) if len(values) > 1 else 0.0
        second = values[min(1, len(values) - 1)]
        numbers = [np.log(values[0]), values[0] / second, power[0], power[:2].sum(), entropy, even]
        found.append(np.array(numbers))
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


READINGS: Mapping[str, Callable[[Network], np.ndarray] | None] = {
    "invariants": None,  # made of the sets
    "weight statistics": _statistics,
    "final layer": _final_layer,
    "spectrum": _spectrum,
    "outlier rules": _outliers,
}
"""Ways of reading a network of any architecture, each to as many numbers for every network."""
