"""What of a network's weights tells what it was trained on: paths from inputs to outputs, and second moments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from weightspace.errors import NetworkError
from weightspace.metamodels.baselines.linear import Linear
from weightspace.metamodels.contract import Examples
from weightspace.weights.layers import NormalLayer, layers_of, normal_form
from weightspace.weights.network import Network
from weightspace.weights.population import Population

WIDEST = 1_500
"""Numbers of a template, at most: of more convolutions the first are left out, and it begins at a later layer."""
COMPONENTS = 150
"""Principal components of second moments that a probe reads."""


def path_templates(network: Network) -> Float[np.ndarray, "outputs d"]:
    """The template of each output: the sum over all paths from an input to it, of the product of weights along them.

    Twice: once with all paths, once with those whose last step raises the output. Of an MLP that is W3 W2 W1, a picture
    for each class; of convolutions each place of each kernel is kept apart. A BatchNorm is a part of its kernel. No
    order and no scale of hidden neurons changes it. Of each column the mean over the outputs is taken, and its size is
    1: no answer depends on either.

    Raises:
        NetworkError: if the network's layers are no chain.
    """
    layers = normal_form(layers_of(network))
    return np.concatenate([_centred(_paths(layers, last)) for last in _lasts(layers[-1])], 1).astype(np.float32)


def _lasts(last: NormalLayer) -> tuple[np.ndarray, np.ndarray]:
    return last.kernel, np.maximum(last.kernel, 0)


def _paths(layers: Sequence[NormalLayer], last: np.ndarray) -> np.ndarray:
    """(outputs, inputs x places) sums over paths to the outputs whose last weights are (outputs, neurons, places)."""
    found = last
    for layer in reversed(layers[:-1]):
        if found.shape[1] != len(layer.kernel):
            raise NetworkError("its layers do not read each other one by one, so paths through them cannot be followed")
        if found.shape[2] * layer.kernel.shape[1] * layer.kernel.shape[2] > WIDEST:
            break
        found = np.einsum("cjq,jip->ciqp", found, layer.kernel)
        found = found.reshape(len(found), layer.kernel.shape[1], -1)
    return found.reshape(len(found), -1)


def _centred(table: np.ndarray) -> np.ndarray:
    table = table - table.mean(0)
    size = np.sqrt((table**2).mean())
    return table / size if size else table


def second_moments(network: Network) -> Float[np.ndarray, " d"]:
    """Second moments of the filters of each hidden layer, as seen from the inputs; no order of neurons changes them.

    Of each layer the sums over its neurons of the products of every two of a neuron's templates' numbers, upper half.

    Raises:
        NetworkError: as `path_templates`.
    """
    layers = normal_form(layers_of(network))
    found = []
    for depth in range(1, len(layers)):
        rows = _paths(layers[:depth], layers[depth - 1].kernel)
        size = np.sqrt((rows**2).sum(1).mean()) or 1.0
        moments = (rows / size).T @ (rows / size)
        found.append(moments[np.triu_indices(len(moments))])
    return np.concatenate(found)


class GramLinear(Linear):
    """Logistic or ridge regression on principal components of the filters' second moments, see `second_moments`."""

    name = "Gram + logistic"

    def __init__(self) -> None:
        super().__init__()
        self.components: tuple[np.ndarray, np.ndarray] | None = None

    def fit(self, training: Examples, validation: Examples) -> GramLinear:
        table = moments_of(training.networks)
        centre = table.mean(0)
        _, _, basis = np.linalg.svd(table - centre, full_matrices=False)
        self.components = centre, basis[:COMPONENTS]
        super().fit(training, validation)
        return self

    def _matrix(self, networks: Sequence[Network]) -> np.ndarray:
        assert self.components is not None, "fit comes first"
        centre, basis = self.components
        return (moments_of(Population.of(networks)) - centre) @ basis.T


def moments_of(networks: Population) -> Float[np.ndarray, "n d"]:
    """Second moments of networks of one architecture.

    Raises:
        NetworkError: if they are of several.
    """
    if len(networks.specs) > 1:
        raise NetworkError("second moments are compared within one architecture, and these networks have several")
    return np.stack([second_moments(network) for network in networks])
