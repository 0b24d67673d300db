"""Training in several processes: what two of them owe one, whatever is killed, and what is refused how."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from weightspace.cli import main
from weightspace.metamodels.checks import planted_examples
from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.contract import Examples, Target
from weightspace.metamodels.learner import Answering
from weightspace.metamodels.metamodel import MetaModel
from weightspace.train.checkpoint import CHECKPOINT
from weightspace.train.config import TrainingConfig
from weightspace.train.launch import Launch
from weightspace.train.log import LOSSES, History
from weightspace.train.loop import train
from weightspace.train.ranks import Part, Ranks, RanksError, joined
from weightspace.zoo.store import Record, finish, split_of, write_description, write_shard

STEPS = 16
PLAIN = MetaModelConfig(
    chunk_size=8,
    width=16,
    depth=1,
    heads=2,
    pooling="mean",
    permute=False,
    training=TrainingConfig(
        steps=STEPS, batch_size=12, learning_rate=3e-3, evaluate_every=5, checkpoint_every=4, device="cpu"
    ),
)
RANDOM = replace(PLAIN, dropout=0.2, permute=True, permutations=16)
SAME = 1e-4
"""Largest relative difference of losses that are equal but for the order of float32 sums: AdamW divides gradients by
their size and so makes some 1e-7 of it a hundred times larger within 16 steps; other batches differ by 1e-2."""


def in_parts(config: MetaModelConfig, parts: int) -> MetaModelConfig:
    return replace(config, training=replace(config.training, micro_batches=parts))


def examples(seed: int = 0, count: int = 60) -> Examples:
    """Of most networks one label or none is known, and of those in front hardly any: parts differ in what they know."""
    planted = planted_examples(count, seed)
    rng = np.random.default_rng(seed)
    labels = {name: np.where(rng.random(count) < 0.6, -1, values) for name, values in planted.labels.items()}
    return Examples(planted.networks, labels, planted.targets)


def fit(
    config: MetaModelConfig, folder: Path | None = None, stop_at: int | None = None, slow: float = 0.0
) -> MetaModel:
    """A fitted meta-model; at step `stop_at`, or after being killed in a slow run, there is only its folder."""
    model = MetaModel(config, folder=folder)
    read, seen = model.batch, []

    def batch(*arguments: Any) -> Any:
        time.sleep(slow)
        if len(seen) == stop_at:
            raise InterruptedError
        seen.append(1)
        return read(*arguments)

    model.batch = batch  # type: ignore[method-assign]
    return model.fit(examples(), planted_examples(30, 1))


def outcome(model: MetaModel) -> dict[str, Any]:
    weights = [value for tensor in model.model.state_dict().values() for value in tensor.flatten().tolist()]
    return {"losses": model.history.training_loss, "evaluations": model.history.evaluations, "weights": weights}


def refusal(function: Callable[[], object]) -> str:
    with pytest.raises(RanksError) as caught:
        function()
    return str(caught.value)


# --- what the processes run ---


def together(folder: str) -> None:
    """What both processes of a pair do, one experiment after the other; each writes what it has seen."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with joined("cpu", 60.0) as ranks:
        shared, own = Path(folder), Path(folder) / f"own{ranks.rank}"
        found["plain"] = outcome(fit(PLAIN))
        found["random"] = outcome(fit(RANDOM))
        found["four"] = outcome(fit(in_parts(RANDOM, 4)))
        found["whole"] = outcome(fit(RANDOM, shared / "whole"))
        found["resumed"] = outcome(fit(RANDOM, shared / "killed"))
        found["resumed by two"] = outcome(fit(RANDOM, shared / "by one"))
        try:
            fit(RANDOM, shared / "by two", stop_at=9)
        except InterruptedError:
            found["stopped"] = True
        with pytest.MonkeyPatch.context() as patch:
            rows = Part.rows
            patch.setattr(Part, "rows", lambda part, count: rows(Part(0, part.of), count))
            found["broken"] = outcome(fit(PLAIN))
        found["decided"] = replace(decided(ranks), seconds=0.0).to_json()
        found["another folder"] = refusal(lambda: fit(RANDOM, shared / ("whole" if ranks.first else "elsewhere")))
        found["too small"] = refusal(lambda: fit(in_parts(PLAIN, 14)))
        found["whole batches"] = refusal(lambda: in_whole_batches(1))
        own.mkdir()
    found["threads"] = [name for name in native_threads() if "gloo" in name]
    (own / "found.json").write_text(json.dumps(found))


def native_threads() -> list[str]:
    """Names of this process's threads, those of libraries too, where the system tells."""
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


def decided(ranks: Ranks) -> History:
    """Processes whose evaluations differ: the first one's decide, or one would wait for the other forever."""
    loss = (lambda losses: lambda _: {"loss": next(losses)})(
        iter([[3.0, 1.0, 2.0, 2.0], [5.0, 4.0, 3.0, 2.0]][ranks.rank])
    )
    config = replace(PLAIN.training, steps=8, evaluate_every=2, patience=2)
    return train(nn.Linear(1, 1), squares, lambda *_: torch.ones(1, 1), config, evaluate=loss, divisible=True)


def squares(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


def in_whole_batches(parts: int) -> History:
    config = replace(PLAIN.training, micro_batches=parts)
    return train(nn.Linear(1, 1), squares, lambda _: torch.ones(1, 1), config)


def slowly(folder: str) -> None:
    """What the pair runs of which one process is killed; the other's last word is its sentence."""
    torch.set_num_threads(1)
    try:
        with joined("cpu", 60.0):
            fit(RANDOM, Path(folder), slow=0.2)
    except RanksError as error:
        sys.exit(str(error))


def start(function: str, folder: Path, count: int = 2) -> list[subprocess.Popen[str]]:
    """Start the processes as torchrun would, but without anyone who watches over them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_ranks; "
    code += f"test_ranks.{function}({str(folder)!r})"
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code],
            env={**os.environ, **address, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which a pair is killed, one process alone is interrupted, and a second pair goes on with both."""
    folder = tmp_path_factory.mktemp("ranks")
    first, second = start("slowly", folder / "killed")
    table, deadline = folder / "killed" / LOSSES, time.monotonic() + 120
    while not table.is_file() or table.read_bytes().count(b"\n") < 7:
        assert first.poll() is None and second.poll() is None and time.monotonic() < deadline, "it ended by itself"
        time.sleep(0.01)
    second.kill()
    since = time.monotonic()
    said = first.communicate(timeout=60)[1]
    (folder / "survivor.json").write_text(json.dumps([first.returncode, said, time.monotonic() - since]))
    second.communicate()
    with pytest.raises(InterruptedError):
        fit(in_parts(RANDOM, 2), folder / "by one", stop_at=2 * 9)
    assert (folder / "by one" / CHECKPOINT).is_file()
    processes = start("together", folder)
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    yield folder


@pytest.fixture(scope="module")
def pair(run: Path) -> dict[str, Any]:
    """What the first process of the pair has found, which is what the second one found too."""
    found, other = (json.loads((run / f"own{rank}" / "found.json").read_text()) for rank in range(2))
    refused = other.pop("another folder")
    assert refused == found["another folder"].replace("whole", "elsewhere")
    assert found == {**other, "another folder": found["another folder"]}
    return found


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    """The same losses and evaluations up to `SAME`."""
    np.testing.assert_allclose(one["losses"], other["losses"], rtol=SAME)
    for ours, theirs in zip(one["evaluations"], other["evaluations"], strict=True):
        assert ours == pytest.approx(theirs, rel=SAME)


# --- two processes against one ---


def test_two_processes_train_as_one_does_on_the_same_batches(pair: dict[str, Any]) -> None:
    assert_equal(pair["plain"], outcome(fit(PLAIN)))


def test_a_broken_split_of_the_batch_is_seen(pair: dict[str, Any]) -> None:
    """The control of the test above: both processes took the first half of each batch."""
    differences = np.abs(np.divide(pair["broken"]["losses"], pair["plain"]["losses"]) - 1)
    assert differences.max() > 100 * SAME and differences[0] > 10 * SAME


def test_with_dropout_and_augmentation_the_number_of_parts_decides_and_not_who_takes_them(pair: dict[str, Any]) -> None:
    assert_equal(pair["random"], outcome(fit(in_parts(RANDOM, 2))))
    assert_equal(pair["four"], outcome(fit(in_parts(RANDOM, 4))))
    other = np.divide(pair["four"]["losses"], pair["random"]["losses"]) - 1
    assert np.abs(other).max() > 10 * SAME


def test_gradients_of_micro_batches_add_up_to_the_batchs() -> None:
    whole = outcome(fit(PLAIN))
    for parts in (2, 3, 5, 12):
        assert_equal(outcome(fit(in_parts(PLAIN, parts))), whole)


def test_the_mean_over_known_labels_is_the_batchs_and_not_a_mean_of_means() -> None:
    answering = Answering((Target("kind", ("a", "b")), Target("size")), ((0.0, 1.0), (0.0, 1.0)))
    outputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    unknown = torch.nan
    labels = torch.tensor(
        [[0, unknown], [1, 2.0], [1, 1.0], [0, unknown], [unknown, unknown], [1, unknown]] + 2 * [[0, 3.0]]
    )
    counts = labels.isfinite().sum(0)
    assert counts.tolist() == [7, 4]
    whole = answering.loss(outputs, labels)
    halves = [answering.loss(outputs[rows], labels[rows], counts) for rows in (slice(0, 4), slice(4, 8))]
    assert float(sum(halves)) == pytest.approx(float(whole), rel=1e-6)
    means = [answering.loss(outputs[rows], labels[rows]) for rows in (slice(0, 4), slice(4, 8))]
    assert abs(float(sum(means)) / 2 - float(whole)) > 1e-2


def test_parts_are_consecutive_and_cover_each_example_once() -> None:
    for count, of in ((12, 1), (12, 5), (7, 7), (100, 8)):
        rows = [list(range(count))[Part(i, of).rows(count)] for i in range(of)]
        assert [row for part in rows for row in part] == list(range(count))
        assert max(map(len, rows)) - min(map(len, rows)) <= 1
    for count in (1, 2, 3):
        for least in (1, 2, 4, 5):
            taken = [part for rank in range(count) for part in Ranks(rank, count).parts(least)]
            assert [part.index for part in taken] == list(range(len(taken))) and len(taken) >= least
            assert {part.of for part in taken} == {len(taken)}


# --- killed, resumed ---


def test_a_pair_of_which_one_was_killed_and_that_goes_on_is_one_that_was_not(run: Path, pair: dict[str, Any]) -> None:
    assert pair["resumed"] == pair["whole"]
    for folder in ("killed", "whole"):
        steps = [line.split(",")[0] for line in (run / folder / LOSSES).read_text().splitlines()]
        assert steps == ["step", *map(str, range(1, STEPS + 1))]


def test_a_killed_process_ends_the_other_at_once_with_a_sentence(run: Path) -> None:
    code, said, seconds = json.loads((run / "survivor.json").read_text())
    assert code == 1 and seconds < 30
    assert said.strip().splitlines()[-1].startswith("another process of this training has ended or does not answer")
    assert "Traceback" not in said


def test_a_run_goes_on_with_another_number_of_processes(run: Path, pair: dict[str, Any], tmp_path: Path) -> None:
    """Its state says nothing of processes; the parts of a batch stay two."""
    assert_equal(pair["resumed by two"], pair["whole"])
    assert pair["stopped"]
    shutil.copytree(run / "by two", tmp_path / "by two")
    assert_equal(outcome(fit(in_parts(RANDOM, 2), tmp_path / "by two")), pair["whole"])


def test_the_first_processs_evaluations_decide_for_all(pair: dict[str, Any]) -> None:
    assert [entry["loss"] for entry in pair["decided"]["evaluations"]] == [3.0, 1.0, 2.0, 2.0]
    assert (pair["decided"]["steps"], pair["decided"]["best_step"]) == (8, 4)


# --- what is refused ---


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="this system does not name the threads of a process")
def test_no_thread_of_the_group_outlives_it(pair: dict[str, Any]) -> None:
    assert pair["threads"] == []  # one that does may abort the process at its exit, after all is done


def test_processes_that_see_other_folders_are_refused(pair: dict[str, Any]) -> None:
    assert re.search(r"do not see the same checkpoint in .*\(\[16, 0\]\): give each the same", pair["another folder"])


def test_what_cannot_be_cut_is_refused(pair: dict[str, Any]) -> None:
    assert "a batch of 12 cannot be cut into 14 parts" in pair["too small"]
    assert "takes its batches whole, and here each is cut into 2 parts" in pair["whole batches"]
    assert "here each is cut into 3 parts" in refusal(lambda: in_whole_batches(3))
    with pytest.raises(ValueError, match="micro_batches is 0; it must be at least 1"):
        TrainingConfig(micro_batches=0)


def test_what_torchrun_says_is_read_and_nonsense_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Launch.of_environment() == Launch(0, 0, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert Launch.of_environment() == Launch(0, 0, 1), "something else has set it"
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Launch.of_environment() == Launch(3, 1, 4)
    with pytest.raises(RanksError, match="speaks of 4 processes, but MASTER_ADDR or MASTER_PORT is not set"), joined():
        pass
    for rank in ("4", "-1", "one"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(ValueError, match="which no process can be: start it by torchrun"):
            Launch.of_environment()


def test_other_verbs_are_done_by_one_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert main(["zoo", "info", "nowhere"]) == 2
    assert (
        capsys.readouterr().err
        == "weightspace: weightspace zoo info is done by one process: start it without torchrun\n"
    )


def test_a_process_that_nobody_joins_says_so_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    since = time.monotonic()
    with pytest.raises(RanksError, match="another process of this training"), joined("cpu", 1.0):
        pass
    assert time.monotonic() - since < 30
    assert Ranks.here() == Ranks()


# --- as a person types it ---


def planted_zoo(folder: Path, count: int = 60) -> None:
    planted = planted_examples(count, 0)
    choice = {"kind": "Choice", "values": ["a", "b"]}
    config = {"recipe": "planted", "seed": 0, "count": count, "space": {"sign": choice}, "architectural": []}
    write_description(folder, {"config": config, "version": "test"})
    labels = planted.labels["sign"]
    records = [
        Record(n.spec, n.weights, {"network": i, "split": split_of(i, 0), "seed": i, "sign": "ab"[labels[i]]})
        for i, n in enumerate(planted.networks)
    ]
    write_shard(folder, 0, records)
    finish(folder, 1)


@pytest.mark.slow
def test_torchrun_trains_a_zoo_and_the_first_process_speaks_for_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planted_zoo(tmp_path / "zoo")
    words = ["train", str(tmp_path / "zoo"), "--out", str(tmp_path / "run"), "--json", "--device", "cpu"]
    words += ["--steps", "6", "--batch-size", "8", "--width", "8", "--depth", "1", "--evaluate-every", "3"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = subprocess.run([*torchrun, "weightspace", *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    history = json.loads(done.stdout)
    assert history["steps"] == 6 and "Traceback" not in done.stderr
    assert MetaModel.load(tmp_path / "run").history.training_loss == history["training_loss"]
    words[words.index("--out") + 1] = str(tmp_path / "alone")
    assert main([*words, "--micro-batches", "2"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["training_loss"] == pytest.approx(history["training_loss"], rel=SAME)


@pytest.mark.skipif(not hasattr(signal, "SIGTERM"), reason="this system has no SIGTERM")
@pytest.mark.slow
def test_torchrun_that_is_stopped_and_started_again_goes_on(tmp_path: Path) -> None:
    planted_zoo(tmp_path / "zoo")
    words = ["train", str(tmp_path / "zoo"), "--out", str(tmp_path / "run"), "--device", "cpu", "--batch-size", "8"]
    words += ["--steps", "1500", "--width", "8", "--depth", "1", "--checkpoint-every", "20", "--json"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    process = subprocess.Popen(
        [*torchrun, "weightspace", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    table, deadline = tmp_path / "run" / LOSSES, time.monotonic() + 300
    while not table.is_file() or table.read_bytes().count(b"\n") < 50:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.terminate()
    process.communicate(timeout=60)
    assert table.read_bytes().count(b"\n") < 1500
    again = subprocess.run([*torchrun, "weightspace", *words], capture_output=True, text=True, timeout=600)
    assert json.loads(again.stdout)["steps"] == 1500, again.stderr
