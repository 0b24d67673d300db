"""Fitted methods of a table as named arrays and facts, as a file keeps them, and back; nothing in them is executed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from weightspace.backdoors.neuron_set import NeuronSet, SetReader
from weightspace.backdoors.table_methods import Boosted, Learner, Mean, RankedLinear, TableMethod, Tuned
from weightspace.backdoors.trees import Trees
from weightspace.errors import NetworkError
from weightspace.metamodels.invariants import CLASS_FEATURES, NEURON_FEATURES, WHOLE, invariant_names
from weightspace.metamodels.order import NormalScores

Arrays = dict[str, np.ndarray]
COLUMNS = {"invariants": len(invariant_names())}
"""Numbers of the ways of reading that a method in a file may use."""


def stored(method: TableMethod | Learner) -> tuple[Arrays, dict[str, Any]]:
    """A fitted method as arrays by name, and facts, JSON-serialisable.

    Raises:
        TypeError: if it is of a kind that is not kept in files.
    """
    arrays: Arrays = {}
    facts: dict[str, Any] = {"kind": type(method).__name__}

    def add(name: str, part: TableMethod | Learner) -> dict[str, Any]:
        own, found = stored(part)
        arrays.update({f"{name}/{key}": array for key, array in own.items()})
        return found

    if isinstance(method, Mean):
        facts["parts"] = [add(str(number), part) for number, part in enumerate(method.parts)]
        facts["scale"] = [list(scale) for scale in method.scale]
    elif isinstance(method, Tuned):
        facts["readings"] = list(method.readings)
        facts["chosen"] = [add(str(number), one) for number, (one, _, _) in enumerate(method.chosen)]
        facts["scale"] = [[mean, deviation] for _, mean, deviation in method.chosen]
    elif isinstance(method, Boosted) and method.trees is not None:
        arrays |= method.trees.arrays()
    elif isinstance(method, RankedLinear) and method.knots is not None and method.coefficients is not None:
        arrays |= {"knots": method.knots.astype(np.float32), "coefficients": method.coefficients}
        facts["intercept"] = method.intercept
    elif isinstance(method, NeuronSet):
        facts["readers"] = len(method.fitted)
        for number, reader in enumerate(method.fitted):
            arrays |= {f"{number}/{name}": tensor.half().numpy() for name, tensor in reader.state_dict().items()}
        arrays |= {f"ranks/{number}": ranks.grid.numpy() for number, ranks in enumerate(method.ranks)}
    else:
        raise TypeError(f"a {type(method).__name__} that is not fitted, or of a kind that no file keeps")
    return arrays, facts


def restored(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> TableMethod:
    """What `stored` was given.

    Raises:
        NetworkError: if the arrays are not those of such a method.
    """
    try:
        return _method(arrays, facts)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        if isinstance(error, NetworkError):
            raise
        raise NetworkError(f"a fitted method is damaged ({error}): train the detector again") from None


def _method(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> TableMethod:
    if facts["kind"] == "Mean":
        parts = [_method(_below(arrays, number), part) for number, part in enumerate(facts["parts"])]
        return Mean(parts, [(float(mean), float(spread)) for mean, spread in facts["scale"]])
    if facts["kind"] == "Tuned":
        readings = tuple(map(str, facts["readings"]))
        columns = sum(COLUMNS[name] for name in readings)
        learners = [_learner(_below(arrays, number), one, columns) for number, one in enumerate(facts["chosen"])]
        scale = [(float(mean), float(deviation)) for mean, deviation in facts["scale"]]
        chosen = [(one, *of) for one, of in zip(learners, scale, strict=True)]
        return Tuned(readings, len(chosen) > 1, chosen=chosen)
    if facts["kind"] == "NeuronSet":
        return _neuron_set(arrays, int(facts["readers"]))
    raise NetworkError(f"a method of kind {facts['kind']!r} is not known: install the version that wrote it")


def _learner(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any], columns: int) -> Learner:
    if facts["kind"] == "Boosted":
        return Boosted(trees=Trees.from_arrays(arrays, columns))
    if facts["kind"] == "RankedLinear":
        knots, coefficients = arrays["knots"].astype(np.float64), arrays["coefficients"].astype(np.float64)
        if knots.ndim != 2 or knots.shape[1:] != coefficients.shape or len(coefficients) != columns:
            raise NetworkError(
                f"a linear model of {coefficients.shape} coefficients and knots of {knots.shape} is not one of "
                f"{columns} columns: the file is damaged, or of another version"
            )
        return RankedLinear(knots=knots, coefficients=coefficients, intercept=float(facts["intercept"]))
    raise NetworkError(f"a learner of kind {facts['kind']!r} is not known: install the version that wrote it")


def _neuron_set(arrays: Mapping[str, np.ndarray], readers: int) -> NeuronSet:
    found = NeuronSet(readers=readers)
    for number in range(readers):
        reader = SetReader()
        reader.load_state_dict({n: torch.from_numpy(a).float() for n, a in _below(arrays, number).items()})
        found.fitted.append(reader.eval())
    for number, features in enumerate((len(NEURON_FEATURES), len(CLASS_FEATURES), WHOLE)):
        ranks = NormalScores(1, features)
        ranks.load_state_dict({"grid": torch.from_numpy(arrays[f"ranks/{number}"].copy())})
        found.ranks.append(ranks)
    return found


def _below(arrays: Mapping[str, np.ndarray], number: int) -> Arrays:
    """The arrays of one part, by their names inside it."""
    start = f"{number}/"
    return {name.removeprefix(start): array.copy() for name, array in arrays.items() if name.startswith(start)}
