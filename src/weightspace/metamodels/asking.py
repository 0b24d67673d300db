"""Networks that a person asks about: files of any kind and networks, matched with those a meta-model was trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from weightspace.errors import NetworkError
from weightspace.files.checkpoints import FLOATING, Outline, outlines, read
from weightspace.files.shards import index_beside
from weightspace.files.tensors import METADATA_KEY
from weightspace.metamodels.contract import Predictions
from weightspace.weights.matching import MismatchError, match
from weightspace.weights.network import Network
from weightspace.weights.spec import NetworkSpec
from weightspace.weights.state_dict import load_state_dict, natural_order

WHOSE = "the meta-model"


@dataclass(frozen=True)
class Asked:
    """A network as a meta-model is to read it.

    Attributes:
        network: of a spec that the meta-model was trained on, where it can be matched with one.
        notes: what a person should know of how it was read, a sentence each.
        difference: what tells it from the networks that the meta-model was trained on; empty where nothing does.
    """

    network: Network
    notes: tuple[str, ...] = ()
    difference: str = ""


class Answers(dict[str, np.ndarray]):
    """Predictions about networks that a person asked about, and what should be known beside them.

    Attributes:
        distance: (n,) how far each network is from those that the meta-model was trained on: 1 is the farthest that is
            still of their kind, and beyond it an answer means little. NaN where the meta-model cannot tell.
        notes: of each network what a person should know of it, a sentence each.
    """

    def __init__(self, found: Predictions, distance: np.ndarray, notes: tuple[tuple[str, ...], ...]) -> None:
        super().__init__(found)
        self.distance, self.notes = distance, notes


def asked(source: Network | str | Path, specs: Sequence[NetworkSpec]) -> Asked:
    """A network out of a file or an object; arrays of other names are matched by what they do, shape and order.

    A file that `Network.save` wrote describes itself. Of several state dicts in a file the one that fits is taken.

    Args:
        specs: of the networks that the meta-model was trained on.
    Raises:
        NetworkError: if a file cannot be read, or holds several networks of which any may be meant.
    """
    if isinstance(source, Network):
        return _of_network(source, specs)
    # A shard of a network is no network: its index says where the others are
    parts = outlines(index_beside(Path(source)) or source)
    if METADATA_KEY in parts[0].metadata:
        return _of_network(Network.load(source), specs)
    found = {".".join(part.part) or "the file itself": _of_part(part, specs) for part in parts}
    fitting = {where: one for where, one in found.items() if isinstance(one, Asked)}
    if not fitting:
        return _unmatched(source, parts, next((one for one in found.values() if isinstance(one, str)), ""))
    (where, chosen), *others = fitting.items()
    if any(not np.array_equal(one.network.weights, chosen.network.weights) for _, one in others):
        raise NetworkError(
            f"{source} holds {len(fitting)} networks that fit ({', '.join(fitting)}): save the one that is meant in a "
            "file of its own"
        )
    if len(parts) > 1:
        return replace(chosen, notes=(*chosen.notes, f"Of its {len(parts)} state dicts {where} was read."))
    return chosen


def _of_part(part: Outline, specs: Sequence[NetworkSpec]) -> Asked | str:
    """A state dict as a network of the first spec that fits, or the sentence that says why none does."""

    def arrays(names: Sequence[str]) -> Mapping[str, np.ndarray]:
        return read(part, names)

    found = _matched(part.shapes, part.dtypes, arrays, specs)
    return found if isinstance(found, str) else replace(found, notes=(*part.notes, *found.notes))


def _of_network(network: Network, specs: Sequence[NetworkSpec]) -> Asked:
    if network.spec in specs:
        return Asked(network)
    shapes = {leaf.name: leaf.shape for leaf in network.spec.leaves}
    found = _matched(shapes, dict.fromkeys(shapes, "F32"), lambda _: network.arrays(), specs)
    if isinstance(found, str):
        return Asked(network, difference=found)
    return replace(found, network=replace(found.network, metadata=network.metadata))


def _matched(
    shapes: Mapping[str, tuple[int, ...]],
    types: Mapping[str, str],
    arrays: Callable[[Sequence[str]], Mapping[str, np.ndarray]],
    specs: Sequence[NetworkSpec],
) -> Asked | str:
    held = Counter(shape for name, shape in shapes.items() if types[name] in FLOATING)
    refused = ""
    # That of the nearest spec is the difference that is told; one that has shapes that are not there is not tried
    for number, spec in enumerate(sorted(specs, key=lambda spec: abs(len(spec.leaves) - held.total()))):
        if number and not Counter(leaf.shape for leaf in spec.leaves) <= held:
            continue
        try:
            found = match(spec, shapes, types, whose=WHOSE)
        except MismatchError as error:
            refused = refused or str(error)
            continue
        given = arrays(found.names)
        own = {leaf.name: given[name] for leaf, name in zip(spec.leaves, found.names, strict=True)}
        return Asked(Network(spec, spec.join(own)), found.notes)
    return refused


def _unmatched(source: str | Path, parts: Sequence[Outline], difference: str) -> Asked:
    """What a file holds by its arrays alone, which a meta-model of several specs may judge all the same."""
    whole = [part for part in parts if any(0 not in shape for shape in part.floating.values())]
    if not whole:
        raise NetworkError(f"{source} holds no array of floating-point numbers: give a file of weights")
    if len(whole) > 1:
        where = ", ".join(".".join(part.part) or "the file itself" for part in whole)
        raise NetworkError(
            f"{source} holds {len(whole)} state dicts ({where}), and none is a network that is known ({difference}): "
            "save the one that is meant in a file of its own"
        )
    names = natural_order(name for name, shape in whole[0].floating.items() if 0 not in shape)
    return Asked(load_state_dict(read(whole[0], names)), difference=difference)
