"""A network in a file that may be larger than memory: its spec from the header alone, its arrays piece by piece."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weightspace.errors import NetworkError
from weightspace.files.checkpoints import FLOATING, Outline, outlines, pieces
from weightspace.files.tensors import METADATA_KEY
from weightspace.weights.network import description_of
from weightspace.weights.spec import Leaf, NetworkSpec, SpecError
from weightspace.weights.state_dict import STORED, Topology, natural_order, spec_of_state_dict


@dataclass(frozen=True)
class LeafFile:
    """A network of which only names, types and shapes have been read.

    Attributes:
        outline: of the file.
        spec: of the network; its leaves are arrays of the file.
    """

    outline: Outline
    spec: NetworkSpec

    @staticmethod
    def open(path: str | Path, specs: Iterable[NetworkSpec] = (), *, topology: Topology = "unknown") -> LeafFile:
        """Look at a checkpoint's header.

        Integer and boolean arrays (counters, masks) are left out.

        Args:
            specs: for a file that carries no description of ours: it is taken for a network of the first of these whose
                names and shapes its arrays have.
            topology: of a file that is none of them, see `spec_of_state_dict`; its arrays are put in natural order.
        Raises:
            NetworkError: if the file is missing, torn, no checkpoint, does not fit its own description, or holds an
                array of a type without a place here (float8, complex); it names the array where one is to blame.
            SpecError: if there are no floating-point arrays, or they contradict the topology.
        """
        found = outlines(path)[0]
        for name, dtype in found.dtypes.items():
            if dtype not in FLOATING and not re.fullmatch(r"BOOL|[IU]\d+", dtype):
                raise NetworkError(f"{path} holds array {name!r} as {dtype}: convert it to F32")
        shapes = found.floating
        if METADATA_KEY in found.metadata:
            return LeafFile(found, _described(found))
        for spec in specs:
            if shapes == {leaf.name: leaf.shape for leaf in spec.leaves}:
                return LeafFile(found, spec)
        dtypes = {name: STORED[found.dtypes[name]] for name in shapes}
        ordered = {name: shapes[name] for name in natural_order(shapes)}
        return LeafFile(found, spec_of_state_dict(ordered, topology=topology, dtypes=dtypes))

    def pieces(self, leaf: Leaf, most: int) -> Iterator[np.ndarray]:
        """A leaf's weights, flattened, as float32 pieces of at most `most`.

        Raises:
            NetworkError: if a weight is NaN or infinite, or the file ends too early; it names the leaf.
        """
        done = 0
        for piece in pieces(self.outline, leaf.name, most):
            finite = np.isfinite(piece)
            if not finite.all():
                raise NetworkError(
                    f"{self.outline.path} has a weight that is NaN or infinite as float32 in array {leaf.name!r}, at "
                    f"place {done + int(np.argmin(finite))} of {leaf.size}: leave it out or repair it"
                )
            done += len(piece)
            yield piece


def _described(found: Outline) -> NetworkSpec:
    """The spec that `Network.save` wrote into a file."""
    try:
        spec = NetworkSpec.from_json(description_of(found.path, found.metadata)["spec"])
        missing = [leaf.name for leaf in spec.leaves if found.floating.get(leaf.name) != leaf.shape]
        if missing or len(spec.leaves) != len(found.floating):
            raise SpecError(f"array {(missing or ['of another name'])[0]!r} is not as it says")
    except (KeyError, TypeError, json.JSONDecodeError, RecursionError, SpecError) as error:
        raise NetworkError(f"{found.path} does not fit its own description: {error}") from error
    return spec
