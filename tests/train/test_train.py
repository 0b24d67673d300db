"""Training: what a resumed run owes an uninterrupted one, what the optimiser does, and what is refused how."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from weightspace.errors import PlaceError
from weightspace.files import progress as progress_module
from weightspace.files.progress import duration, progress
from weightspace.train import checkpoint as checkpoint_module
from weightspace.train import loop as loop_module
from weightspace.train.checkpoint import CHECKPOINT, CheckpointError, bind
from weightspace.train.config import TrainingConfig
from weightspace.train.log import COLUMNS, LOSSES, History, LossTable
from weightspace.train.loop import TrainingDiverged, mix, to_device, train
from weightspace.train.optimiser import adamw, decays, learning_rate

CONFIG = TrainingConfig(
    steps=60,
    batch_size=16,
    learning_rate=1e-2,
    evaluate_every=7,
    checkpoint_every=10,
    seed=5,
    device="cpu",
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads gain nothing on networks this small, and wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Interrupted(Exception):
    """Stands for a kill, where the test goes on in the same process."""


class Reader(nn.Module):
    """Everything that could break exact resume: an embedding that is indexed, dropout, and running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(12, 8))
        self.body = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 1))

    def forward(self, index: Tensor) -> Tensor:
        return self.body(self.table[index]).squeeze(-1)  # (batch,)


def reader() -> Reader:
    torch.manual_seed(11)
    return Reader()


def reader_batch(step: int) -> tuple[Tensor, Tensor]:
    index = torch.randint(0, 12, (16,), generator=torch.Generator().manual_seed(step))
    return index, index.float().sin()


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, targets = batch
    return (model(inputs) - targets).square().mean()


def reader_validation(model: nn.Module) -> dict[str, float]:
    index = torch.arange(12)
    return {"loss": squared_error(model, (index, index.float().sin())).item()}


def train_reader(
    folder: Path | None, config: TrainingConfig = CONFIG, stop_at: int | None = None, **kw: Any
) -> tuple[Reader, History]:
    """Train a fresh reader; at step `stop_at`, halfway through an update, raise `Interrupted`."""

    def loss(model: nn.Module, batch: tuple[int, Tensor, Tensor]) -> Tensor:
        step, *rest = batch
        value = squared_error(model, (rest[0], rest[1]))
        if step == stop_at:
            raise Interrupted
        return value

    model = reader()
    kw.setdefault("evaluate", reader_validation)
    return model, train(model, loss, lambda step: (step, *reader_batch(step)), config, folder=folder, **kw)


def train_slowly(folder: str) -> None:
    """What the killed process runs: slow enough to be hit between any two lines."""
    torch.set_num_threads(1)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        time.sleep(0.01)
        return reader_batch(step)

    train(reader(), squared_error, batch, CONFIG, evaluate=reader_validation, folder=Path(folder))


def assert_same_run(resumed: tuple[Reader, History], whole: tuple[Reader, History]) -> None:
    assert resumed[1].training_loss == whole[1].training_loss
    assert resumed[1].evaluations == whole[1].evaluations
    assert resumed[1].best_step == whole[1].best_step
    for (name, ours), theirs in zip(resumed[0].state_dict().items(), whole[0].state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / LOSSES).open(newline="") as file:
        return list(csv.DictReader(file))


def without_seconds(folder: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(folder)]


def linear_batch(step: int) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(64, 3, generator=torch.Generator().manual_seed(step))
    return inputs, inputs @ torch.tensor([[1.0], [-2.0], [0.5]]) + 3


def linear_model() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


# --- exact resume ---


@pytest.mark.parametrize("stop_at", [3, 10, 19, 35, 59])
def test_a_run_stopped_at_any_step_and_resumed_is_the_run_that_was_not(tmp_path: Path, stop_at: int) -> None:
    whole = train_reader(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train_reader(tmp_path / "cut", stop_at=stop_at)
    torch.manual_seed(99)  # a resumed process starts from another generator state
    torch.rand(3)
    assert_same_run(train_reader(tmp_path / "cut"), whole)
    assert without_seconds(tmp_path / "cut") == without_seconds(tmp_path / "whole")


def test_another_seed_gives_another_run() -> None:
    """The control of the test above: its equality is not that of a run without randomness."""
    _, history = train_reader(None)
    _, other = train_reader(None, replace(CONFIG, seed=6))
    assert history.training_loss != other.training_loss


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_process_killed_and_resumed_gives_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    whole = train_reader(None)
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_train; "
    code += f"test_train.train_slowly({str(tmp_path)!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    table = tmp_path / LOSSES
    while not table.is_file() or table.read_bytes().count(b"\n") < 25:
        assert process.poll() is None and time.monotonic() < deadline, "it ended by itself"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 24 <= len(rows(tmp_path)) < CONFIG.steps
    assert_same_run(train_reader(tmp_path), whole)
    assert [int(row["step"]) for row in rows(tmp_path)] == list(range(1, CONFIG.steps + 1))


def test_of_two_runs_in_one_folder_the_second_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    refusals: list[str] = []

    def second(model: nn.Module) -> dict[str, float]:
        with pytest.raises(PlaceError) as refused:
            train_reader(tmp_path)
        refusals.append(str(refused.value))
        return reader_validation(model)

    assert_same_run(train_reader(tmp_path, evaluate=second), train_reader(None))
    assert f"another run is writing into {tmp_path} (process {os.getpid()} on " in refusals[0]
    assert [int(row["step"]) for row in rows(tmp_path)] == list(range(1, CONFIG.steps + 1))


def test_a_run_that_fails_before_its_first_checkpoint_lets_its_folder_go(tmp_path: Path) -> None:
    assert bind(tmp_path, b"one") and not bind(tmp_path, b"another")
    with pytest.raises(Interrupted):
        train_reader(tmp_path, stop_at=3)
    assert bind(tmp_path, b"another")
    with pytest.raises(Interrupted):
        train_reader(tmp_path, stop_at=15)  # there is a checkpoint to go on from
    assert bind(tmp_path, b"another") and not bind(tmp_path, b"one")


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_reader(None)
    write, written = checkpoint_module.write_atomically, []

    def killed_the_second_time(path: Path, content: bytes) -> None:
        if written:
            path.with_name(f".{path.name}.1.tmp").write_bytes(content[: len(content) // 2])
            raise Interrupted
        written.append(path)
        write(path, content)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(checkpoint_module, "write_atomically", killed_the_second_time)
        train_reader(tmp_path)
    assert len(rows(tmp_path)) == 20
    assert_same_run(train_reader(tmp_path), whole)


def test_gradients_of_indexing_are_the_same_bits_in_every_run() -> None:
    """Without deterministic algorithms two threads add them in an order of their own."""
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, 50, (20_000,), generator=generator)
    weight = torch.randn(20_000, 64, generator=generator)

    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Parameter(torch.zeros(50, 64))

    def loss(model: nn.Module, _: int) -> Tensor:
        assert isinstance(model, Table)
        return (model.rows[index] * weight).sum() + model.rows.square().sum()

    config = replace(CONFIG, steps=4)
    histories = [train(Table(), loss, lambda step: step, config) for _ in range(4)]
    assert all(h.training_loss == histories[0].training_loss for h in histories)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_finished_run_returns_at_once_with_its_best_model(tmp_path: Path) -> None:
    whole = train_reader(tmp_path)

    def never(*_: object) -> Any:
        raise AssertionError("a finished run trains no more")

    model = reader()
    history = train(model, never, never, CONFIG, evaluate=never, folder=tmp_path)
    assert_same_run((model, history), whole)
    assert history == whole[1]


def test_a_run_stopped_by_patience_is_finished(tmp_path: Path) -> None:
    config = replace(CONFIG, patience=2, evaluate_every=5)
    values = iter([3.0, 1.0, 2.0, 1.0])
    _, history = train_reader(tmp_path, config, evaluate=lambda _: {"loss": next(values)})
    assert (history.steps, history.best_step) == (20, 10)
    _, again = train_reader(tmp_path, config, stop_at=20)
    assert again == history


def test_reading_losses_rarely_changes_neither_the_run_nor_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the losses are read every tenth step."""
    whole = train_reader(tmp_path / "each")
    monkeypatch.setitem(loop_module.READ_EVERY, "cpu", 10)
    assert_same_run(train_reader(tmp_path / "tenth"), whole)
    assert without_seconds(tmp_path / "tenth") == without_seconds(tmp_path / "each")


# --- checkpoints that do not fit ---


def test_a_torn_checkpoint_is_refused_at_whatever_byte_it_ends(tmp_path: Path) -> None:
    train_reader(tmp_path, replace(CONFIG, steps=10))
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    for length in (0, 4, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"not a whole checkpoint .* delete it"):
            train_reader(tmp_path, replace(CONFIG, steps=10))


def test_a_safetensors_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / CHECKPOINT)
    with pytest.raises(CheckpointError, match="no training checkpoint"):
        train_reader(tmp_path)


def test_a_checkpoint_of_another_model_is_refused_and_the_model_left_alone(tmp_path: Path) -> None:
    train(linear_model(), squared_error, linear_batch, CONFIG, folder=tmp_path)
    wider = nn.Linear(4, 1)
    before = wider.weight.detach().clone()
    with pytest.raises(CheckpointError, match=r"another model: 'weight' is .*\(1, 3\) there"):
        train(wider, squared_error, linear_batch, CONFIG, folder=tmp_path)
    assert torch.equal(wider.weight, before)
    with pytest.raises(CheckpointError, match=r"another model: missing .*0\.bias"):
        train(nn.Sequential(nn.Linear(3, 1)), squared_error, linear_batch, CONFIG, folder=tmp_path)


def test_a_checkpoint_of_another_config_is_refused_by_field_name(tmp_path: Path) -> None:
    train_reader(tmp_path)
    other = replace(CONFIG, steps=80, learning_rate=0.5)
    with pytest.raises(CheckpointError, match=r"learning_rate .*0\.01.*0\.5.* steps .*schedule"):
        train_reader(tmp_path, other)


def test_what_does_not_change_the_result_may_change_on_resume(tmp_path: Path) -> None:
    whole = train_reader(None)
    with pytest.raises(Interrupted):
        train_reader(tmp_path, stop_at=35)
    assert_same_run(train_reader(tmp_path, replace(CONFIG, checkpoint_every=3, device="auto")), whole)


def test_a_checkpoint_says_in_one_key_what_it_is(tmp_path: Path) -> None:
    _, history = train_reader(tmp_path)
    with safe_open(str(tmp_path / CHECKPOINT), framework="pt") as file:
        metadata, names = file.metadata(), set(file.keys())
    assert list(metadata) == ["weightspace"]
    record = json.loads(metadata["weightspace"])
    assert record.keys() == {"version", "step", "finished", "config", "best_validation", "history"}
    assert (record["version"], record["step"], record["finished"]) == (1, 60, True)
    assert record["best_validation"] == min(e["loss"] for e in history.evaluations)
    assert History(**record["history"]) == history
    assert {"model/table", "best/table", "optimiser/exp_avg/table", "optimiser/step/table"} <= names


def test_tied_and_unused_parameters_survive_a_checkpoint(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
            self.second.weight = self.first.weight
            self.unused = nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    def run(folder: Path, stop_at: int | None = None) -> History:
        def batch(step: int) -> tuple[Tensor, Tensor]:
            if step == stop_at:
                raise Interrupted
            return linear_batch(step)

        torch.manual_seed(2)
        return train(Tied(), squared_error, batch, CONFIG, folder=folder)

    with pytest.raises(Interrupted):
        run(tmp_path / "cut", stop_at=25)
    assert run(tmp_path / "cut").training_loss == run(tmp_path / "whole").training_loss


# --- the optimiser ---


def test_the_learning_rate_rises_to_its_peak_and_falls_to_its_fraction() -> None:
    config = TrainingConfig(steps=101, warmup=0.1, learning_rate=1.0, final_fraction=0.2)
    expected = {  # warm-up is steps 0 to 9, the peak is step 10, the middle of the fall step 55
        "cosine": {0: 1 / 11, 9: 10 / 11, 10: 1.0, 55: 0.6, 100: 0.2},
        "linear": {0: 1 / 11, 9: 10 / 11, 10: 1.0, 55: 0.6, 100: 0.2, 28: 0.84},
        "constant": {0: 1 / 11, 9: 10 / 11, 10: 1.0, 55: 1.0, 100: 1.0},
    }
    for schedule, values in expected.items():
        for step, value in values.items():
            given = learning_rate(step, replace(config, schedule=schedule))
            assert given == pytest.approx(value, rel=1e-12), (schedule, step)
    quarter = learning_rate(28, replace(config, schedule="cosine"))
    assert quarter == pytest.approx(0.2 + 0.8 * 0.904508497, rel=1e-9)  # (1 + cos 36 degrees) / 2


def test_a_run_of_one_step_learns_at_the_peak_rate() -> None:
    assert learning_rate(0, TrainingConfig(steps=1, final_fraction=0.0)) == 3e-4


def test_decay_applies_to_linear_maps_alone() -> None:
    model = nn.ModuleDict(
        {
            "embed": nn.Embedding(5, 4),
            "convolution": nn.Conv1d(4, 4, 3),
            "norm": nn.LayerNorm([4, 4]),
            "dense": nn.Linear(4, 4),
            "tied": nn.Linear(4, 5, bias=False),
            "frozen": nn.Linear(4, 4).requires_grad_(False),
        }
    )
    model["tied"].weight = model["embed"].weight
    assert {name for name, decayed in decays(model).items() if decayed} == {
        "convolution.weight",
        "dense.weight",
    }
    decayed, spared = adamw(model, CONFIG).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (1e-4, 0.0)
    assert [p.ndim for p in decayed["params"]] == [3, 2]
    assert len(spared["params"]) == 5  # the table, two biases, scale and shift of the norm


def test_decay_shrinks_matrices_that_get_no_gradient_and_leaves_biases() -> None:
    model = nn.Linear(3, 2)
    nn.init.ones_(model.bias)
    before = model.weight.detach().clone()
    config = replace(CONFIG, steps=1, warmup=0.0, learning_rate=0.1, weight_decay=0.5)
    train(model, lambda m, _: sum(0 * p.sum() for p in m.parameters()), lambda step: step, config)  # type: ignore[arg-type, return-value]
    assert torch.allclose(model.weight, before * (1 - 0.1 * 0.5), rtol=1e-6)
    assert torch.equal(model.bias, torch.ones(2))


def test_a_model_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="no trainable parameters"):
        train(linear_model().requires_grad_(False), squared_error, linear_batch, CONFIG)


# --- what the loop does ---


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_linear_regression_is_solved(precision: Any) -> None:
    model = linear_model()
    config = replace(CONFIG, steps=400, learning_rate=0.1, precision=precision, final_fraction=0.0)
    history = train(model, squared_error, linear_batch, config)
    # bfloat16 keeps 8 bits of each product: 3 +- 0.01 is its resolution
    tolerance = 1e-3 if precision == "float32" else 2e-2
    expected = torch.tensor([[1.0, -2.0, 0.5, 3.0]])
    assert torch.allclose(torch.cat([model.weight, model.bias[None]], 1), expected, atol=tolerance)
    assert model.weight.dtype == torch.float32
    assert history.steps == len(history.training_loss) == 400
    assert history.best_step is None and history.evaluations == []


def test_shuffled_targets_teach_nothing() -> None:
    """The control of the test above: the loop does not find what is not there."""

    def batch(step: int) -> tuple[Tensor, Tensor]:
        inputs, targets = linear_batch(step)
        return inputs, targets[torch.randperm(64)]  # seeded by the loop, hence a function of step

    model = linear_model()
    train(model, squared_error, batch, replace(CONFIG, steps=400, learning_rate=0.1))
    assert model.weight.abs().max() < 0.4  # the noise of 64 examples of standard deviation 2.3


def test_bfloat16_is_used_in_training_and_evaluation() -> None:
    seen = set()

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        seen.add((model.training, torch.is_grad_enabled(), model(batch[0]).dtype))
        return squared_error(model, batch)

    train(
        linear_model(),
        loss,
        linear_batch,
        replace(CONFIG, steps=2, precision="bfloat16"),
        evaluate=lambda model: {"loss": loss(model, linear_batch(0)).item()},
    )
    assert seen == {(True, True, torch.bfloat16), (False, False, torch.bfloat16)}


def test_the_best_model_is_the_one_left(tmp_path: Path) -> None:
    weights: list[Tensor] = []
    values = iter([5.0, 1.0, 4.0, 2.0])

    def evaluate(model: nn.Module) -> dict[str, float]:
        weights.append(model.get_parameter("weight").detach().clone())
        return {"loss": next(values)}

    model = linear_model()
    config = replace(CONFIG, steps=20, evaluate_every=5)
    history = train(model, squared_error, linear_batch, config, evaluate=evaluate, folder=tmp_path)
    assert history.best_step == 10
    assert torch.equal(model.weight, weights[1]) and not torch.equal(model.weight, weights[3])


def test_a_long_gradient_is_cut_to_the_clip_norm() -> None:
    def step_of(clip_norm: float | None) -> float:
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        # AdamW's first step is lr * g / (|g| + 1e-8), so a gradient cut to 1e-8 moves half of lr
        config = replace(CONFIG, steps=1, warmup=0.0, learning_rate=1.0, clip_norm=clip_norm, weight_decay=0.0)
        train(model, lambda m, x: m(x).sum(), lambda _: torch.full((1, 1), 7.0), config)
        return model.weight.item()

    assert step_of(None) == pytest.approx(-1.0, rel=1e-5)
    assert step_of(1e-8) == pytest.approx(-0.5, rel=1e-2)


def test_the_table_holds_every_step_once_with_the_evaluations(tmp_path: Path) -> None:
    _, history = train_reader(tmp_path)
    table = rows(tmp_path)
    assert list(table[0]) == [*COLUMNS, "validation_loss"]
    assert [int(row["step"]) for row in table] == list(range(1, 61))
    assert [float(row["training_loss"]) for row in table] == history.training_loss
    assert [float(row["learning_rate"]) for row in table] == [learning_rate(step, CONFIG) for step in range(60)]
    evaluated = {int(r["step"]): float(r["validation_loss"]) for r in table if r["validation_loss"]}
    assert evaluated == {e["step"]: e["loss"] for e in history.evaluations}
    assert list(evaluated) == [*range(7, 60, 7), 60]
    seconds = [float(row["seconds"]) for row in table]
    assert seconds == sorted(seconds) and seconds[-1] <= history.seconds + 1e-3


def test_a_row_that_a_kill_cut_short_is_dropped(tmp_path: Path) -> None:
    header, line = ",".join(COLUMNS), "{},0.5,0.1,1.0,2.0\n"
    whole = header + "\n" + "".join(line.format(n) for n in range(1, 13))
    for torn in ("1", "13", "13,0.", "", "1,0.5,0.1,1.0,2.0\n"):
        (tmp_path / LOSSES).write_text(whole + torn)
        LossTable(tmp_path, 20).close()
        assert (tmp_path / LOSSES).read_text() == whole
    LossTable(tmp_path, 0).close()
    assert (tmp_path / LOSSES).read_text() == header + "\n"


@pytest.mark.parametrize("read_every", [1, 10])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_every: int
) -> None:
    monkeypatch.setitem(loop_module.READ_EVERY, "cpu", read_every)
    calls = []

    def batch(step: int) -> tuple[Tensor, Tensor]:
        calls.append(step)
        inputs, targets = linear_batch(step)
        return inputs, targets * (float("nan") if step == 24 else 1.0)

    with pytest.raises(TrainingDiverged, match=r"loss is nan at step 25, the last finite loss was"):
        train(linear_model(), squared_error, batch, CONFIG, folder=tmp_path)
    assert len(calls) <= 25 + read_every - 1
    with safe_open(str(tmp_path / CHECKPOINT), framework="pt") as file:
        assert json.loads(file.metadata()["weightspace"])["step"] == 20
        assert torch.isfinite(file.get_tensor("model/weight")).all()


def test_a_gradient_that_is_not_finite_stops_the_run() -> None:
    def loss(model: nn.Module, _: int) -> Tensor:
        return (model.get_parameter("weight") * 0).abs().sqrt().sum()  # slope of a root at 0

    with pytest.raises(TrainingDiverged, match="gradient's norm is nan at step 1, it never was"):
        train(linear_model(), loss, lambda step: step, CONFIG)


@pytest.mark.parametrize(
    "metrics, message",
    [({"accuracy": 1.0}, "without 'loss'"), ({"loss": float("inf")}, "validation loss is inf")],
)
def test_an_evaluation_without_a_usable_loss_is_refused(metrics: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_reader(None, evaluate=lambda _: metrics)


def test_a_loss_that_is_no_scalar_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(64, 1\)"):
        train(linear_model(), lambda m, batch: m(batch[0]), linear_batch, CONFIG)


@pytest.mark.parametrize("training", [True, False])
def test_the_callers_generators_and_the_models_mode_are_given_back(training: bool) -> None:
    model = reader().train(training)
    torch.manual_seed(42)
    before = torch.get_rng_state()
    train(model, squared_error, reader_batch, CONFIG, evaluate=reader_validation)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training == model.body.training == training


def test_seeds_of_neighbouring_steps_have_nothing_in_common() -> None:
    mixed = [mix(seed, step) for seed in range(40) for step in range(40)]
    # torch's CPU generator takes the low half: those must differ as well, and each bit be fair
    assert len({m % 2**32 for m in mixed}) == len(mixed)
    for bit in range(64):
        assert 0.4 < sum(m >> bit & 1 for m in mixed) / len(mixed) < 0.6
    # SplitMix64 of 0, twice: written out so that a change of the mix, which breaks resume, is seen
    assert mix(0, 0) == 0xA706DD2F4D197E6F


class Pair(NamedTuple):
    first: Tensor
    second: Any


def test_batches_of_any_make_go_to_the_device() -> None:
    class Movable:
        device = None

        def to(self, device: torch.device) -> "Movable":
            moved = Movable()
            moved.device = device
            return moved

    tensor, target = torch.ones(2), torch.device("meta")
    moved = to_device(Pair(tensor, [{"a": tensor, "b": Movable()}, (tensor, 3, "text")]), target)
    assert isinstance(moved, Pair) and moved.first.device == target
    (record, rest) = moved.second
    assert record["a"].device == rest[0].device == target and record["b"].device == target
    assert rest[1:] == (3, "text")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # inside torch.compile itself
def test_a_compiled_model_learns_and_its_checkpoint_fits_the_model(tmp_path: Path) -> None:
    model = linear_model()
    config = replace(CONFIG, steps=400, learning_rate=0.1, compile=True)
    train(model, squared_error, linear_batch, config, folder=tmp_path)
    assert torch.allclose(model.bias, torch.tensor([3.0]), atol=1e-2)
    again = linear_model()
    train(again, squared_error, linear_batch, replace(config, compile=False), folder=tmp_path)
    assert torch.equal(again.weight, model.weight)


# --- the config ---


@pytest.mark.parametrize(
    "field, value, allowed",
    [
        ("steps", 0, "at least 1"),
        ("batch_size", -1, "at least 1"),
        ("evaluate_every", 0, "at least 1"),
        ("checkpoint_every", 0, "at least 1"),
        ("learning_rate", 0.0, "above 0"),
        ("learning_rate", float("nan"), "above 0"),
        ("weight_decay", -0.1, "0 or more"),
        ("warmup", 1.0, "0 to below 1"),
        ("final_fraction", 1.5, "0 to 1"),
        ("betas", (0.9, 1.0), "two numbers"),
        ("clip_norm", 0.0, "above 0"),
        ("seed", -1, "0 to"),
        ("patience", 0, "at least 1"),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_range(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is .*; it must be {allowed}"):
        TrainingConfig(**{field: value})


def test_an_unknown_choice_is_refused_with_the_choices_where_types_are_not_checked() -> None:
    """Under pytest beartype is faster; a user has no beartype."""
    code = "from weightspace.train.config import TrainingConfig as C; C(schedule='step')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ValueError: schedule is 'step'; it must be one of cosine, linear, constant" in run.stderr


def test_the_config_needs_no_torch() -> None:
    code = "import sys, weightspace.train.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no CUDA device"):
        train(linear_model(), squared_error, linear_batch, replace(CONFIG, device="cuda"))


# --- the progress line ---


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the progress line reads, in its one element."""
    now = [100.0]
    monkeypatch.setattr(progress_module, "monotonic", lambda: now[0])
    return now


def test_nothing_is_shown_of_what_takes_under_two_seconds(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("training networks", 20, "networks") as advance:
        for _ in range(20):
            clock[0] += 0.09
            advance()
    assert capsys.readouterr() == ("", "")


def test_a_plain_line_appears_at_most_every_ten_seconds_and_at_the_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("training networks", 2400, "networks", done=400) as advance:
        for _ in range(100):
            clock[0] += 0.25
            advance(20, note="loss 0.5")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "training networks: 1,200/2,400 networks, 80 networks/s, loss 0.5, 15 s left",
        "training networks: 2,000/2,400 networks, 80 networks/s, loss 0.5, 5 s left",
        "training networks: 2,400/2,400 networks, 80 networks/s, loss 0.5, in 25 s",
    ]


def test_a_terminal_gets_a_bar_and_no_thread(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    import threading
    from io import StringIO

    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    threads = threading.active_count()
    with progress("[odd] name", 40, enabled=True) as advance:
        for _ in range(40):
            clock[0] += 0.1
            advance(note="loss [bold]")
        assert threading.active_count() == threads
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "[odd] name" in shown and "40/40 steps, 10 steps/s, loss [bold], in 4 s" in shown


def test_a_disabled_line_shows_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress("training", 2, enabled=False) as advance:
        clock[0] += 60
        advance()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("broken", ["none", "closed", "full"])
def test_a_broken_stderr_stops_nothing(
    broken: str, clock: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stream = (tmp_path / "stderr").open("w")
    if broken == "closed":
        stream.close()
    if broken == "full":
        monkeypatch.setattr(progress_module, "print", _no_space, raising=False)
    monkeypatch.setattr(sys, "stderr", None if broken == "none" else stream)
    counted = 0
    with progress("training", 3) as advance:
        for _ in range(3):
            clock[0] += 20
            advance()
            counted += 1
    assert counted == 3
    stream.close()


def _no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_the_loop_shows_its_line_only_when_asked(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    def slow(step: int) -> tuple[Tensor, Tensor]:
        clock[0] += 1.0
        return linear_batch(step)

    config = replace(CONFIG, steps=12)
    train(linear_model(), squared_error, slow, config)
    assert capsys.readouterr().err == ""
    train(linear_model(), squared_error, slow, config, description="reading", progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("reading: 10/12 steps, 1 steps/s, loss ")
    assert lines[0].endswith(", 2 s left") and lines[1].endswith(", in 12 s")


def test_durations_are_written_for_people() -> None:
    assert [duration(s) for s in (0.4, 59.4, 59.6, 185.0, 7500.0)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "3 min 05 s",
        "2 h 05 min",
    ]
