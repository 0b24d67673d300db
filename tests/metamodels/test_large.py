"""Large inputs: a file leaf by leaf in bounded memory, and a meta-model whose cost is linear in what it reads."""

import json
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from benchmarks import large
from tests.metamodels.test_metamodel import TINY
from weightspace.cli import main
from weightspace.errors import NetworkError, ScopeError
from weightspace.files.tensors import METADATA_KEY
from weightspace.metamodels import streaming
from weightspace.metamodels.checks import check_predictor, check_regressor, planted_examples
from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.contract import Examples
from weightspace.metamodels.hierarchical import LeafEmbedding, leaf_tokens
from weightspace.metamodels.learner import Answering
from weightspace.metamodels.metamodel import MetaModel, Transformer
from weightspace.metamodels.pretraining import PretrainedMetaModel
from weightspace.metamodels.streaming import embed_file, predict_file
from weightspace.weights.leaves import LeafFile
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.slots import Room
from weightspace.weights.spec import Leaf, NetworkSpec, SpecError, plain
from weightspace.weights.state_dict import load_state_dict

LEAVES = replace(TINY, reading="leaves", window=4)
SHAPES = {"a.weight": (20, 3, 3, 3), "a.bias": (20,), "b.weight": (50, 180), "b.bias": (50,), "c.weight": (3, 50)}
SLOWER = replace(TINY.training, learning_rate=1e-3, steps=300)
"""Four layers one above the other stay at a flat place at the rate that two of them bear."""
ROUNDING = 1e-5
"""Sums over some hundred float32 numbers of size 1 in another order."""


def arrays(seed: int = 0, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def untrained(config: MetaModelConfig = LEAVES, seed: int = 0) -> MetaModel:
    """A meta-model of random weights, its head too, that knows how the networks of `arrays` are scaled."""
    torch.manual_seed(seed)
    model = MetaModel(config)
    model.normaliser = large.PLAIN
    model.answering = Answering(planted_examples(1, 0).targets, ((0.0, 1.0),) * 2)
    model.model = Transformer(config, 2000, 5, Room(0)).eval()
    torch.nn.init.normal_(model.model.head.linear.weight)
    return model


@pytest.fixture(scope="module")
def fitted() -> MetaModel:
    return MetaModel(LEAVES).fit(planted_examples(300, 0), planted_examples(100, 1))


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("most", [1, 7, 1000, 10**9])
def test_the_pieces_of_a_file_are_the_network_that_it_holds(dtype: str, most: int, tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    stored = {name: tensor.to(getattr(torch, dtype)) for name, tensor in arrays().items()}
    save_torch({**stored, "a.num_batches_tracked": torch.tensor(3)}, path)
    file, whole = LeafFile.open(path), load_state_dict(path)
    assert file.spec == whole.spec and {leaf.dtype for leaf in file.spec.leaves} == {dtype}
    leaves = [leaf for leaf in file.spec.leaves if most > 1 or leaf.size < 100]
    for leaf in leaves:
        found = list(file.pieces(leaf, most))
        assert max(map(len, found)) == min(most, leaf.size) and {piece.dtype.name for piece in found} == {"float32"}
        np.testing.assert_array_equal(np.concatenate(found), whole.arrays()[leaf.name].reshape(-1))


def test_a_file_that_describes_itself_or_fits_a_known_spec_has_that_spec(tmp_path: Path) -> None:
    network = planted_examples(1, 0).networks[0]
    network.save(tmp_path / "own.safetensors")
    assert LeafFile.open(tmp_path / "own.safetensors").spec == network.spec
    save_file(network.arrays(), tmp_path / "other.safetensors")
    assert LeafFile.open(tmp_path / "other.safetensors", [network.spec]).spec == network.spec
    assert LeafFile.open(tmp_path / "other.safetensors").spec != network.spec  # bare arrays know no neurons


def test_pytorch_files_are_read_piece_by_piece_too(tmp_path: Path) -> None:
    torch.save(arrays(), tmp_path / "a.pt")
    save_torch(arrays(), tmp_path / "a.safetensors")
    model = untrained()
    np.testing.assert_array_equal(embed_file(tmp_path / "a.pt", model), embed_file(tmp_path / "a.safetensors", model))


def with_header(path: Path, change: Any) -> None:
    """Write a file anew after a change to its header."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + content[8 + length :])


def bad_value(path: Path, value: float) -> None:
    changed = arrays()
    changed["b.weight"].view(-1)[5000] = value
    save_torch(changed, path)


def contradict(header: dict[str, Any]) -> None:
    network = planted_examples(1, 0).networks[0]
    header["__metadata__"] = {METADATA_KEY: json.dumps({"spec": network.spec.to_json(), "metadata": {}})}


BROKEN = {
    r"'c\.weight' is not whole": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    r"'b\.weight' is not whole": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    r"array 'b\.bias' as F8_E4M3: convert it": lambda path: save_torch(
        {**arrays(), "b.bias": torch.zeros(50, dtype=torch.float8_e4m3fn)}, path
    ),
    r"of array 'a\.bias' the type 'Q9' is not known": lambda path: with_header(
        path, lambda header: header["a.bias"].update(dtype="Q9")
    ),
    r"NaN or infinite as float32 in array 'b\.weight', at place 5000 of 9000": lambda path: bad_value(
        path, float("nan")
    ),
    r"infinite as float32 in array 'b\.weight'": lambda path: bad_value(path, float("-inf")),
    r"does not fit its own description: array '0\.weight'": lambda path: with_header(path, contradict),
    "there is no file": lambda path: path.unlink(),
    "is empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_a_file_that_cannot_be_read_ends_in_one_sentence_that_names_the_array(sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    # In the order of the format: a.weight, b.weight, c.weight do not stand last otherwise
    save_torch(arrays(), path)
    embed_file(path, untrained())
    BROKEN[sentence](path)
    with pytest.raises(NetworkError, match=sentence) as error:
        embed_file(path, untrained())
    assert "\n" not in str(error.value)


def test_a_file_that_is_cut_off_while_it_is_read_names_the_array(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    save_torch(arrays(), path)
    file = LeafFile.open(path)
    path.write_bytes(path.read_bytes()[:8000])
    with pytest.raises(NetworkError, match=r"array 'b\.weight' of .* cannot be read any more: it ends \d+ numbers"):
        list(file.pieces(file.spec.leaves[2], 100))


def test_a_file_without_numbers_is_refused(tmp_path: Path) -> None:
    save_torch({"steps": torch.tensor([1, 2])}, tmp_path / "a.safetensors")
    with pytest.raises(SpecError, match="no floating-point arrays"):
        LeafFile.open(tmp_path / "a.safetensors")
    save_torch({"w": torch.ones(2, 3), "none": torch.ones(0, 3)}, tmp_path / "b.safetensors")
    with pytest.raises(SpecError, match=r"array 'none' of shape \(0, 3\) holds no number: leave it out"):
        LeafFile.open(tmp_path / "b.safetensors")


def test_of_a_file_of_many_gigabytes_only_the_header_is_read_at_first(tmp_path: Path) -> None:
    path, size = tmp_path / "huge.safetensors", 20 * 2**30
    raw = json.dumps({"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + size)  # a hole, which takes no room on disk
    found = LeafFile.open(path)
    assert found.spec.size == size // 4
    assert len(next(found.pieces(found.spec.leaves[0], 1000))) == 1000


# -- the same vectors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["first", "mean", "extremes"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_network_leaf_by_leaf_is_the_network_as_a_whole(
    pooling: Any, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = untrained(replace(LEAVES, pooling=pooling, embedding="mlp"))
    path = tmp_path / "network.safetensors"
    save_torch({name: 0.02 * tensor.to(getattr(torch, dtype)) for name, tensor in arrays().items()}, path)
    network = load_state_dict(path)
    whole = model.embed([network])[0]
    assert whole.shape == (LEAVES.width * (2 if pooling == "extremes" else 1),) and np.abs(whole).max() > 0.1
    for chunks in (4, 13, 1024):  # one window at a time, three, and all
        monkeypatch.setattr(streaming, "AT_ONCE", chunks)
        np.testing.assert_allclose(embed_file(path, model), whole, atol=ROUNDING)
        for name, answers in predict_file_of(path, model, network).items():
            np.testing.assert_allclose(answers, model.predict([network])[name], atol=ROUNDING)


def predict_file_of(path: Path, model: MetaModel, network: Network) -> dict[str, np.ndarray]:
    model.specs = (network.spec,)
    return predict_file(path, model)


def test_one_weight_of_one_leaf_moves_the_vector_by_more_than_rounding(tmp_path: Path) -> None:
    model, changed = untrained(), arrays()
    save_torch(changed, tmp_path / "a.safetensors")
    changed["b.weight"][7, 7] += 3
    save_torch(changed, tmp_path / "b.safetensors")
    difference = embed_file(tmp_path / "a.safetensors", model) - embed_file(tmp_path / "b.safetensors", model)
    assert np.abs(difference).max() > 10 * ROUNDING


def test_networks_of_several_shapes_are_embedded_together_as_alone() -> None:
    """Padding, of windows and of leaves, changes nothing but rounding."""
    wide = NetworkSpec((Leaf("w", (70, 9), "kernel", (plain(70), plain(9))), Leaf("b", (9,), "bias", (plain(9),))))
    many = NetworkSpec(tuple(Leaf(f"{i}", (3,), "bias", (plain(3),)) for i in range(21)))
    rng = np.random.default_rng(0)
    networks = [
        Network(spec, rng.normal(0, 0.02, spec.size).astype(np.float32)) for spec in (wide, many, wide, many, many)
    ]
    assert leaf_tokens(torch.zeros(1, wide.size), wide, large.PLAIN, 8, 4).mask.shape[1] == 21  # as many as of `many`
    for pooling in ("first", "mean", "extremes"):
        model = untrained(replace(LEAVES, pooling=pooling))
        together = model.embed(networks)
        alone = np.concatenate([model.embed([network]) for network in networks])
        np.testing.assert_allclose(together, alone, atol=ROUNDING)
        assert np.abs(together[0] - together[2]).max() > 10 * ROUNDING
    assert untrained().embed([]).shape == (0, LEAVES.width)


def test_a_chunk_attends_to_its_window_and_a_leaf_to_itself() -> None:
    embedding = LeafEmbedding(LEAVES).eval()
    spec = planted_examples(1, 0).networks[0].spec
    weights = torch.randn(1, spec.size, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    weights[1, 0] += 1  # in the first of two windows of the first leaf
    tokens = leaf_tokens(weights, spec, large.PLAIN, 8, 4)
    assert tokens.places is not None and tokens.places[0].tolist() == [[0, 4], [0, 2], [1, 1], [2, 4], [3, 1]]
    with torch.no_grad():
        before, after = (
            embedding.gather(tokens.values[i], tokens.places[i, :, 1], tokens.kinds[i])[0] for i in range(2)
        )
        leaves, mask = embedding(tokens)
    assert ((before - after).abs().amax(1) > 1e-6).tolist() == [True, False, False, False, False]
    assert ((leaves[0] - leaves[1]).abs().amax(1) > 1e-6).tolist() == [True, False, False, False]
    assert mask.shape == (2, 4) and mask.all()


def test_the_cost_is_linear_in_the_weights_where_attention_over_all_chunks_is_not() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    def flops(config: MetaModelConfig, rows: int) -> int:
        spec = NetworkSpec((Leaf("w", (rows, 64), "kernel", (plain(rows), plain(64))),))
        model = untrained(config)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.model.pooled(model.as_tokens(torch.ones(1, spec.size), spec))
        return counter.get_total_flops()

    # Masked attention is counted by its matrices in both, which is what it computes
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        growth = flops(LEAVES, 200) / flops(LEAVES, 50)
        assert 3.9 < growth < 4.1
        assert flops(replace(LEAVES, reading="chunks"), 200) / flops(replace(LEAVES, reading="chunks"), 50) > 6


# -- as a predictor ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="mean"),
        pytest.param(
            {"pooling": "first", "embedding": "mlp", "window_depth": 2, "training": SLOWER},
            id="first",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_it_keeps_the_contract_and_learns_what_is_planted_and_nothing_from_shuffled_labels(
    changes: dict[str, Any],
) -> None:
    check_predictor(lambda: MetaModel(replace(LEAVES, **changes)))


def test_it_answers_with_numbers() -> None:
    check_regressor(lambda: MetaModel(LEAVES))


def test_it_comes_back_from_disk_and_answers_the_same_about_a_file(
    fitted: MetaModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = MetaModel.load(fitted.save(tmp_path / "run"))
    assert loaded.config == replace(LEAVES, training=replace(LEAVES.training, device="auto"))
    network = planted_examples(1, 7).networks[0]
    network.save(tmp_path / "network.safetensors")
    for name, said in fitted.predict([network]).items():
        np.testing.assert_array_equal(loaded.predict([network])[name], said)
        np.testing.assert_allclose(predict_file(tmp_path / "network.safetensors", loaded)[name], said, atol=ROUNDING)
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "network.safetensors"), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    probabilities = list(answer["targets"]["scale"].values())
    np.testing.assert_allclose(probabilities, fitted.predict([network])["scale"][0], atol=ROUNDING)
    Network(
        network.spec, np.where(np.arange(network.spec.size) == 50, np.nan, network.weights).astype(np.float32)
    ).save(tmp_path / "network.safetensors")
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "network.safetensors")]) == 2
    assert "NaN or infinite as float32, the first in array '0.bias'" in capsys.readouterr().err


def test_a_network_of_another_shape_has_a_vector_and_no_answer(fitted: MetaModel, tmp_path: Path) -> None:
    save_torch(arrays(), tmp_path / "other.safetensors")
    assert np.isfinite(embed_file(tmp_path / "other.safetensors", fitted)).all()
    with pytest.raises(ScopeError, match="out of scope"):
        predict_file(tmp_path / "other.safetensors", fitted)


def test_networks_of_other_widths_can_be_judged_where_that_is_asked_for(tmp_path: Path) -> None:
    short = replace(LEAVES, other_widths=True, training=replace(LEAVES.training, steps=2))
    training = planted_examples(40, 0)
    names = {leaf.name: leaf.shape for leaf in training.networks[0].spec.leaves}
    save_torch(
        arrays(0, {name: tuple(3 * n for n in shape) for name, shape in names.items()}), tmp_path / "wide.safetensors"
    )
    assert predict_file(tmp_path / "wide.safetensors", MetaModel(short).fit(training, training))["sign"].shape == (1, 2)
    strict = MetaModel(replace(short, other_widths=False)).fit(training, training)
    with pytest.raises(ScopeError, match="out of scope"):
        predict_file(tmp_path / "wide.safetensors", strict)


def test_trained_on_several_shapes_it_judges_networks_of_no_more_leaves() -> None:
    examples = planted_examples(20, 0)
    known = examples.networks[0].spec
    other = NetworkSpec((*known.leaves, Leaf("more", (5,), "bias", (plain(5),))), known.groups)
    networks = [*examples.networks, *(Network(other, np.ones(other.size, np.float32)) for _ in range(20))]
    both = Examples(
        Population.of(networks), {k: np.concatenate([v, v]) for k, v in examples.labels.items()}, examples.targets
    )
    model = MetaModel(replace(LEAVES, training=replace(LEAVES.training, steps=2))).fit(both, both)
    small = NetworkSpec((Leaf("w", (500, 3), "kernel", (plain(500), plain(3))),))
    assert model.predict([Network(small, np.ones(1500, np.float32))])["sign"].shape == (1, 2)
    deep = NetworkSpec(tuple(Leaf(f"{i}", (3,), "bias", (plain(3),)) for i in range(6)))
    with pytest.raises(ScopeError, match="at most 5 leaves"):
        model.predict([Network(deep, np.ones(18, np.float32))])


def test_what_does_not_go_with_leaves_is_refused(tmp_path: Path) -> None:
    for options in ({"summary": True}, {"window": 0}, {"window": 257}, {"window_depth": 0}):
        with pytest.raises(ValueError, match="will not do: choose"):
            replace(LEAVES, **options)
    with pytest.raises(ValueError, match="read chunks or neurons"):
        PretrainedMetaModel(LEAVES, steps=1)
    save_torch(arrays(), tmp_path / "a.safetensors")
    with pytest.raises(ScopeError, match=r"reads chunks needs a whole network.*--reading leaves"):
        embed_file(tmp_path / "a.safetensors", untrained(TINY))


# -- memory -----------------------------------------------------------------------------------------------------------

BOUND = 128
"""MiB beyond what the process had before: a piece of 4 MiB as bytes, as weights and while it is scaled, and what the
windows of its 1,024 chunks become."""
MEASURE = """
import sys
import torch
from benchmarks import large
from weightspace.weights.state_dict import load_state_dict
torch.set_num_threads(1)
large.embed("leaves", sys.argv[1])
before = large.peak_memory()
load_state_dict(sys.argv[1])
print((large.peak_memory() - before) / 2**20)
"""


def test_a_leaf_of_200_mb_is_embedded_in_less_memory_than_it_has(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    with_holes = {"0.weight": np.zeros((5000, 10_000), np.float32), "0.bias": np.ones(5000, np.float32)}
    save_file(with_holes, path)
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True, cwd=root
    )
    first, whole = done.stdout.splitlines()
    _, _, peak, before = json.loads(first)
    assert 0 < peak - before < BOUND
    assert float(whole) > 190 - BOUND  # the control: read as a whole it is in memory, and this would show it


# -- the table --------------------------------------------------------------------------------------------------------


def test_the_networks_of_the_table_have_about_the_size_that_is_asked_for(tmp_path: Path) -> None:
    for size in large.SMALL:
        weights = large.write(tmp_path / "a.safetensors", size, 0)
        assert 0.7 * size < weights < 1.3 * size and load_state_dict(tmp_path / "a.safetensors").spec.size == weights
    for size in set(large.SIZES) - set(large.SMALL):
        weights = sum(int(np.prod(shape)) for shape in large.transformer(size).values())
        assert 0.9 * size < weights < 1.1 * size


def test_an_exponent_is_that_of_a_power_law_and_noise_gives_it_an_error() -> None:
    sizes = [10**3, 10**4, 10**5, 10**6]
    slope, error = large.exponent(sizes, [3e-6 * n**1.5 for n in sizes]) or (0, 0)
    assert slope == pytest.approx(1.5) and error == pytest.approx(0, abs=1e-9)
    slope, error = large.exponent(sizes, [n * factor for n, factor in zip(sizes, (1, 1.5, 0.7, 1), strict=True)]) or (
        0,
        0,
    )
    assert abs(slope - 1) < 3 * error and error > 0.01
    assert large.exponent(sizes[:2], [1, 2]) is None
