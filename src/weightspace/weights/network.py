"""One network: a spec, its flat weights, and what is known about it; to and from safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.errors import NetworkError
from weightspace.files.atomic import write_atomically
from weightspace.files.tensors import METADATA_KEY, read_safetensors
from weightspace.notebook import card
from weightspace.weights.spec import NetworkSpec, SpecError


@dataclass(frozen=True, eq=False)
class Network:
    """The weights of one network.

    Attributes:
        spec: what the arrays are.
        weights: (spec.size,) float32, the arrays flattened row-major in leaf order.
        metadata: JSON-serialisable facts: `architecture` (how to build the module), labels, seeds, provenance.
    """

    spec: NetworkSpec
    weights: np.ndarray
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Network: {self.spec.size:,} weights in {len(self.spec.leaves)} arrays>"

    def _repr_html_(self) -> str:
        rows = [(leaf.name, " x ".join(map(str, leaf.shape)), leaf.role) for leaf in self.spec.leaves]
        known = {name: value for name, value in self.metadata.items() if isinstance(value, str | int | float)}
        return card(f"Network of {self.spec.size:,} weights", known, header=("array", "shape", "role"), rows=rows)

    def __post_init__(self) -> None:
        if self.weights.shape != (self.spec.size,) or self.weights.dtype != np.float32:
            raise NetworkError(
                f"the weights are {self.weights.dtype} of shape {self.weights.shape}; "
                f"the spec needs float32 of shape ({self.spec.size},)"
            )

    def arrays(self) -> dict[str, np.ndarray]:
        """Views of the named arrays, in leaf order."""
        return self.spec.split(self.weights)

    def check_finite(self) -> None:
        """Raise a NetworkError that names the array, if a weight is NaN or infinite."""
        check_finite(self.spec, self.weights, "the network")

    def save(self, path: str | Path) -> None:
        """Write a safetensors file with one float32 tensor a leaf, and the spec and metadata as its metadata.

        The file appears whole or not at all; tensors stand in the format's own order, the spec keeps ours.
        """
        from safetensors.numpy import save

        record = {"spec": self.spec.to_json(scalings=True), "metadata": dict(self.metadata)}
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays().items()}
        write_atomically(Path(path), save(arrays, {METADATA_KEY: json.dumps(record, sort_keys=True)}))

    @staticmethod
    def load(path: str | Path, specs: Iterable[NetworkSpec] = ()) -> Network:
        """Read a safetensors file.

        Args:
            specs: for a file that carries no description of ours: it is taken for a network of the first of these
                specs whose names and shapes its arrays have.
        Raises:
            NetworkError: if the file is missing, torn, no safetensors file, does not fit its own description, or
                carries none and fits no spec. `weightspace.weights.state_dict.load_state_dict` reads any other.
        """
        arrays, metadata = read_safetensors(path)
        if METADATA_KEY not in metadata:
            shapes = {name: array.shape for name, array in arrays.items()}
            for spec in specs:
                floating = all(array.dtype.kind == "f" for array in arrays.values())
                if floating and shapes == {leaf.name: leaf.shape for leaf in spec.leaves}:
                    return Network(spec, spec.join(arrays), {})
            raise NetworkError(
                f"{path} carries no weightspace description, and its arrays fit no network that is expected here: save "
                "it with Network.save, or read it with load_state_dict"
            )
        try:
            record = description_of(path, metadata)
            if not isinstance(record["metadata"], dict):
                raise TypeError("its metadata are no dictionary")
            spec = NetworkSpec.from_json(record["spec"])
            return Network(spec, spec.join(arrays), record["metadata"])
        except (KeyError, TypeError, json.JSONDecodeError, RecursionError, SpecError) as error:
            raise NetworkError(f"{path} does not fit its own description: {error}") from error


def description_of(path: str | Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What `Network.save` wrote about a network: `spec` and `metadata`.

    Raises:
        NetworkError: if it is the file of something else, such as a meta-model.
        KeyError, TypeError, json.JSONDecodeError, RecursionError: if it is damaged.
    """
    record = json.loads(metadata[METADATA_KEY])
    if "spec" not in record and "config" in record:
        raise NetworkError(
            f"{path} is no network but another file of weightspace, such as a meta-model or a checkpoint of its "
            "training: name the file of a network"
        )
    return record


def check_finite(spec: NetworkSpec, weights: np.ndarray, what: str) -> None:
    """Raise a NetworkError if flat weights (size,) hold a NaN or an infinity; it names `what` and the array."""
    finite = np.isfinite(weights)
    if not finite.all():
        first = int(np.argmin(finite))
        raise NetworkError(
            f"{what} has {int((~finite).sum())} weights that are NaN or infinite as float32, the first in array "
            f"{spec.leaf_at(first).name!r}: leave it out or repair it"
        )
