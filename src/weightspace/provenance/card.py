"""A reader's card: trained on a zoo, scored on its test networks, as they are and after what people do to weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.errors import ScopeError
from weightspace.provenance.answer import STRANGE
from weightspace.provenance.questions import provenance_examples, question_of
from weightspace.provenance.reader import ProvenanceReader
from weightspace.provenance.study import score
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.zoo.derivation import CHANGED
from weightspace.zoo.networks import build, initialise, spec_of
from weightspace.zoo.records import Architecture
from weightspace.zoo.store import Zoo


def trained(zoo: Zoo, out: Path, fits: int) -> ProvenanceReader:
    """A reader trained on a zoo and written to a file."""
    reader = ProvenanceReader.train(zoo, fits=fits)
    reader.save(out)
    return reader


def figures(reader: ProvenanceReader, zoo: Zoo, foreign: Sequence[Zoo] = (), *, seed: int = 0) -> dict[str, Any]:
    """A reader's figures on a zoo's test networks, as they are and changed; and how many it calls unlike these of
    networks that were never trained, and of all networks of foreign zoos.

    Args:
        foreign: see `check_alike`.
    """
    test = provenance_examples(zoo, "test", question_of(zoo))
    networks = list(test.networks)
    rng = np.random.default_rng(seed)
    found: dict[str, Any] = {"test_networks": len(networks)}
    for name, change in _changes(rng).items():
        changed = Population.of([change(network) for network in networks])
        said = reader.outputs(changed)
        rows = {
            target.name: said[:, i] if target.is_quantity else np.stack([1 - said[:, i], said[:, i]], 1)
            for i, target in enumerate(reader.targets)
        }
        facts = {"score": score(rows, test), "flagged": _flagged(reader, changed)}
        if not test.targets[0].is_quantity:
            truth = np.stack([test.labels[target.name] for target in reader.targets], 1)
            right = (np.argsort(np.argsort(-said, 1), 1) < truth.sum(1, keepdims=True)) == (truth == 1)
            facts |= {
                "all_classes_right": float(right.all(1).mean()),
                "calibration_error": calibration_error(said, truth),
            }
        found[name] = facts
    fresh = Population.of([untrained(network, int(rng.integers(2**31))) for network in networks])
    found["untrained"] = {"flagged": _flagged(reader, fresh)}
    for other in foreign:
        everyone = other.population()
        images = other.description["config"]["images"]
        facts = {"images": images, "networks": len(everyone), "flagged": _flagged(reader, everyone)}
        found[f"foreign {other.folder.name}"] = facts
    return found


def check_alike(zoo: Zoo, foreign: Sequence[Zoo]) -> None:
    """Raise a ScopeError if a foreign zoo has networks of an architecture that the zoo has not."""
    for other in foreign:
        if not set(other.specs) <= set(zoo.specs):
            raise ScopeError(
                f"zoo {other.folder} has networks of other architectures than {zoo.folder}: leave it out of --foreign"
            )


def _changes(rng: np.random.Generator) -> Mapping[str, Callable[[Network], Network]]:
    """What people do to weights, by name."""

    def by(*steps: str) -> Callable[[Network], Network]:
        def change(network: Network) -> Network:
            spec = spec_of(Architecture.from_json(network.metadata["architecture"]))  # knows its scalings
            weights = network.weights
            for step in steps:
                weights = CHANGED[step](weights, spec, rng)
            return Network(network.spec, weights, network.metadata)

        return change

    return {
        "as_they_are": lambda network: network,
        "permuted_and_rescaled": by("permute", "rescale"),
        "pruned": by("prune"),
        "quantised": by("quantise"),
    }


def _flagged(reader: ProvenanceReader, networks: Population) -> float:
    return float((reader.typicality.p_values(reader.described(networks)) <= STRANGE).mean())


def untrained(network: Network, seed: int) -> Network:
    """A network of the same architecture as it is before training."""
    import torch

    architecture = Architecture.from_json(network.metadata["architecture"])
    module = build(architecture)
    initialise(module, "default", torch.Generator().manual_seed(seed), "uniform")
    arrays = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
    spec = network.spec
    return Network(spec, spec.join({leaf.name: arrays[leaf.name] for leaf in spec.leaves}), network.metadata)


def calibration_error(said: np.ndarray, truth: np.ndarray, bins: int = 10) -> float:
    """Mean difference of what is said and what is true over ten equally filled bins (expected calibration error).

    Args:
        said, truth: (n, k) probabilities, and 1 or 0.
    """
    order = np.argsort(said, axis=None)
    parts = zip(
        np.array_split(said.reshape(-1)[order], bins), np.array_split(truth.reshape(-1)[order], bins), strict=True
    )
    return float(np.mean([abs(one.mean() - other.mean()) for one, other in parts]))
