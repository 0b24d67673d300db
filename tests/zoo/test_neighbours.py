"""A zoo in other people's hands: a table of pandas, batches of torch, a data set of the Hugging Face hub."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import weightspace as ws
from weightspace.errors import ZooError

OLD = Path(__file__).parents[1] / "data" / "old"


@pytest.fixture
def zoo(tmp_path: Path) -> ws.Zoo:
    """Twelve networks, each with a checkpoint before the last."""
    return ws.Zoo.open(shutil.copytree(OLD / "zoo", tmp_path / "zoo"))


def test_a_table_has_a_row_for_each_network(zoo: ws.Zoo) -> None:
    pytest.importorskip("pandas", reason="pandas is an extra")
    table = zoo.to_pandas()
    assert len(table) == len(zoo) == 12
    assert table["learning_rate"].tolist() == [network.metadata["learning_rate"] for network in zoo]
    assert set(table["optimiser"]) == {network.metadata["optimiser"] for network in zoo}
    assert (table["epoch"] == table["epoch"].max()).all(), "of each network the last checkpoint"


def test_without_pandas_a_table_says_what_to_install(zoo: ws.Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    assert zoo.columns  # pyarrow has read the index before pandas is gone

    class Index:
        def take(self, _: np.ndarray) -> Index:
            return self

        def to_pandas(self) -> None:
            raise ModuleNotFoundError("No module named 'pandas'")

    monkeypatch.setitem(zoo.__dict__, "_index", Index())
    monkeypatch.setattr(ws.Zoo, "rows", lambda *_: np.arange(1))
    with pytest.raises(ZooError, match=r"pip install .*\[tables\]'"):
        zoo.to_pandas()


def test_a_split_goes_through_a_data_loader(zoo: ws.Zoo) -> None:
    split = zoo.torch("train")
    networks = list(zoo.population("train"))
    assert len(split) == len(networks) == 6
    batches = list(DataLoader(split, batch_size=4))  # pyright: ignore[reportArgumentType]
    weights = torch.cat([batch[0] for batch in batches])
    assert torch.equal(weights, torch.from_numpy(np.stack([network.weights for network in networks])))
    labels = batches[0][1]
    assert labels["learning_rate"].tolist() == [network.metadata["learning_rate"] for network in networks[:4]]
    assert labels["optimiser"] == [network.metadata["optimiser"] for network in networks[:4]]
    assert "dropped" not in labels and "test_loss_by_epoch" not in labels, "what cannot be put into a batch"


def test_shuffled_batches_keep_weights_and_labels_together(zoo: ws.Zoo) -> None:
    rates = {network.weights.tobytes(): network.metadata["learning_rate"] for network in zoo}
    loader = DataLoader(zoo.torch(), batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(1))  # pyright: ignore
    seen = [
        (row.numpy().tobytes(), rate)
        for weights, labels in loader
        for row, rate in zip(weights, labels["learning_rate"].tolist(), strict=True)
    ]
    assert dict(seen) == rates and len(seen) == 12
    assert [key for key, _ in seen] != list(rates)


def test_a_missing_number_is_nan(tmp_path: Path) -> None:
    backdoors = ws.Zoo.open(shutil.copytree(OLD / "backdoor-zoo", tmp_path / "zoo"))
    clean = [network.metadata["alpha"] is None for network in backdoors]
    assert any(clean) and not all(clean)
    assert [math.isnan(labels["alpha"]) for _, labels in backdoors.torch()] == clean


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # theirs
def test_a_published_zoo_opens_as_a_hugging_face_data_set(zoo: ws.Zoo, tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed")
    ws.push(zoo, str(tmp_path / "published"), show=False)
    code = (
        "import datasets, sys; found = datasets.load_dataset(sys.argv[1], split='train', cache_dir=sys.argv[2]); "
        "last = found.filter(lambda row: row['epoch'] == 2 and row['split'] == 'test'); "
        "print(sorted(last['network']))"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "published"), str(tmp_path / "cache")]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(words, env=offline, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(sorted(network.metadata["network"] for network in zoo.population("test")))
