"""Which networks a meta-model knows: how far one is from those that it was trained on, array by array."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.spec import ROLES, NetworkSpec

SLACK = 1.5
"""A network may be so many times as far from the training networks as the farthest of the held-out ones."""
SLACK_TOGETHER = 1.25
"""Where arrays are judged together: so many times as far as nearly all of the held-out ones."""
NEARLY_ALL = 0.975
"""Their share: the farthest of all is often a network whose training failed, which tells nothing of the others."""
ENOUGH = 24
"""Networks of one spec from which it is learnt what they look like."""
SAMPLE = 2_000
"""Networks that are looked at, of more."""
MOST_TOGETHER = 256
"""Numbers up to which it is kept how they go together."""


@dataclass(frozen=True)
class Scope:
    """What training networks of one spec look like: mean and logarithm of the standard deviation of each array.

    Attributes:
        mean, deviation: (leaves, 2) of these over the training networks; NaN where none had such an array.
        limit: greatest distance that is still of their kind.
        together: (2 leaves, 2 leaves) inverse of how the standardised numbers correlate: the distance is then the root
            mean square of what they do not explain of one another. None: it is the greatest standardised distance.
    """

    mean: np.ndarray
    deviation: np.ndarray
    limit: float
    together: np.ndarray | None = None

    @staticmethod
    def fit(training: Population, held_out: Population) -> Scope:
        """The limit is `SLACK` times the farthest of `held_out`, networks that were not trained on."""
        return Scope.of_facts(array_facts(training), array_facts(held_out))

    @staticmethod
    def of_facts(training: np.ndarray, held_out: np.ndarray, *, together: bool = False) -> Scope:
        """The same from facts (n, leaves, 2), perhaps of arrays taken together."""
        there = np.ma.masked_invalid(training)
        mean = there.mean(0).filled(np.nan)
        deviation = np.maximum(there.std(0).filled(np.nan), 1e-6)
        inverse = None
        if together:
            standardised = np.nan_to_num((training - mean) / deviation).reshape(len(training), -1)
            count, numbers = standardised.shape
            # With few networks correlations are chance: the fewer, the more they are drawn towards none
            kept = max(0.0, min(0.95, 1 - numbers / count))
            inverse = np.linalg.inv(kept * (standardised.T @ standardised / count) + (1 - kept) * np.eye(numbers))
        far = Scope(mean, deviation, 1.0, inverse)._far(held_out)
        limit = SLACK_TOGETHER * np.quantile(far, NEARLY_ALL) if together else SLACK * far.max()
        return Scope(mean, deviation, max(1e-6, float(limit)), inverse)

    def _far(self, facts: np.ndarray) -> np.ndarray:
        away = np.nan_to_num((facts - self.mean) / self.deviation)  # an array that nothing is known of says nothing
        if self.together is None:
            return np.abs(away).max((1, 2))
        flat = away.reshape(len(away), -1)
        return np.sqrt(np.einsum("ni,ij,nj->n", flat, self.together, flat) / flat.shape[1])

    def distance_of(self, facts: np.ndarray) -> np.ndarray:
        """(n,) 1 at the limit, more beyond it, from facts (n, leaves, 2)."""
        return self._far(facts) / self.limit

    def distance(self, networks: Population) -> np.ndarray:
        """(n,) 1 at the limit, more beyond it."""
        return self.distance_of(array_facts(networks))

    def farthest(self, network: Network) -> str:
        """The array that is farthest from what the training networks have, in words."""
        names = [f"array {leaf.name!r}" for leaf in network.spec.leaves]
        return self.farthest_of(array_facts(Population.of([network]))[0], names)

    def farthest_of(self, facts: np.ndarray, names: list[str]) -> str:
        """The same from facts (leaves, 2), and what each row is called."""
        away = np.nan_to_num(np.abs((facts - self.mean) / self.deviation))
        leaf, which = np.unravel_index(away.argmax(), facts.shape)
        usual, own, spread = self.mean[leaf, which], facts[leaf, which], self.deviation[leaf, which]
        if which == 1:
            low, high, own = np.exp(usual - 2 * spread), np.exp(usual + 2 * spread), np.exp(own)
        else:
            low, high = usual - 2 * spread, usual + 2 * spread
        what = ("mean", "standard deviation")[int(which)]
        said = f"{names[int(leaf)]} has {what} {own:.3g}, of the training networks mostly {low:.3g} to {high:.3g}"
        if self.together is not None and away.max() < 3:
            return f"its arrays do not go together as theirs do; the oddest alone: {said}"
        return said

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            "mean": _listed(self.mean),
            "deviation": _listed(self.deviation),
            "limit": self.limit,
        }
        return record if self.together is None else record | {"together": _listed(self.together)}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Scope:
        together = record.get("together")
        return Scope(
            np.array(record["mean"], float),
            np.array(record["deviation"], float),
            float(record["limit"]),
            None if together is None else np.array(together, float),
        )


@dataclass(frozen=True)
class Scopes:
    """What the training networks of a meta-model look like, of whatever specs.

    Attributes:
        known: by a spec's signature, of specs that enough of them have.
        rest: by role in place of array, for networks of all other specs; None if there were too few to learn it.
    """

    known: Mapping[str, Scope]
    rest: Scope | None

    @staticmethod
    def fit(training: Population, held_out: Population) -> Scopes:
        """Limits are those of networks that were not trained on; where none has a spec, of the training networks."""
        training, held_out = _sample(training), _sample(held_out)
        held = {spec: held_out.select(positions) for spec, positions in held_out.groups()}
        known = {}
        for spec, positions in training.groups():
            if len(positions) < ENOUGH:
                continue
            facts = array_facts(training.select(positions))
            apart = array_facts(held[spec]) if spec in held else facts
            together = facts[0].size <= MOST_TOGETHER
            known[spec.signature] = Scope.of_facts(facts, apart, together=together)
        rest = None
        if len(training) >= ENOUGH and len(held_out):
            rest = Scope.of_facts(role_facts(training), role_facts(held_out))
        return Scopes(known, rest)

    def distance(self, networks: Population) -> np.ndarray:
        """(n,) 1 at the limit, more beyond it; NaN where nothing is known that could tell."""
        found = np.full(len(networks), np.nan)
        for spec, positions in networks.groups():
            scope = self.known.get(spec.signature)
            some = networks.select(positions)
            if scope is not None:
                found[positions] = scope.distance(some)
            elif self.rest is not None:
                found[positions] = self.rest.distance_of(role_facts(some))
        return found

    def farthest(self, network: Network) -> str:
        """What is farthest from what the training networks have, in words."""
        scope = self.known.get(network.spec.signature)
        if scope is not None:
            return scope.farthest(network)
        assert self.rest is not None  # something is known of every network that has a distance
        names = [f"the {'smallest' if extreme == 0 else 'largest'} {role}" for role in ROLES for extreme in (0, 1)]
        return self.rest.farthest_of(role_facts(Population.of([network]))[0], names)

    def unlike(self, network: Network, distance: float) -> str:
        """A sentence about a network whose `distance` is above 1."""
        return (
            f"It is unlike anything that the meta-model was trained on, {distance:.3g} times as far from it as any "
            f"network of its kind should be ({self.farthest(network)}): the answer means little."
        )

    def to_json(self) -> dict[str, Any]:
        known = {signature: scope.to_json() for signature, scope in self.known.items()}
        return {"known": known, "rest": None if self.rest is None else self.rest.to_json()}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Scopes:
        known = {signature: Scope.from_json(scope) for signature, scope in record["known"].items()}
        return Scopes(known, None if record["rest"] is None else Scope.from_json(record["rest"]))


def array_facts(networks: Population) -> np.ndarray:
    """(n, leaves, 2) mean and log standard deviation of every array; the networks share one spec."""
    (spec,) = networks.specs
    return np.concatenate(
        [
            _of_arrays(networks.read(block), spec)
            for block in np.array_split(np.arange(len(networks)), -(-len(networks) * spec.size // 2**24))
        ]
    )


def _of_arrays(weights: np.ndarray, spec: NetworkSpec) -> np.ndarray:
    """The same of flat weights (n, size), leaf by leaf, as whole networks in float64 would take twice the memory."""
    columns = (weights[:, place].astype(np.float64) for _, place in spec.slices())
    return np.stack([np.stack([c.mean(1), np.log(c.std(1) + 1e-8)], 1) for c in columns], 1)


def role_facts(networks: Population) -> np.ndarray:
    """(n, 2 roles, 2) the same of the arrays of each role with the least and the greatest deviation; NaN without any.

    Kernels as if every neuron read one input, so that layers of all widths can be compared.
    """
    found = np.full((len(networks), 2 * len(ROLES), 2), np.nan)
    for spec, positions in networks.groups():
        facts = array_facts(networks.select(positions))
        inputs = [leaf.size / leaf.shape[0] if leaf.role == "kernel" and leaf.shape else 1.0 for leaf in spec.leaves]
        facts += 0.5 * np.log(inputs)[None, :, None] * np.array([0.0, 1.0])
        for place, role in enumerate(ROLES):
            of_role = facts[:, [i for i, leaf in enumerate(spec.leaves) if leaf.role == role]]
            if of_role.shape[1]:
                for extreme, row in enumerate((of_role[:, :, 1].argmin(1), of_role[:, :, 1].argmax(1))):
                    found[positions, 2 * place + extreme] = of_role[np.arange(len(row)), row]
    return found


def _sample(networks: Population) -> Population:
    if len(networks) <= SAMPLE:
        return networks
    return networks.select(np.linspace(0, len(networks) - 1, SAMPLE).astype(np.int64))


def _listed(values: np.ndarray) -> list[Any]:
    """Nested lists for JSON, which knows no NaN."""
    listed = values.astype(object)
    listed[np.isnan(values)] = None
    return listed.tolist()
