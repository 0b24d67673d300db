"""A tiny zoo of parents and children on scikit-learn's digits, for the tests of this folder."""

from dataclasses import replace
from functools import lru_cache

from weightspace.weights.network import Network
from weightspace.zoo.derivation import make_networks
from weightspace.zoo.networks import spec_of
from weightspace.zoo.plan import Choice, ZooConfig, plan
from weightspace.zoo.provenance_recipes import DERIVATIONS, lineage_small


def config(**changes: object) -> ZooConfig:
    """Parents and children of 1,333 weights on digits, of two epochs."""
    recipe = lineage_small()
    space = {**recipe.space, "epochs": Choice((2,))}
    small = replace(recipe, count=64, images="digits", image_size=None, image_count=400, space=space, family_size=8)
    fixed = {**recipe.fixed, "test_count": 50, "batch_size": 32}
    return replace(small, fixed=fixed, **changes)


@lru_cache(maxsize=32)
def network(number: int, derivation: tuple[str, ...] | None = None) -> Network:
    """Network `number` of the zoo, with a spec that knows its scalings; of a child how it is derived may be said."""
    wanted = plan(config(derivations=DERIVATIONS if derivation is None else (derivation,)), number)
    made = make_networks([wanted])[0]
    assert made.weights is not None
    return Network(spec_of(wanted.architecture), made.weights, dict(wanted.hyperparameters))
