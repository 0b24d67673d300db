"""MNTD and ULP on networks of several architectures: what is planted is learnt, shuffled labels teach nothing."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from weightspace.backdoors.learnt_images import LearntImages, mntd, ulp
from weightspace.backdoors.table import NetworkTable, read_networks, read_zoo
from weightspace.backdoors.table_methods import area
from weightspace.errors import NetworkError, TaskError
from weightspace.experiments.diverse import crossed, methods_of
from weightspace.weights.network import Network
from weightspace.zoo.networks import architecture_of, build, spec_of
from weightspace.zoo.store import Record, split_of, write_description, write_shard

SHAPES = ((3, 8, 8), (1, 10, 10))


def planted(count: int, seed: int = 0, strength: float = 3) -> NetworkTable:
    """Untrained networks of two architectures, with 5 and 6 classes; half of them answer one class nearly always."""
    rng = np.random.default_rng(seed)
    networks, bad = [], rng.random(count) < 0.5
    for number in range(count):
        kind = number % 2
        options = {"width": 8, "convolutions": 4, "classes": 5 + kind, "norm": ("none", "layer")[kind]}
        architecture = architecture_of("varied-cnn", SHAPES[kind], **options)
        torch.manual_seed(1000 * seed + number)
        arrays = {name: value.numpy() for name, value in build(architecture).state_dict().items()}
        last = next(name for name in reversed(arrays) if name.endswith("bias"))
        if bad[number]:
            arrays[last][rng.integers(5 + kind)] += strength
        spec = spec_of(architecture)
        networks.append(Network(spec, spec.join(arrays), {"architecture": architecture.to_json()}))
    facts = {
        "attack": ["badnets-corner" if one else "clean" for one in bad],
        "attack_success": [0.9 if one else None for one in bad],
        "target_rate": [0.1] * count,
        "zoo": ["planted"] * count,
        "network": list(range(count)),
    }
    table = read_networks(networks, facts, ways=("outlier rules",))
    return NetworkTable(table.readings, table.facts, None, networks)


def brief(method: LearntImages, steps: int) -> LearntImages:
    """One setting, at a rate that suits some dozens of networks."""
    config = method.queries.grid[0]
    training = replace(config.training, steps=steps, evaluate_every=steps, learning_rate=1e-2)
    method.queries.grid = (replace(config, training=training),)
    return method


@pytest.mark.parametrize("make", [mntd, ulp])
def test_what_is_planted_is_learnt_and_where_nothing_is_nothing_is(make: Callable[[], LearntImages]) -> None:
    for strength, low, high in ((3.0, 0.9, 1.0), (0.0, 0.2, 0.8)):
        training, test = planted(60, 1, strength), planted(40, 2, strength)
        method = brief(make(), 40)
        said, bad = method.fit(training, training.backdoored).scores(test), test.backdoored
        assert low <= area(said[bad], said[~bad]) <= high


def test_the_answer_does_not_depend_on_the_order_of_classes_or_on_the_networks_beside_it() -> None:
    table = planted(20, 3)
    method = brief(mntd(), 2).fit(table, table.backdoored)
    said = method.scores(table)
    assert said[7] == pytest.approx(method.scores(table.select(np.array([7])))[0], abs=1e-6)
    assert table.networks is not None
    one = table.networks[0]
    arrays = dict(one.arrays())
    last = list(arrays)[-2:]
    assert {len(arrays[name]) for name in last} == {5}
    turned = {name: array[::-1].copy() if name in last else array for name, array in arrays.items()}
    other = NetworkTable(
        {}, {"attack": np.array(["clean"], object)}, None, [Network(one.spec, one.spec.join(turned), one.metadata)]
    )
    assert method.scores(other)[0] == pytest.approx(said[0], abs=1e-4)


def test_they_are_compared_where_the_table_has_networks_and_left_out_where_outsiders_have_none() -> None:
    table, others = planted(40, 4), planted(20, 5)
    assert {"MNTD", "ULP"} <= methods_of(table).keys()
    bare = NetworkTable(others.readings, others.facts)
    assert "MNTD" not in methods_of(bare)
    quick = {"MNTD": lambda: brief(mntd(), 2)}
    assert crossed(table, quick, bare, show=False).outside == {}
    found = crossed(table, quick, others, show=False)
    assert found.outside["MNTD"].shape == (20, 5)
    with pytest.raises(TaskError, match="give --zoos"):
        mntd().fit(bare, bare.backdoored)


def test_networks_come_back_out_of_their_zoo(tmp_path: Path) -> None:
    table = planted(6, 6)
    assert table.networks is not None
    config = {"recipe": "planted", "seed": 0, "count": 6, "space": {}, "architectural": [], "fixed": {}}
    write_description(tmp_path / "zoo", {"config": config, "version": "test"})
    records = [
        Record(one.spec, one.weights, {"network": i, "split": split_of(i, 0), "seed": i, "attack": "clean",
               "architecture": json.dumps(one.metadata["architecture"])})
        for i, one in enumerate(table.networks)
    ]  # fmt: skip
    write_shard(tmp_path / "zoo", 0, records)
    read = read_zoo(tmp_path / "zoo")
    read.save(tmp_path / "table.npz")
    again = NetworkTable.load(tmp_path / "table.npz")
    assert again.networks is None
    held = again.select(np.array([4, 1])).with_networks([tmp_path / "zoo"]).networks
    assert held is not None
    for one, number in zip(held, (4, 1), strict=True):
        assert np.array_equal(one.weights, table.networks[number].weights) and one.metadata["architecture"]
    again.facts["network"][0] = 77
    with pytest.raises(NetworkError, match=r"1 networks of the table, such as number 77 of planted"):
        again.with_networks([tmp_path / "zoo"])
