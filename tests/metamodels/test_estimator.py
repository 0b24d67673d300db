"""A method as an estimator of scikit-learn: it learns, it is cloned and cross-validated, and it says what is wrong."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from torch.utils.data import DataLoader

from weightspace.errors import TaskError
from weightspace.metamodels.baselines.linear import StatisticsLinear
from weightspace.metamodels.checks import planted_examples
from weightspace.metamodels.estimator import NetworkClassifier
from weightspace.weights.network import Network


@pytest.fixture(scope="module")
def planted() -> tuple[list[Network], np.ndarray]:
    """Networks, and what is planted in their weights, in words."""
    examples = planted_examples(120, 0)
    (target,) = (target for target in examples.targets if target.name == "scale")
    return list(examples.networks), np.array(target.classes)[examples.labels["scale"]]


def test_it_learns_what_is_planted_and_is_cross_validated(planted: tuple[list[Network], np.ndarray]) -> None:
    networks, labels = planted
    estimator = NetworkClassifier(StatisticsLinear)
    scores = cross_val_score(estimator, networks, labels, cv=3)  # pyright: ignore
    assert scores.mean() > 0.8
    shuffled = np.random.default_rng(0).permutation(labels)
    chance = 1 / len(set(labels.tolist()))
    assert abs(cross_val_score(estimator, networks, shuffled, cv=3).mean() - chance) < 0.2  # pyright: ignore


def test_it_answers_in_the_classes_that_it_was_given(planted: tuple[list[Network], np.ndarray]) -> None:
    networks, labels = planted
    fitted = NetworkClassifier(StatisticsLinear).fit(networks, labels)
    assert set(fitted.predict(networks[:10])) <= set(labels.tolist())
    chances = fitted.predict_proba(networks[:10])
    assert chances.shape == (10, len(fitted.classes_)) and np.allclose(chances.sum(1), 1)
    numbers = NetworkClassifier(StatisticsLinear).fit(networks, (labels == labels[0]).astype(int))
    assert numbers.predict(networks[:3]).dtype.kind == "i"


def test_a_clone_has_the_same_settings_and_is_not_fitted(planted: tuple[list[Network], np.ndarray]) -> None:
    networks, _ = planted
    other = clone(NetworkClassifier(StatisticsLinear, validation=0.3, seed=5))
    assert isinstance(other, NetworkClassifier)
    assert (other.validation, other.seed) == (0.3, 5)
    with pytest.raises(NotFittedError, match="call fit"):
        other.predict(networks)


def test_on_matrices_it_keeps_what_scikit_learn_asks_of_an_estimator() -> None:
    # in a process of its own: one of the checks gives -1 for every setting, and here types are checked
    code = (
        "from sklearn.utils.estimator_checks import check_estimator; "
        "from weightspace.metamodels.baselines.linear import Linear; "
        "from weightspace.metamodels.estimator import NetworkClassifier; "
        "check_estimator(NetworkClassifier(Linear))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_matrix_of_flat_weights_is_the_networks_themselves(planted: tuple[list[Network], np.ndarray]) -> None:
    networks, labels = planted
    matrix = np.stack([network.weights for network in networks])
    of_networks = NetworkClassifier(StatisticsLinear).fit(networks, labels).predict_proba(networks)
    of_matrix = NetworkClassifier(StatisticsLinear, spec=networks[0].spec).fit(matrix, labels)
    assert np.array_equal(of_matrix.predict_proba(matrix), of_networks)
    assert np.array_equal(of_matrix.predict_proba(networks), of_networks)
    without = NetworkClassifier(StatisticsLinear).fit(matrix, labels).predict_proba(matrix)
    assert not np.array_equal(without, of_networks), "statistics of each array need to know the arrays"
    with pytest.raises(TaskError, match="give the spec of these networks"):
        NetworkClassifier(StatisticsLinear, spec=networks[0].spec).fit(matrix[:, 1:], labels)


def test_labels_that_do_not_fit_are_one_sentence(planted: tuple[list[Network], np.ndarray]) -> None:
    networks, labels = planted
    with pytest.raises(TaskError, match="give one for each"):
        NetworkClassifier(StatisticsLinear).fit(networks, labels[:-1])
    with pytest.raises(TaskError, match="at least two classes"):
        NetworkClassifier(StatisticsLinear).fit(networks, labels[:1].repeat(len(networks)))


def test_networks_of_one_architecture_are_batched_by_a_data_loader(planted: tuple[list[Network], np.ndarray]) -> None:
    networks, labels = planted
    rows = [(network.weights, str(label)) for network, label in zip(networks, labels, strict=True)]
    weights, names = next(iter(DataLoader(rows, batch_size=8)))  # pyright: ignore[reportArgumentType]
    assert tuple(weights.shape) == (8, networks[0].weights.size) and list(names) == labels[:8].tolist()
