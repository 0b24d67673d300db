"""Foreign zoos imported: small files of exactly the published forms, whole and harmed; nothing in them is executed."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pickle
import random
import re
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tests.zoo.test_zoo import contents
from weightspace.cli import main
from weightspace.errors import PlaceError, ZooError
from weightspace.files.lock import writing
from weightspace.metamodels.properties import categorical_targets, hyperparameter_examples
from weightspace.zoo.importers import foreign_store
from weightspace.zoo.importers.foreign import SourceError, of_one_type, read_table
from weightspace.zoo.importers.imported import Imported, import_zoo
from weightspace.zoo.making import check_zoo, info
from weightspace.zoo.networks import build, cnn_s, eilertsen, module_of, small_cnn, spec_of
from weightspace.zoo.records import Architecture
from weightspace.zoo.store import SHARDS, Zoo, shard_path, split_of

SHORT = ["--steps", "8", "--permutations", "4", "--device", "cpu"]


def imported(kind: str, source: Path | str, out: Path, **options: Any) -> Imported:
    return import_zoo(kind, [str(source)], out, show=False, **options)


def reasons(found: Imported) -> dict[str, int]:
    return {skipped.reason: skipped.count for skipped in found.skipped}


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, restval="")
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


class Malicious:
    """Unpickled by anything but a restricted reader, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def module(architecture: Architecture, seed: int) -> torch.nn.Module:
    """A network with random weights, running statistics of normalisations among them, that are not symmetric."""
    generator = torch.Generator().manual_seed(seed)
    made = build(architecture).eval()
    for name, tensor in made.state_dict().items():
        drawn = torch.randn(tensor.shape, generator=generator) * 0.3
        tensor.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    return made


# -- ModelZoos --------------------------------------------------------------------------------------------------------


def their_cnn(nlin: str, dropout: float, widths: tuple[int, int, int] = (8, 6, 4), seed: int = 0) -> torch.nn.Module:
    """Schürholt et al.'s CNN for 28x28 images: one list of modules, dropout layers counted among them."""
    act = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU, "leakyrelu": torch.nn.LeakyReLU}[nlin]
    a, b, c = widths
    drop = [torch.nn.Dropout(dropout)] if dropout else []
    torch.manual_seed(seed)
    layers = [
        *[torch.nn.Conv2d(1, a, 5), torch.nn.MaxPool2d(2, 2), act(), *drop],
        *[torch.nn.Conv2d(a, b, 5), torch.nn.MaxPool2d(2, 2), act(), *drop],
        *[torch.nn.Conv2d(b, c, 2), act(), torch.nn.Flatten()],
        *[torch.nn.Linear(9 * c, 20), act(), *drop, torch.nn.Linear(20, 10)],
    ]
    return torch.nn.ModuleDict({"module_list": torch.nn.ModuleList(layers)}).eval()


def run(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    for layer in network["module_list"]:  # type: ignore[index]
        images = layer(images)
    return images


def trial(folder: Path, number: int, nlin: str = "tanh", dropout: float = 0.0, epochs: int = 2, **more: Any) -> Path:
    """A trial as Ray Tune leaves it: checkpoint 0 before any training, then one an epoch."""
    path = folder / f"NN_tune_trainable_{number:05d}"
    path.mkdir(parents=True)
    params = {
        "model::type": "CNN",
        "model::nlin": nlin,
        "model::dropout": dropout,
        "model::init_type": "uniform",
        "optim::optimizer": "adam",
        "optim::lr": 1e-3,
        "optim::wd": 1e-4,
        "seed": 7,
        "cuda": False,
        "dataset::dump": "/mnt/zoo/dataset.pt",
        "training::checkpoint_dir": None,
        "number": number / 7,
        **more,
    }
    (path / "params.json").write_text(json.dumps(params))
    lines = []
    for epoch in range(epochs + 1):
        # all start from one seed, as in the zoos of fixed seeds
        network = their_cnn(nlin, dropout, seed=0 if epoch == 0 else 1000 * number + epoch)
        (path / f"checkpoint_{epoch:06d}").mkdir()
        torch.save(network.state_dict(), path / f"checkpoint_{epoch:06d}" / "checkpoints")
        torch.save({"state": {}}, path / f"checkpoint_{epoch:06d}" / "optimizer")
        first = epoch == 0
        result = {
            "training_iteration": epoch,
            "train_acc": -999 if first else 0.5,
            "train_loss": -999 if first else 1.0,
        }
        result |= {"test_acc": 0.1 * epoch, "test_loss": 2.0, "validation_acc": 0.2, "config": params}
        lines.append(json.dumps(result))
    (path / "result.json").write_text("\n".join(lines) + "\n")
    return path


def model_zoo(folder: Path, count: int = 8) -> Path:
    for i in range(count):
        trial(folder, i, ("tanh", "relu")[i % 2], (0.0, 0.5)[i // 2 % 2])
    (folder / "config.json").write_text("{}")
    (folder / "__pycache__").mkdir()
    return folder


def test_a_model_zoo_comes_with_its_labels_measures_and_checkpoints(tmp_path: Path) -> None:
    found = imported("modelzoos", model_zoo(tmp_path / "theirs"), tmp_path / "zoo")
    assert (found.networks, found.checkpoints) == (8, 17)  # the start, which all share, is imported once
    assert reasons(found) == {"duplicate": 7}
    assert found.labels == ("activation", "dropout", "number")
    zoo = Zoo.open(tmp_path / "zoo")
    assert len(zoo.population()) == 8 and len(zoo.population(checkpoints=True)) == 17
    assert len(zoo.specs) == 1, "the names of the arrays give the dropout away"
    config = zoo.description["config"]
    assert config["recipe"] == "imported modelzoos" and config["count"] == 8 and config["images"] == "unknown"
    assert config["space"]["dropout"] == {"kind": "Choice", "values": [0.0, 0.5]}
    for network in zoo.population():
        facts = network.metadata
        number = int(facts["source"].rpartition("_")[2])
        assert facts["activation"] == ("tanh", "relu")[number % 2] and facts["number"] == number / 7
        assert facts["epoch"] == 2 and facts["test_accuracy"] == pytest.approx(0.2) and facts["train_loss"] == 1.0
        assert facts["source_seed"] == 7 and facts["seed"] == facts["network"]
        assert facts["split"] == split_of(facts["network"], 0)
    start = next(n for n in zoo.population(checkpoints=True) if n.metadata["epoch"] == 0)
    assert start.metadata["train_accuracy"] is None and start.metadata["validation_accuracy"] == 0.2
    assert check_zoo(tmp_path / "zoo") == []
    assert info(tmp_path / "zoo")["checkpoints"] == 17


@pytest.mark.parametrize(("nlin", "dropout"), [("tanh", 0.0), ("leakyrelu", 0.5)])
def test_a_network_of_a_model_zoo_answers_as_it_did_there(tmp_path: Path, nlin: str, dropout: float) -> None:
    trial(tmp_path / "theirs", 3, nlin, dropout)
    imported("modelzoos", tmp_path / "theirs", tmp_path / "zoo")
    (network,) = Zoo.open(tmp_path / "zoo").population()
    images = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = run(their_cnn(nlin, dropout, seed=3002), images)
        torch.testing.assert_close(module_of(network)(images), expected)
        broken = run(their_cnn(nlin, dropout, seed=3001), images)
    assert not torch.allclose(expected, broken)
    assert network.spec == spec_of(cnn_s())


def test_other_chains_of_a_model_zoo_do_not_give_their_dropout_away_and_can_be_permuted(tmp_path: Path) -> None:
    for i, drop in enumerate((0, 1)):
        path = trial(tmp_path / "theirs", i, dropout=0.5 * drop, epochs=0)
        layers = {"0": (16, 12), str(2 + drop): (9, 16)}
        state = {}
        for layer, shape in layers.items():
            state[f"module_list.{layer}.weight"] = torch.randn(shape, generator=torch.Generator().manual_seed(i))
            state[f"module_list.{layer}.bias"] = torch.zeros(shape[0])
        torch.save(state, path / "checkpoint_000000" / "checkpoints")
    imported("modelzoos", tmp_path / "theirs", tmp_path / "zoo")
    (spec,) = Zoo.open(tmp_path / "zoo").specs
    assert [leaf.name for leaf in spec.leaves][::2] == ["module_list.0.weight", "module_list.1.weight"]
    assert [group.size for group in spec.groups if group.permutable] == [16]


def test_what_is_harmed_in_a_model_zoo_is_counted_with_its_first_example_and_the_rest_is_imported(
    tmp_path: Path,
) -> None:
    theirs, target = model_zoo(tmp_path / "theirs", 8), tmp_path / "executed"
    trials = sorted(theirs.glob("NN*"))
    with (trials[0] / "checkpoint_000001" / "checkpoints").open("wb") as file:
        pickle.dump(Malicious(target), file)
    torn = trials[1] / "checkpoint_000001" / "checkpoints"
    torn.write_bytes(torn.read_bytes()[:-400])
    state = their_cnn("tanh", 0.0, seed=9).state_dict()
    state["module_list.0.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, trials[2] / "checkpoint_000002" / "checkpoints")
    torch.save(their_cnn("relu", 0.0, (6, 9, 6)).state_dict(), trials[3] / "checkpoint_000002" / "checkpoints")
    (trials[4] / "params.json").unlink()
    (trials[5] / "params.json").write_text('{"model::nlin": "ta')
    last = (trials[6] / "checkpoint_000002" / "checkpoints").read_bytes()
    (trials[7] / "checkpoint_000002" / "checkpoints").write_bytes(last)
    with (trials[6] / "result.json").open("a") as lines:
        lines.write('{"training_iter')
    found = imported("modelzoos", theirs, tmp_path / "zoo")
    assert not target.exists(), "the pickle was executed"
    counted = reasons(found)
    assert {name: counted[name] for name in ("code", "unreadable", "not finite", "shape", "labels")} == {
        "code": 1,
        "unreadable": 1,
        "not finite": 1,
        "shape": 1,
        "labels": 2,
    }
    assert found.networks == 5  # without two that have no labels and one that has the weights of another
    first = {skipped.reason: skipped.first for skipped in found.skipped}
    assert "refused, and nothing in it was executed" in first["code"] and "touch" in first["code"]
    assert "checkpoint_000001/checkpoints is no whole PyTorch file" in first["unreadable"]
    assert "has 1 weights that are NaN or infinite as float32, the first in array 'conv1.weight'" in first["not finite"]
    assert "has other arrays after epoch 2 than after epoch" in first["shape"]
    assert "has no params.json, which holds its labels" in first["labels"]
    assert "the very weights of" in first["duplicate"]
    assert any("result.json" in note for note in found.notes)
    assert any("2 networks end before their last checkpoint" in note for note in found.notes)
    assert check_zoo(tmp_path / "zoo") == []


# -- the Small CNN Zoo ------------------------------------------------------------------------------------------------

TF_ARRAYS = (
    *[("sequential/conv2d/bias:0", (16,)), ("sequential/conv2d/kernel:0", (3, 3, 1, 16))],
    *[("sequential/conv2d_1/bias:0", (16,)), ("sequential/conv2d_1/kernel:0", (3, 3, 16, 16))],
    *[("sequential/conv2d_2/bias:0", (16,)), ("sequential/conv2d_2/kernel:0", (3, 3, 16, 16))],
    *[("sequential/dense/bias:0", (10,)), ("sequential/dense/kernel:0", (16, 10))],
)


def as_tensorflow(network: torch.nn.Module) -> np.ndarray:
    """A small CNN as a row of the Small CNN Zoo's matrix."""
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    parts = []
    for layer in ("conv1", "conv2", "conv3", "dense1"):
        kernel = state[f"{layer}.weight"]
        parts += [state[f"{layer}.bias"], kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T]
    return np.concatenate([part.ravel() for part in parts])


def write_layout(folder: Path) -> None:
    rows, end = [], 0
    for name, shape in TF_ARRAYS:
        size = int(np.prod(shape))
        rows.append({"varname": name, "start_idx": end, "end_idx": end + size, "size": size, "shape": str(shape)})
        end += size
    write_csv(folder / "layout.csv", rows)


def small_zoo(folder: Path, networks: int = 12, steps: tuple[int, ...] = (0, 1, 86)) -> Path:
    folder.mkdir(parents=True)
    matrix, rows = [], []
    for i in range(networks):
        for step in steps:
            activation = ("relu", "tanh")[i % 2]
            matrix.append(as_tensorflow(module(small_cnn(activation=activation), 100 * i + step)))
            rows.append(
                {
                    "": len(rows),
                    "config.activation": activation,
                    "config.b_init": "zeros",
                    "config.dataset": "mnist",
                    "config.dnn_architecture": "cnn",
                    "config.dropout": 0.1 * (i % 3),
                    "config.learning_rate": 0.01 * (i + 1),
                    "config.optimizer": ("adam", "sgd")[i // 3 % 2],
                    "config.random_seed": 42,
                    "config.l2reg": 1e-6,
                    "modeldir": f"/cns/models/{i}",
                    "step": step,
                    "test_accuracy": step / 100,
                    "test_loss": 0.5,
                    "train_accuracy": 0.9,
                    "train_loss": 0.4,
                }
            )
    order = np.random.default_rng(0).permutation(len(rows))
    np.save(folder / "weights.npy", np.stack(matrix)[order])
    write_csv(folder / "metrics.csv.gz", [rows[i] for i in order])
    write_layout(folder)
    return folder


def test_the_small_cnn_zoo_comes_with_all_checkpoints_of_a_network_under_one_number_and_split(tmp_path: Path) -> None:
    found = imported("small-cnn-zoo", small_zoo(tmp_path / "mnist"), tmp_path / "zoo")
    assert (found.networks, found.checkpoints, found.skipped) == (12, 36, ())
    assert found.labels == ("activation", "dropout", "learning_rate", "optimiser")
    zoo = Zoo.open(tmp_path / "zoo")
    assert zoo.description["config"]["images"] == "mnist"
    assert zoo.specs == (spec_of(small_cnn()),)
    every = zoo.population(checkpoints=True)
    for number in range(12):
        own = [n.metadata for n in every if n.metadata["network"] == number]
        assert [facts["epoch"] for facts in own] == [0, 1, 86]
        assert len({(facts["split"], facts["source"], facts["activation"]) for facts in own}) == 1
        assert [facts["test_accuracy"] for facts in own] == [0.0, 0.01, 0.86]
    assert {network.metadata["epoch"] for network in zoo.population()} == {86}
    assert check_zoo(tmp_path / "zoo") == []


def test_published_splits_are_those_of_their_authors_and_take_last_checkpoints_alone(tmp_path: Path) -> None:
    folder = small_zoo(tmp_path / "mnist")
    order = np.random.default_rng(5).permutation(36)
    (folder / "mnist_split.csv").write_text("".join(f"{row}\n" for row in order))
    found = imported("small-cnn-zoo", folder, tmp_path / "zoo", splits=folder / "mnist_split.csv")
    assert (found.networks, found.checkpoints, found.skipped) == (12, 12, ())
    zoo = Zoo.open(tmp_path / "zoo")
    ours = dict(zip(zoo.column("source"), zoo.column("split"), strict=True))
    # as in the code of Zhou et al.: the last checkpoints in this order, the second half for testing
    with gzip.open(folder / "metrics.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    last = [rows[row]["modeldir"] for row in order if rows[row]["step"] == "86"]
    first = list(range(6))
    random.Random(0).shuffle(first)
    theirs = dict.fromkeys(last[6:], "test")
    theirs |= {last[place]: ("train" if at < 4 else "validation") for at, place in enumerate(first)}
    assert ours == theirs and sorted(ours.values()).count("test") == 6
    assert check_zoo(tmp_path / "zoo") == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0\n1\n", r"mnist_split.csv does not name each of the 6 rows of the metrics once \(2 numbers\)"),
        ("0\n" * 6, "does not name each of the 6 rows of the metrics once"),
        ("row\n0\n", "mnist_split.csv holds no row numbers"),
        (None, "mnist_split.csv holds no row numbers"),
    ],
)
def test_an_order_of_another_zoo_is_refused(tmp_path: Path, text: str | None, sentence: str) -> None:
    folder = small_zoo(tmp_path / "mnist", 2)
    if text is not None:
        (folder / "mnist_split.csv").write_text(text)
    with pytest.raises(SourceError, match=sentence):
        imported("small-cnn-zoo", folder, tmp_path / "zoo", splits=folder / "mnist_split.csv")
    with pytest.raises(SourceError, match="--splits is an option of the kind small-cnn-zoo"):
        imported("modelzoos", folder, tmp_path / "other", splits=folder / "mnist_split.csv")


def test_a_network_in_tensorflows_order_gives_the_same_answers_here(tmp_path: Path) -> None:
    imported("small-cnn-zoo", small_zoo(tmp_path / "mnist", 3), tmp_path / "zoo")
    images = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for network in Zoo.open(tmp_path / "zoo").population():
        i = int(network.metadata["source"].rpartition("/")[2])
        original = module(small_cnn(activation=("relu", "tanh")[i % 2]), 100 * i + 86)
        with torch.no_grad():
            torch.testing.assert_close(module_of(network)(images), original(images))


def test_a_tensorflow_convolution_is_the_one_that_the_layout_describes() -> None:
    """The order is checked against a convolution written out by its definition, not against our own export."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 2, 5))  # height, width, in, out
    image = rng.normal(size=(7, 7, 2))
    ours = torch.nn.functional.conv2d(
        torch.from_numpy(image.transpose(2, 0, 1))[None],
        torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()),
        stride=2,
    )
    for y in range(3):
        for x in range(3):
            patch = image[2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
            expected = np.einsum("hwi,hwio->o", patch, kernel)
            np.testing.assert_allclose(ours[0, :, y, x].numpy(), expected)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        ("layout", "describes 4970 weights and weights.npy has 4969 a row"),
        ("gap", "of shape (3, 3, 1, 16) stands at 17 to 161, where one of 144 numbers from 16 on is expected"),
        ("shape", "the Small CNN Zoo's network has"),
        ("rows", "has 5 rows and metrics.csv.gz has 6"),
        ("column", "has no column 'modeldir', which must be there; it has"),
        ("gzip", "metrics.csv.gz is torn or no CSV file"),
        ("torn", "weights.npy is torn or no array of numbers"),
        ("pickle", "what only a pickle could read is refused"),
        ("missing", "there is no file"),
        ("empty", "has no rows"),
    ],
)
def test_what_does_not_fit_in_the_small_cnn_zoo_is_one_sentence(tmp_path: Path, harm: str, sentence: str) -> None:
    folder = small_zoo(tmp_path / "mnist", 2)
    matrix = np.load(folder / "weights.npy")
    layout = (folder / "layout.csv").read_text()
    metrics = gzip.decompress((folder / "metrics.csv.gz").read_bytes())
    match harm:
        case "layout":
            np.save(folder / "weights.npy", matrix[:, :-1])
        case "gap":
            (folder / "layout.csv").write_text(layout.replace("16,160,144", "17,161,144"))
        case "shape":
            (folder / "layout.csv").write_text(layout.replace("(3, 3, 1, 16)", "(3, 3, 16, 1)"))
        case "rows":
            np.save(folder / "weights.npy", matrix[:-1])
        case "column":
            (folder / "metrics.csv.gz").write_bytes(gzip.compress(metrics.replace(b"modeldir", b"folder")))
        case "gzip":
            (folder / "metrics.csv.gz").write_bytes(gzip.compress(metrics)[:-20])
        case "torn":
            (folder / "weights.npy").write_bytes((folder / "weights.npy").read_bytes()[:1000])
        case "pickle":
            np.save(folder / "weights.npy", np.array([Malicious(tmp_path / "executed")]), allow_pickle=True)
        case "missing":
            (folder / "layout.csv").unlink()
        case "empty":
            (folder / "metrics.csv.gz").write_bytes(gzip.compress(metrics.splitlines(keepends=True)[0]))
    with pytest.raises(SourceError) as error:
        imported("small-cnn-zoo", folder, tmp_path / "zoo")
    assert sentence in str(error.value)
    assert not (tmp_path / "executed").exists() and not (tmp_path / "zoo").exists()


# -- Eilertsen et al. -------------------------------------------------------------------------------------------------

SMALL: dict[str, Any] = {
    "filter_size": 3,
    "convolution_depth": 4,
    "convolution_width": 4,
    "dense_depth": 2,
    "dense_width": 64,
}


def as_nws(network: torch.nn.Module) -> np.ndarray:
    """A network of Eilertsen et al.'s as their print_all_vars writes it, from variables in TensorFlow's forms."""
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    parts: list[np.ndarray] = []
    for layer in dict.fromkeys(name.rpartition(".")[0] for name in state):
        if layer.startswith("norm"):
            parts += [state[f"{layer}.{last}"] for last in ("bias", "weight", "running_mean", "running_var")]
            continue
        kernel = state[f"{layer}.weight"]
        if kernel.ndim == 4:
            variable = kernel.transpose(2, 3, 1, 0)  # (height, width, in, out)
            for i in range(variable.shape[-1]):
                parts += [variable[:, :, j, i].ravel() for j in range(variable.shape[-2])]
        else:
            if layer == "dense1":  # the pixels' channels come last there
                kernel = kernel.reshape(len(kernel), -1, 4, 4).transpose(0, 2, 3, 1).reshape(len(kernel), -1)
            variable = kernel.T
            parts += [variable[:, i] for i in range(variable.shape[-1])]
        parts.append(state[f"{layer}.bias"])
    return np.concatenate([part.ravel() for part in parts]).astype(np.float64)


def nws(folder: Path, count: int = 6, epochs: int = 39) -> Path:
    rows = []
    for i in range(count):
        own = folder / "nws_fixed" / f"{i:04d}"
        (own / "weights").mkdir(parents=True)
        activation = i % 4
        architecture = eilertsen(activation=("relu", "elu", "sigmoid", "tanh")[activation], **SMALL)
        for snapshot in (1, 20):
            flat = as_nws(module(architecture, 100 * i + snapshot))
            flat.tofile(own / "weights" / f"{snapshot:03d}.bin")
        errors = np.zeros((epochs, 5))
        errors[:, 3] = np.linspace(90, 10, epochs)
        errors.tofile(own / "error.bin")
        np.array([epochs, 1000.0, epochs, 3.5]).tofile(own / "stat.bin")
        rows.append(
            {
                "dataset": "mnist",
                "lrate": 0.001 * (i + 1),
                "batch_size": 64,
                "batch_norm": True,
                "augmentation": i % 2,
                "optimizer": i % 3,
                "activation": activation,
                "initialization": 3,
                "filter_size": 3,
                "depth_conv": 4,
                "depth_fc": 2,
                "width_conv": 4,
                "width_fc": 64,
                "weightn_conv": len(flat) - 500,
                "weightn_fc": 500,
                "path": f"/mnt/raid/dnn_weights/nws_fixed/{i:04d}",
            }
        )
    write_csv(folder / "nws_fixed_train.csv", rows[: count // 2])
    write_csv(folder / "nws_fixed_test.csv", rows[count // 2 :])
    return folder


def test_the_fixed_architecture_has_as_many_values_as_theirs() -> None:
    assert len(as_nws(module(eilertsen(), 0))) == 92_868


def test_eilertsens_networks_answer_here_as_there_and_have_their_labels_by_name(tmp_path: Path) -> None:
    found = imported("eilertsen", nws(tmp_path / "nws"), tmp_path / "zoo")
    assert (found.networks, found.checkpoints, found.skipped) == (6, 12, ())
    assert found.labels == ("activation", "augment", "learning_rate", "optimiser")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for network in Zoo.open(tmp_path / "zoo").population():
        facts = network.metadata
        i = int(facts["source"][-4:])
        assert facts["activation"] == ("relu", "elu", "sigmoid", "tanh")[i % 4]
        assert facts["optimiser"] == ("adam", "rmsprop", "momentum")[i % 3] and facts["augment"] == bool(i % 2)
        assert facts["epoch"] == 38 and facts["test_accuracy"] == pytest.approx(0.9)
        original = module(eilertsen(activation=facts["activation"], **SMALL), 100 * i + 20)
        with torch.no_grad():
            torch.testing.assert_close(module_of(network)(images), original(images), atol=1e-4, rtol=1e-4)
    assert check_zoo(tmp_path / "zoo") == []


def test_eilertsens_networks_of_unknown_architecture_are_one_flat_array(tmp_path: Path) -> None:
    rows = []
    for i in range(3):
        (tmp_path / "nws" / str(i) / "weights").mkdir(parents=True)
        np.arange(10, dtype=np.float32).tofile(tmp_path / "nws" / str(i) / "weights" / "001.bin")
        (np.arange(10) + i).astype(np.float32).tofile(tmp_path / "nws" / str(i) / "weights" / "002.bin")
        rows.append({"path": i, "weightn_conv": 4, "weightn_fc": 6, "colour": ("red", "blue", "red")[i]})
    imported("eilertsen", write_csv(tmp_path / "nws" / "a.csv", rows), tmp_path / "zoo", epochs=(1,))
    for network in Zoo.open(tmp_path / "zoo").population():
        np.testing.assert_array_equal(network.weights, np.arange(10) + int(network.metadata["source"]))
        assert network.metadata["architecture"] is None and network.metadata["test_accuracy"] is None


def test_what_is_harmed_in_eilertsens_zoo_is_counted(tmp_path: Path) -> None:
    folder = nws(tmp_path / "nws")
    weights = [folder / "nws_fixed" / f"{i:04d}" / "weights" / "020.bin" for i in range(6)]
    weights[0].write_bytes(weights[0].read_bytes()[:-3])
    weights[1].write_bytes(weights[1].read_bytes()[:-80])
    (weights[2].parent.parent / "stat.bin").unlink()
    for path in weights[3].parent.iterdir():
        path.unlink()
    text = (folder / "nws_fixed_test.csv").read_text()
    (folder / "nws_fixed_test.csv").write_text(text + text.splitlines()[-1] + "\n")
    found = imported("eilertsen", folder, tmp_path / "zoo")
    assert reasons(found) == {"unreadable": 1, "shape": 1, "missing": 1, "twice": 1}
    assert found.networks == 5
    (folder / "nws_fixed_train.csv").write_text("path,dataset\na,b\n")
    with pytest.raises(SourceError, match="has no column 'weightn_conv'"):
        imported("eilertsen", folder, tmp_path / "other")


# -- the Model Jungle -------------------------------------------------------------------------------------------------


def jungle_model(folder: Path, number: int, classes: Sequence[str], **metadata: str) -> Path:
    """A model as the hub caches it: its commit in refs/main, its file below snapshots."""
    place = folder / f"models--ProbeX--Model-J__ResNet__model_idx_{number:04d}"
    file = place / "snapshots" / f"{number:040x}" / "model.safetensors"
    file.parent.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(f"{number:040x}")
    random_numbers = np.random.default_rng(number)
    arrays = {
        "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight": random_numbers.normal(size=(4, 3, 3, 3)),
        "classifier.1.weight": random_numbers.normal(size=(len(classes), 4)),
        "classifier.1.bias": random_numbers.normal(size=len(classes)),
    }
    said = {"dataset_chosen_targets": repr(list(classes)), "format": "pt", **metadata}
    save_file({name: array.astype(np.float32) for name, array in arrays.items()}, file, said)
    return file


def jungle(folder: Path) -> Path:
    for number in range(30):
        split = ("train", "train", "val", "test")[number % 4]
        chosen = [("apple", "bee"), ("bee", "crab"), ("crab", "apple")][number % 3]
        jungle_model(folder / split, number, chosen, learning_rate=("0.001", "3e-4")[number % 2], seed=str(number))
    return folder


def test_the_model_jungle_comes_with_its_splits_and_the_classes_that_each_was_trained_on(tmp_path: Path) -> None:
    found = imported("model-jungle", jungle(tmp_path / "ResNet"), tmp_path / "zoo")
    assert found.networks == 30 and found.skipped == ()
    assert {"trained on apple", "trained on bee", "trained on crab", "learning_rate"} <= set(found.labels)
    zoo = Zoo.open(tmp_path / "zoo")
    columns = (zoo.column(name) for name in ("source", "split", "trained on apple", "trained on bee"))
    for source, split, apple, bee in zip(*columns, strict=True):
        number = int(source[-4:])
        assert source.startswith(("train/", "val/", "test/"))
        assert split == ("train", "train", "validation", "test")[number % 4]
        assert (apple, bee) == [("yes", "yes"), ("no", "yes"), ("yes", "no")][number % 3]
    assert zoo.specs[0].size == 4 * 27 + 2 * 4 + 2


def test_one_array_of_each_model_can_be_taken(tmp_path: Path) -> None:
    name = "classifier.1.weight"
    imported("model-jungle", jungle(tmp_path / "ResNet"), tmp_path / "zoo", layer=name)
    zoo = Zoo.open(tmp_path / "zoo")
    network = next(iter(zoo.population("test")))
    assert [leaf.name for leaf in zoo.specs[0].leaves] == [name]
    number = int(network.metadata["source"][-4:])
    expected = np.random.default_rng(number)
    expected.normal(size=(4, 3, 3, 3))
    np.testing.assert_allclose(network.weights, expected.normal(size=(2, 4)).astype(np.float32).ravel())
    with pytest.raises(SourceError, match="has no array 'nope' with numbers in it: its first are"):
        imported("model-jungle", tmp_path / "ResNet", tmp_path / "other", layer="nope")


def test_one_model_in_two_splits_of_the_model_jungle_is_imported_once(tmp_path: Path) -> None:
    folder = jungle(tmp_path / "ResNet")
    jungle_model(folder / "test", 0, ("apple", "bee"), learning_rate="0.001", seed="0")  # number 0 is in train too
    found = imported("model-jungle", folder, tmp_path / "zoo")
    assert found.networks == 30 and reasons(found) == {"duplicate": 1}


def test_what_is_harmed_in_the_model_jungle_is_counted_and_nothing_in_it_is_executed(tmp_path: Path) -> None:
    folder = jungle(tmp_path / "ResNet")
    (folder / "train" / ".locks").mkdir()
    (folder / "train" / "notes").mkdir()
    lost = jungle_model(folder / "train", 90, ["bee", "crab"])
    lost.unlink()
    torn = jungle_model(folder / "train", 91, ["bee", "crab"])
    torn.write_bytes(torn.read_bytes()[:-5])
    jungle_model(folder / "test", 92, ["bee", "crab"], dataset_chosen_targets="__import__('os').abort()")
    jungle_model(folder / "test", 93, ["bee", "crab"], dataset_chosen_targets="[" * 5000)
    for number, commit in ((94, "../../../secret"), (95, "a" * 5000)):
        away = jungle_model(folder / "test", number, ["bee", "crab"])
        (away.parents[2] / "refs" / "main").write_text(commit)
    jungle_model(folder / "test", 96, ["bee", "crab"], dataset_chosen_targets=f"[0x{'f' * 5000}]")
    jungle_model(folder / "test", 97, ["bee", "crab"], dataset_chosen_targets="['\\ud800']", learning_rate="9" * 400)
    found = imported("model-jungle", folder, tmp_path / "zoo")
    assert found.networks == 31 and reasons(found) == {"missing": 3, "unreadable": 1, "labels": 3}
    with pytest.raises(SourceError, match="holds no models of the Model Jungle"):
        imported("model-jungle", tmp_path / "zoo", tmp_path / "other")


# -- state dicts ------------------------------------------------------------------------------------------------------


def state(seed: int, width: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"0.weight": (width, 4), "0.bias": (width,), "10.weight": (3, width), "10.bias": (3,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def save(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(arrays, path)
    else:
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    return path


def state_dicts(folder: Path, count: int = 30) -> Path:
    """Files of both kinds, a label that a mean gives away, and a number that never repeats."""
    rows = []
    for i in range(count):
        arrays = state(i)
        arrays["0.weight"] += (-2, 2)[i % 3 == 0]
        name = f"{'sub/' * (i % 2)}n{i}"
        save(folder / f"{name}{('.safetensors', '.pt')[i % 2]}", arrays)
        rows.append({"name": name, "shifted": ("no", "yes")[i % 3 == 0], "rate": 0.001 * (i + 1), "test_accuracy": 0.5})
    write_csv(folder / "labels.csv", rows)
    return folder


def test_state_dicts_with_a_table_become_a_zoo_that_every_reader_can_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, zoo = state_dicts(tmp_path / "files", 60), tmp_path / "zoo"
    words = ["zoo", "import", "state-dicts", str(folder), "--out", str(zoo), "--topology", "chain"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "imported: 60 networks, 60 checkpoints" in said and "rate, shifted" in said
    assert main(["zoo", "check", str(zoo)]) == 0
    assert main(["zoo", "info", str(zoo), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert facts["networks"] == 60 and facts["recipe"] == "imported state-dicts"
    assert facts["labels"] == {"rate": "Uniform 0.001 to 0.06", "shifted": ["no", "yes"]}
    opened = Zoo.open(zoo)
    (target,) = categorical_targets(opened)
    examples = hyperparameter_examples(opened, "train", [target])
    means = np.array([network.arrays()["0.weight"].mean() for network in examples.networks])
    np.testing.assert_array_equal(means > 0, examples.labels["shifted"] == 1)
    assert [leaf.name for leaf in opened.specs[0].leaves] == ["0.weight", "0.bias", "10.weight", "10.bias"]
    assert [group.size for group in opened.specs[0].groups if group.permutable] == [6]
    assert main(["compare", str(zoo), "--out", str(tmp_path / "out"), *SHORT]) == 0


def test_several_files_of_one_network_are_its_checkpoints_and_what_varies_in_it_is_no_label(tmp_path: Path) -> None:
    rows = []
    for i in range(8):
        for epoch in (1, 5):
            save(tmp_path / "files" / f"{i}-{epoch}.safetensors", state(10 * i + epoch))
            rows.append({"file": f"{i}-{epoch}.safetensors", "network": f"net {i}", "epoch": epoch, "split": "mine"})
            rows[-1] |= {"depth": i % 2, "sharpness": 0.1 * epoch + i, "test_loss": epoch}
    write_csv(tmp_path / "labels.csv", rows)
    found = imported("state-dicts", tmp_path / "files", tmp_path / "zoo", table=tmp_path / "labels.csv")
    assert (found.networks, found.checkpoints, found.labels) == (8, 16, ("depth",))
    zoo = Zoo.open(tmp_path / "zoo")
    for network in zoo.population(checkpoints=True):
        i, epoch = int(network.metadata["source"][-1]), network.metadata["epoch"]
        np.testing.assert_array_equal(network.arrays()["10.weight"], state(10 * i + epoch)["10.weight"])
        assert network.metadata["sharpness"] == pytest.approx(0.1 * epoch + i)
        assert network.metadata["test_loss"] == epoch and network.metadata["source_split"] == "mine"
    sides = {(network, split) for network, split in zip(zoo.column("network"), zoo.column("split"), strict=True)}
    assert len(sides) == 8
    only = imported("state-dicts", tmp_path / "files", tmp_path / "one", table=tmp_path / "labels.csv", epochs=(1,))
    assert (only.networks, only.checkpoints) == (8, 8)


def test_whatever_is_wrong_with_a_file_or_a_row_is_one_sentence_and_stops_nothing(tmp_path: Path) -> None:
    folder, target = state_dicts(tmp_path / "files", 12), tmp_path / "executed"
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    with (folder / "evil.bin").open("wb") as file:
        pickle.dump({"weight": Malicious(target)}, file)
    (folder / "torn.safetensors").write_bytes((folder / "n0.safetensors").read_bytes()[:-10])
    save(folder / "nan.safetensors", {**state(0), "0.bias": np.full(6, np.nan, np.float32)})
    save(
        folder / "again.pt",
        {name: np.array(a) for name, a in state(0).items()} | {"0.weight": state(0)["0.weight"] + 2},
    )
    save(folder / "unlisted.pt", state(77))
    (folder / "whole.pt").write_bytes(b"\x80\x04N.")
    for name in ("evil", "torn", "nan", "again", "absent", "../labels", "n1", "whole", ""):
        rows.append({"name": name, "shifted": "no", "rate": "1", "test_accuracy": "x"})
    rows[3]["shifted"] = ""
    write_csv(folder / "labels.csv", rows)
    found = imported("state-dicts", folder, tmp_path / "zoo", seed=3)
    assert not target.exists(), "the pickle was executed"
    assert found.networks == 12
    counted = {"code": 1, "unreadable": 2, "not finite": 1, "missing": 3, "labels": 2, "duplicate": 1}
    assert reasons(found) == counted
    assert found.labels == ("rate",)
    assert any(
        "'shifted' is missing in 1 of 12 networks" in note and "--labels shifted" in note for note in found.notes
    )
    for skipped in found.skipped:
        assert any(name in skipped.first for name in (str(folder), "again.pt", "n0.", "nan.")), skipped
    accuracies = Zoo.open(tmp_path / "zoo").column("test_accuracy")
    assert set(accuracies) == {0.5}, "one cell that is no number takes the others away"
    chosen = imported("state-dicts", folder, tmp_path / "chosen", labels=["shifted"])
    assert chosen.networks == 11 and chosen.labels == ("shifted",) and reasons(chosen)["labels"] == 3
    with pytest.raises(SourceError, match="has no label 'colour': it has rate, shifted"):
        imported("state-dicts", folder, tmp_path / "none", labels=["colour"])


def tensors(seed: int) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in state(seed).items()}


def listed(folder: Path, **files: object) -> Path:
    """A folder of PyTorch's files with a table of labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        torch.save(content, folder / f"{name}.pt")
    rows = [{"name": name, "rate": 0.1 * (i + 1)} for i, name in enumerate(files)]
    write_csv(folder / "labels.csv", rows)
    return folder


def weights_of(zoo: Path) -> dict[str, np.ndarray]:
    return {str(network.metadata["source"]): network.weights for network in Zoo.open(zoo).population()}


PICTURES = {"x": torch.zeros(40, 3, 8, 8), "y": torch.zeros(40, dtype=torch.int64)}


def test_of_a_file_with_pictures_and_moments_the_network_is_imported(tmp_path: Path) -> None:
    """C4: the pictures were imported as a network."""
    moments = {0: {"exp_avg": torch.zeros(90, 40), "exp_avg_sq": torch.zeros(90, 40)}}
    folder = listed(
        tmp_path / "files",
        a={"model": tensors(0), "bd_test": PICTURES},
        b={"bd_test": PICTURES, "net": {"state_dict": tensors(1)}, "optimizer": {"state": moments}, "step": 3},
        c=(tensors(2), 7, {"mean": torch.zeros(300, 3)}),
        d=[PICTURES, tensors(3)],
        e={"last": tensors(4), "best": tensors(4)},  # one network twice
    )
    found = imported("state-dicts", folder, tmp_path / "zoo")
    assert found.networks == 5 and not found.skipped
    for name, weights in weights_of(tmp_path / "zoo").items():
        expected = state("abcde".index(name.removesuffix(".pt")))
        np.testing.assert_array_equal(weights, np.concatenate([array.ravel() for array in expected.values()]))
    assert any("net.state_dict was taken, first of b.pt" in note for note in found.notes)


def test_where_it_is_not_plain_which_part_is_meant_it_is_asked_and_can_be_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """C14: the later of two keys was imported without a word."""
    folder = listed(
        tmp_path / "files",
        both={"model": tensors(0), "ema": tensors(1)},
        pictures={"bd_test": PICTURES},
        inside={**tensors(2), "teacher": tensors(3)},
        one={"model": tensors(5)},
    )
    found = imported("state-dicts", folder, tmp_path / "zoo")
    assert found.networks == 1 and reasons(found) == {"which": 2, "unreadable": 1}
    by_reason = {skipped.reason: skipped.first for skipped in found.skipped}
    assert re.search(r"holds 2 networks \((model, ema|ema, model|the file itself, teacher)\)", by_reason["which"])
    assert "--part" in by_reason["which"]
    assert "none of its arrays (x, ...) is called as a layer's weight" in by_reason["unreadable"]
    words = ["zoo", "import", "state-dicts", str(folder), "--out", str(tmp_path / "said"), "--part"]
    assert main([*words, "model"]) == 0
    assert "imported: 2 networks" in capsys.readouterr().out
    np.testing.assert_array_equal(weights_of(tmp_path / "said")["both.pt"][:24], state(0)["0.weight"].ravel())
    assert main([*words, "ema"]) == 2  # the folder holds a zoo of another part
    assert "another configuration" in capsys.readouterr().err
    top = imported("state-dicts", folder, tmp_path / "top", part=".")
    assert list(weights_of(tmp_path / "top")) == ["inside.pt"] and reasons(top) == {"missing": 3}


def test_files_of_one_network_under_other_names_agree_in_whichever_order_they_are_read(tmp_path: Path) -> None:
    names = {"0.weight": "body.fc1.kernel", "0.bias": "body.fc1.bias", "10.weight": "out.kernel", "10.bias": "out.bias"}
    prefixed = {f"module.{name}": array for name, array in tensors(1).items()}
    other = {names[name]: array for name, array in reversed(tensors(2).items())}
    beside = {**tensors(3), "mean": torch.zeros(4), "steps": torch.tensor(5)}
    strange = {"a.weight": torch.zeros(6, 4), "b.weight": torch.zeros(3, 6)}
    folder = listed(tmp_path / "files", a=tensors(0), b=prefixed, c=other, d=beside, e=strange)
    found = imported("state-dicts", folder, tmp_path / "zoo")
    assert found.networks == 5
    zoo = Zoo.open(tmp_path / "zoo")
    assert sorted(len(spec.leaves) for spec in zoo.specs) == [2, 4]
    for network in zoo.population():
        name = str(network.metadata["source"]).removesuffix(".pt")
        if name != "e":
            assert [leaf.name for leaf in network.spec.leaves] == list(state(0))
            for leaf, array in state("abcd".index(name)).items():
                np.testing.assert_array_equal(network.arrays()[leaf], array)
    again = listed(tmp_path / "again", a=tensors(0), b={names[n]: array for n, array in tensors(0).items()})
    assert reasons(imported("state-dicts", again, tmp_path / "twice")) == {"duplicate": 1}


def test_shards_are_one_network_by_their_index_or_by_their_numbers(tmp_path: Path) -> None:
    """C8: an import made two networks of one."""
    folder = tmp_path / "files"
    rows = []
    for i in range(3):
        arrays, place = state(i), folder / str(i)
        held = {f"model-0000{n}-of-00002.safetensors": dict(list(arrays.items())[2 * n - 2 : 2 * n]) for n in (1, 2)}
        for name, part in held.items():
            save(place / name, part)
        rows.append({"file": f"{i}/model-00001-of-00002.safetensors", "rate": 0.1 * (i + 1)})
        if i < 2:
            index = {"weight_map": {array: name for name, part in held.items() for array in part}}
            (place / "model.safetensors.index.json").write_text(json.dumps(index))
    rows[1]["file"] = "1/model"
    write_csv(folder / "labels.csv", rows)
    found = imported("state-dicts", folder, tmp_path / "zoo")
    assert found.networks == 3 and not found.skipped
    for name, weights in weights_of(tmp_path / "zoo").items():
        expected = np.concatenate([array.ravel() for array in state(int(name[0])).values()])
        np.testing.assert_array_equal(weights, expected)
    rows.append({"file": "0/model-00002-of-00002.safetensors", "rate": 0.9})
    (folder / "2" / "model-00002-of-00002.safetensors").unlink()
    write_csv(folder / "labels.csv", rows)
    found = imported("state-dicts", folder, tmp_path / "fewer")
    assert found.networks == 2 and reasons(found) == {"missing": 1, "labels": 1, "twice": 1}


def test_a_small_file_that_asks_for_much_memory_is_refused_in_an_import(tmp_path: Path) -> None:
    """C7: 1.3 KB took 4.9 GB."""
    whole = torch.zeros(1)
    folder = listed(
        tmp_path / "files",
        expanded={"0.weight": whole.expand(300_000_000)},
        nested={f"part{i}": {"0.weight": torch.zeros(1).expand(4000, 4000)} for i in range(40)},
        aliases={f"{i}.weight": whole.expand(500_000) for i in range(3000)},
        fine=tensors(0),
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = imported("state-dicts", folder, tmp_path / "zoo")
    assert found.networks == 1 and reasons(found) == {"unreadable": 3}
    assert "is refused: its" in found.skipped[0].first
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # kilobytes


def test_a_label_that_the_arrays_give_away_is_marked_so(tmp_path: Path) -> None:
    rows = []
    for i in range(8):
        save(tmp_path / "files" / f"{i}.safetensors", state(i, width=(5, 7)[i % 2]))
        rows.append({"file": f"{i}.safetensors", "width": (5, 7)[i % 2], "optimiser": ("adam", "sgd")[i // 4]})
    write_csv(tmp_path / "files" / "labels.csv", rows)
    found = imported("state-dicts", tmp_path / "files", tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo")
    assert zoo.description["config"]["architectural"] == ["width"] and found.labels == ("optimiser",)
    assert [target.name for target in categorical_targets(zoo)] == ["optimiser"]


# -- the hub ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Path]:
    """Repositories of the hub as local folders."""
    import huggingface_hub

    class Api:
        def repo_info(self, repository: str, *, revision: str | None, timeout: float, **_: object) -> SimpleNamespace:
            assert revision in ("v1", None) and timeout > 0
            folder = tmp_path / "hub" / repository
            if not folder.is_dir():
                raise OSError("no route")
            names = [str(p.relative_to(folder)) for p in sorted(folder.rglob("*")) if p.is_file()]
            return SimpleNamespace(sha="abc123", siblings=[SimpleNamespace(rfilename=name) for name in names])

    def download(repository: str, name: str, *, revision: str, cache_dir: Path | None, **_: object) -> str:
        assert revision == "abc123" and cache_dir is None  # the commit, not the name that may move
        assert name.endswith(".safetensors"), "nothing else is fetched"
        return str(tmp_path / "hub" / repository / name)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)

    def repository(name: str) -> Path:
        (tmp_path / "hub" / name).mkdir(parents=True, exist_ok=True)
        return tmp_path / "hub" / name

    return repository


def test_repositories_of_the_hub_are_imported_at_their_commit(hub: Callable[[str], Path], tmp_path: Path) -> None:
    for i in range(4):
        save(hub(f"somebody/n{i}") / "model.safetensors", state(i))
        (hub(f"somebody/n{i}") / "pytorch_model.bin").write_bytes(b"never fetched")
    parts = list(state(9).items())
    save(hub("somebody/parts") / "model-00001-of-00002.safetensors", dict(parts[:2]))
    save(hub("somebody/parts") / "model-00002-of-00002.safetensors", dict(parts[2:]))
    (hub("somebody/empty") / "pytorch_model.bin").write_bytes(b"never fetched")
    rows = [{"file": f"hf://somebody/n{i}", "language": ("en", "de")[i % 2]} for i in range(3)]
    rows.append({"file": "somebody/parts/model.safetensors", "language": "de"})
    table = write_csv(tmp_path / "labels.csv", rows)
    names = ["n0", "n1@v1", "n2", "n3", "parts", "empty", "absent"]
    targets = [f"hf://somebody/{name}" for name in names]
    found = import_zoo("huggingface", targets, tmp_path / "zoo", table=table, show=False)
    assert found.networks == 4 and found.labels == ("language",)
    assert reasons(found) == {"missing": 2, "labels": 1}
    networks = {network.metadata["source"]: network for network in Zoo.open(tmp_path / "zoo").population()}
    whole = networks["somebody/parts@abc123/model.safetensors"]
    for name, array in state(9).items():
        np.testing.assert_array_equal(whole.arrays()[name], array)
    assert networks["somebody/n1@abc123/model.safetensors"].metadata["language"] == "de"
    bare = import_zoo("huggingface", targets[:1], tmp_path / "bare", show=False)
    assert bare.networks == 1 and bare.labels == ()
    with pytest.raises(SourceError, match="could not be fetched: the hub does not answer \\(OSError"):
        import_zoo("huggingface", targets[-1:], tmp_path / "none", show=False)
    with pytest.raises(SourceError, match="names no repository: give hf://OWNER/NAME"):
        import_zoo("huggingface", ["somebody/n0"], tmp_path / "none", show=False)


# -- the store --------------------------------------------------------------------------------------------------------


def test_the_same_source_gives_the_same_bytes_and_a_killed_import_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = state_dicts(tmp_path / "files", 20)
    (folder / "n3.pt").unlink(missing_ok=True)
    options = {"shard_size": 4}
    whole = imported("state-dicts", folder, tmp_path / "whole", **options)
    real, calls = foreign_store.write_shard, []

    def killed(place: Path, number: int, records: Any) -> None:
        if number == 2 and not calls:
            calls.append(number)
            raise KeyboardInterrupt
        real(place, number, records)

    monkeypatch.setattr(foreign_store, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        imported("state-dicts", folder, tmp_path / "killed", **options)
    with pytest.raises(ZooError, match="not complete"):
        Zoo.open(tmp_path / "killed")
    kept = shard_path(tmp_path / "killed", 1).stat().st_mtime_ns
    again = imported("state-dicts", folder, tmp_path / "killed", **options)
    assert shard_path(tmp_path / "killed", 1).stat().st_mtime_ns == kept
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert (again.networks, again.skipped) == (whole.networks, whole.skipped)


def test_a_finished_import_is_not_read_again_and_a_harmed_shard_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = state_dicts(tmp_path / "files", 12)
    imported("state-dicts", folder, tmp_path / "zoo", shard_size=4)
    before = contents(tmp_path / "zoo")
    read: list[Any] = []
    real = foreign_store.ForeignStore._read

    def counted(store: Any, *of: Any) -> Any:
        read.append(of)
        return real(store, *of)

    monkeypatch.setattr(foreign_store.ForeignStore, "_read", counted)
    imported("state-dicts", folder, tmp_path / "zoo", shard_size=4)
    assert not read and contents(tmp_path / "zoo") == before
    path = shard_path(tmp_path / "zoo", 1)
    path.write_bytes(path.read_bytes()[:-9])
    imported("state-dicts", folder, tmp_path / "zoo", shard_size=4)
    assert len(read) == 4 and contents(tmp_path / "zoo") == before
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    write_csv(folder / "labels.csv", [{**row, "rate": 5} for row in rows[:7]])  # the source has changed
    fewer = imported("state-dicts", folder, tmp_path / "zoo", shard_size=4)
    assert fewer.networks == 7 and check_zoo(tmp_path / "zoo") == []
    assert len(list((tmp_path / "zoo" / SHARDS).iterdir())) == 2
    assert set(Zoo.open(tmp_path / "zoo").column("rate")) == {5}


def test_another_import_or_another_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    folder = state_dicts(tmp_path / "files", 6)
    imported("state-dicts", folder, tmp_path / "zoo")
    with pytest.raises(ZooError, match=r"differs in seed \(0, not 1\)"):
        imported("state-dicts", folder, tmp_path / "zoo", seed=1)
    with writing(tmp_path / "zoo"), pytest.raises(PlaceError, match=f"process {os.getpid()}"):
        imported("state-dicts", folder, tmp_path / "zoo")
    with pytest.raises(ZooError, match="not empty and holds no zoo"):
        imported("state-dicts", folder, folder)


def test_a_shard_is_full_after_so_many_bytes_however_few_networks_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_store, "LARGEST", 400)  # two networks of 51 weights
    imported("state-dicts", state_dicts(tmp_path / "files", 6), tmp_path / "zoo")
    assert len(list((tmp_path / "zoo" / SHARDS).iterdir())) == 3
    assert check_zoo(tmp_path / "zoo") == []


def test_numbers_and_splits_do_not_follow_the_order_of_a_grid(tmp_path: Path) -> None:
    rows = []
    for i in range(200):
        save(tmp_path / "files" / f"{i:03d}.safetensors", {"weight": state(i)["0.weight"]})
        rows.append({"file": f"{i:03d}.safetensors", "half": i // 100, "parity": i % 2})
    write_csv(tmp_path / "files" / "labels.csv", rows)
    imported("state-dicts", tmp_path / "files", tmp_path / "zoo")
    assert check_zoo(tmp_path / "zoo") == []
    some = imported("state-dicts", tmp_path / "files", tmp_path / "some", count=20)
    assert some.networks == 20
    assert set(Zoo.open(tmp_path / "some").column("half")) == {0, 1}


# -- the command line, and tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["hyperzoo", "."], "there is no kind 'hyperzoo' of zoo to import: choose from modelzoos, small-cnn-zoo"),
        (["modelzoos", "nowhere"], "there is no nowhere: give the place of a zoo of kind modelzoos"),
        (["modelzoos", "a", "b"], "2 sources were given"),
        (["modelzoos", "."], "holds no trial: expected folders with params.json"),
        (["eilertsen", "."], "holds no CSV file"),
        (["state-dicts", "."], "holds 0 CSV files, and one of labels is expected"),
        (["state-dicts", ".", "--topology", "ring"], "topology 'ring': choose from unknown, chain, transformer"),
        (["modelzoos", ".", "--topology", "chain"], "leave --csv, --topology and --part out"),
        (["modelzoos", ".", "--count", "0"], "give none below 0, or below 1"),
    ],
)
def test_bad_words_are_one_sentence_and_status_2(
    tmp_path: Path,
    words: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["zoo", "import", *words, "--out", "zoo"]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert not Path("zoo").exists()


def test_a_source_of_which_nothing_can_be_imported_is_one_sentence_and_claims_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = state_dicts(tmp_path / "files", 2)
    for path in folder.rglob("n*.*"):
        path.write_bytes(b"")
    words = ["zoo", "import", "state-dicts", str(folder), "--out", str(tmp_path / "zoo")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "could be imported" in said and "is empty" in said and said.count("\n") == 1
    assert [path.name for path in (tmp_path / "zoo").iterdir()] == [".lock"]
    for path in folder.rglob("n*.*"):
        path.unlink()
    state_dicts(folder, 2)
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["networks"] == 2


def test_a_table_has_columns_of_one_type_and_says_what_it_lacks(tmp_path: Path) -> None:
    text = "name,whole,mixed,truth,text,empty,00\n01,1,1,True,a,,x\n02,2,0.5,False,7,NaN,y\n"
    (tmp_path / "a.csv").write_text(text)
    table = read_table(tmp_path / "a.csv", texts=["name"])
    assert table.row(1) == {
        "name": "02",
        "whole": 2,
        "mixed": 0.5,
        "truth": False,
        "text": "7",
        "empty": None,
        "00": "y",
    }
    assert len(table) == 2
    for content, sentence in (
        (b"", "is torn or no CSV file"),
        (b"name,a,a\n1,2,3\n", "has two columns named 'a'"),
        (b"name,a\n1\n", "is torn or no CSV file"),
        (b"name,a\n", "has no rows"),
        (b"file,a\n1,2\n", "has no column 'name', which must be there; it has file, a"),
        (b"name\n\xff\xfe\n", "is torn or no CSV file"),
    ):
        (tmp_path / "b.csv").write_bytes(content)
        with pytest.raises(SourceError) as error:
            read_table(tmp_path / "b.csv", ["name"])
        assert sentence in str(error.value), content
    with pytest.raises(SourceError, match="there is no file"):
        read_table(tmp_path / "none.csv")


def test_json_of_any_kind_becomes_columns_of_one_type() -> None:
    records = [
        {"rate": 1, "name": "a", "flag": True, "list": [1], "odd": 1, "huge": 2**70},
        {"rate": 0.5, "name": "\ud800", "flag": False, "list": [2], "odd": "1", "huge": 1},
        {"rate": float("nan"), "name": "", "list": None},
    ]
    made = of_one_type(records)
    assert [one["rate"] for one in made] == [1.0, 0.5, None] and isinstance(made[0]["rate"], float)
    assert [one["name"] for one in made] == ["a", "\\ud800", None]
    assert [one["flag"] for one in made] == [True, False, None]
    assert [one["list"] for one in made] == ["[1]", "[2]", None]
    assert [one["odd"] for one in made] == ["1", "1", None]
    assert made[0]["huge"] == str(2**70)
