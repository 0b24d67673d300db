"""What a person asks a meta-model about: files of every kind and networks under other names, read as what they are."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from weightspace.errors import NetworkError, ScopeError, UnlikeWarning
from weightspace.metamodels.asking import Answers, asked
from weightspace.metamodels.checks import planted_examples
from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.metamodel import MetaModel
from weightspace.metamodels.scope import Scopes
from weightspace.train.config import TrainingConfig
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.spec import Leaf, NetworkSpec, plain
from weightspace.weights.state_dict import spec_of_state_dict

TINY = MetaModelConfig(
    chunk_size=8,
    width=8,
    depth=1,
    heads=1,
    pooling="mean",
    permute=False,
    training=TrainingConfig(steps=4, batch_size=32, evaluate_every=4, checkpoint_every=4, device="cpu"),
)


@pytest.fixture(scope="module")
def model() -> MetaModel:
    return MetaModel(TINY).fit(planted_examples(200, 0), planted_examples(60, 1))


def one() -> Network:
    return planted_examples(1, 9).networks[0]


def tensors(renamed: Mapping[str, str] = MappingProxyType({}), seed: int = 9) -> dict[str, torch.Tensor]:
    arrays = planted_examples(1, seed).networks[0].arrays()
    return {renamed.get(name, name): torch.from_numpy(array.copy()) for name, array in arrays.items()}


OTHER = {"0.weight": "encoder.weight", "0.bias": "encoder.bias", "1.weight": "head.weight", "1.bias": "head.bias"}


def test_a_network_under_other_names_is_matched_in_a_file_or_as_an_object(model: MetaModel, tmp_path: Path) -> None:
    expected = model.predict(one())
    assert isinstance(expected, Answers) and expected.notes == ((),) and expected.distance[0] < 1
    save_file(tensors(OTHER), tmp_path / "a.safetensors")
    torch.save(tensors(OTHER), tmp_path / "a.pt")
    shapes = {OTHER[leaf.name]: leaf.shape for leaf in one().spec.leaves}
    named = Network(spec_of_state_dict(shapes), one().weights)
    for source in (tmp_path / "a.safetensors", tmp_path / "a.pt", named):
        found = model.predict(source)
        assert isinstance(found, Answers)
        np.testing.assert_array_equal(found["scale"], expected["scale"])
        assert "encoder.weight is 0.weight" in found.notes[0][0]


def test_of_several_state_dicts_the_one_that_fits_is_read_and_of_two_that_fit_it_asks(
    model: MetaModel, tmp_path: Path
) -> None:
    expected = model.predict(one())
    path = tmp_path / "a.pt"
    torch.save({"model": tensors(), "pictures": {"x": torch.zeros(50, 3, 8, 8)}}, path)
    found = model.predict(path)
    assert isinstance(found, Answers) and "model was read" in found.notes[0][0]
    np.testing.assert_array_equal(found["scale"], expected["scale"])
    torch.save({"model": tensors(), "ema": tensors(seed=10)}, path)
    with pytest.raises(NetworkError, match=r"a\.pt holds 2 networks that fit \((model|ema), (model|ema)\)"):
        model.predict(path)
    torch.save({"model": tensors(), "best": tensors()}, path)  # one and the same
    np.testing.assert_array_equal(model.predict(path)["scale"], expected["scale"])


def test_a_shard_is_read_with_the_others_of_its_index(model: MetaModel, tmp_path: Path) -> None:
    arrays = list(tensors(OTHER).items())
    shards = {f"model-0000{n}-of-00002.safetensors": dict(arrays[2 * n - 2 : 2 * n]) for n in (1, 2)}
    for name, held in shards.items():
        save_file(held, tmp_path / name)
    index = {"weight_map": {array: name for name, held in shards.items() for array in held}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in (*shards, "model.safetensors.index.json"):
        np.testing.assert_array_equal(model.predict(tmp_path / name)["scale"], model.predict(one())["scale"])


def test_another_architecture_is_out_of_scope_by_its_first_difference(model: MetaModel, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(tensors(OTHER) | {"head.weight": torch.zeros(5, 8)}, path)
    said = r"a\.pt: .*its second layer, head\.weight, is \[5, 8\]; the meta-model's, 1\.weight, is \[4, 8\]"
    with pytest.raises(ScopeError, match=said):
        model.predict(path)
    torch.save(tensors() | {"2.weight": torch.zeros(4, 4)}, path)
    with pytest.raises(ScopeError, match=r"it also holds 2\.weight \[4, 4\]"):
        model.predict(path)
    torch.save({"x": torch.zeros(3, dtype=torch.int64)}, path)
    with pytest.raises(NetworkError, match="no array of floating-point numbers"):
        model.predict(path)


def test_a_network_unlike_the_training_networks_is_answered_about_with_a_warning(model: MetaModel) -> None:
    network = one()
    strange = Network(network.spec, network.weights * np.float32(30))
    with pytest.warns(UnlikeWarning, match=r"^network 2: It is unlike anything .*array '1.bias' has mean"):
        found = model.predict([network, strange])
    assert isinstance(found, Answers)
    assert found.distance[0] < 1 < found.distance[1]
    assert not found.notes[0] and "means little" in found.notes[1][0]
    assert found["scale"].shape == (2, 3)


def test_few_fresh_networks_of_the_same_kind_are_called_unlike(model: MetaModel) -> None:
    assert model.scopes is not None
    fresh = planted_examples(400, 5).networks
    # the limit lies above 97.5% of 60 networks by a quarter
    assert (model.scopes.distance(fresh) > 1).mean() <= 0.03
    lost = [Network(n.spec, np.zeros_like(n.weights)) for n in fresh[:20]]
    assert (model.scopes.distance(Population.of(lost)) > 1).all()


def test_arrays_that_do_not_go_together_are_noticed_although_each_alone_is_usual() -> None:
    """Two arrays whose deviations agree in all training networks, and not in this one."""
    spec = NetworkSpec(tuple(Leaf(f"{i}.weight", (6, 6), "kernel", (plain(6), plain(6))) for i in range(2)))

    def network(first: float, second: float, seed: int) -> Network:
        rng = np.random.default_rng(seed)
        return Network(spec, np.concatenate([rng.normal(0, s, 36) for s in (first, second)]).astype(np.float32))

    def alike(seed: int) -> Network:
        scale = float(np.exp(np.random.default_rng(seed).normal()))
        return network(scale, scale, seed)

    training, apart = ([alike(first + i) for i in range(count)] for first, count in ((0, 300), (500, 99)))
    scopes = Scopes.fit(Population.of(training), Population.of(apart))
    usual, odd = Population.of([alike(900)]), Population.of([network(0.15, 6.0, 901)])
    assert scopes.distance(usual)[0] < 1 < scopes.distance(odd)[0]
    assert "do not go together" in scopes.farthest(odd[0])


def test_networks_of_several_specs_are_each_compared_with_their_own_and_others_by_role() -> None:
    def network(width: int, scale: float, seed: int) -> Network:
        shapes = {"0.weight": (width, 3), "0.bias": (width,), "1.weight": (2, width)}
        spec = spec_of_state_dict(shapes, topology="chain")
        rng = np.random.default_rng(seed)
        arrays = {n: scale * rng.normal(size=s) / (s[1] ** 0.5 if len(s) > 1 else 1) for n, s in shapes.items()}
        return Network(spec, spec.join(arrays))

    def some(count: int, seed: int, scale: float = 1.0) -> Population:
        widths = [4, 8, 8, 16 + seed % 7]
        return Population.of([network(widths[i % 4], scale, 1000 * seed + i) for i in range(count)])

    scopes = Scopes.fit(some(200, 1), some(80, 1000))
    assert len(scopes.known) == 3 and scopes.rest is not None
    for width in (4, 8, 12):  # the last has a spec of its own
        usual, odd = Population.of([network(width, 1.0, 7)]), Population.of([network(width, 50.0, 7)])
        assert scopes.distance(usual)[0] < 1 < scopes.distance(odd)[0]
    assert "largest" in scopes.farthest(network(12, 50.0, 7)) or "smallest" in scopes.farthest(network(12, 50.0, 7))
    back = Scopes.from_json(json.loads(json.dumps(scopes.to_json())))
    np.testing.assert_allclose(back.distance(some(40, 3)), scopes.distance(some(40, 3)))


def test_the_scope_is_kept_in_the_file_and_a_file_of_before_says_that_it_cannot_tell(
    model: MetaModel, tmp_path: Path
) -> None:
    path = model.save(tmp_path)
    loaded = MetaModel.load(path)
    found, again = model.predict(one()), loaded.predict(one())
    assert isinstance(found, Answers) and isinstance(again, Answers)
    np.testing.assert_allclose(again.distance, found.distance)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    (key,) = header["__metadata__"]
    record = json.loads(header["__metadata__"][key])
    del record["scope"]
    header["__metadata__"][key] = json.dumps(record)
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + content[8 + length :])
    old = MetaModel.load(path).predict(one())
    assert isinstance(old, Answers) and np.isnan(old.distance).all() and "cannot tell" in old.notes[0][0]
    np.testing.assert_array_equal(old["scale"], found["scale"])


def test_too_few_training_networks_say_nothing_of_their_kind() -> None:
    few = planted_examples(10, 0).networks
    assert np.isnan(Scopes.fit(few, few).distance(few)).all()


def test_a_meta_model_of_several_specs_reads_a_file_that_fits_none_by_its_arrays(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(3, 2), "b.weight": torch.zeros(2, 3)}, tmp_path / "a.pt")
    specs = [spec_of_state_dict({"0.weight": (n, 5)}) for n in (3, 4)]
    found = asked(tmp_path / "a.pt", specs)
    assert [leaf.name for leaf in found.network.spec.leaves] == ["a.weight", "b.weight"] and found.difference
    torch.save({"x": {"a.weight": torch.zeros(3, 2)}, "y": {"b.weight": torch.zeros(2, 3)}}, tmp_path / "a.pt")
    with pytest.raises(NetworkError, match="holds 2 state dicts"):
        asked(tmp_path / "a.pt", specs)
