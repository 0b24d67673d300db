"""The training loop: update, evaluate, save; a kill at any moment and a second call leave what comes out unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from math import inf, isfinite
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import deterministic

from weightspace.errors import WeightspaceError
from weightspace.files.lock import writing
from weightspace.files.progress import progress as progress_line
from weightspace.train.checkpoint import (
    CHECKPOINT,
    FITTED_ON,
    CheckpointError,
    Progress,
    load_checkpoint,
    save_checkpoint,
    snapshot,
)
from weightspace.train.config import Device, TrainingConfig
from weightspace.train.log import History, Log
from weightspace.train.optimiser import adamw, learning_rate
from weightspace.train.ranks import Part, Ranks, RanksError
from weightspace.train.trackers import open_trackers

__all__ = [
    "train",
    "History",
    "TrainingConfig",
    "TrainingDiverged",
    "CheckpointError",
    "to_device",
    "choose_device",
]

READ_EVERY = {"cpu": 1, "cuda": 10}
"""Steps between readings of the loss: a reading makes the CPU wait for the GPU, so there it is done rarely."""


class TrainingDiverged(WeightspaceError):
    """A loss or gradient that is NaN or infinite."""


def train(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    batch: Callable[..., Any],
    config: TrainingConfig,
    *,
    divisible: bool = False,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    folder: Path | None = None,
    description: str = "training",
    progress: bool = False,
) -> History:
    """Train `model` in place and leave the best one in it, on the device it was trained on.

    Where `folder` holds a checkpoint of this config, the run goes on from there, and a finished one returns at once.
    On a CPU with as many threads, a run killed at any moment and resumed gives every bit of the run that was not.
    The global random generators of torch are seeded anew at each step and given back as they were.

    Within `ranks.joined` several processes train one model: each takes its parts of every batch, gradients and losses
    are summed, the first alone writes, and all return the same. What comes out is a function of the config and of the
    number of parts, whatever the number of processes, up to the rounding of sums; so a run may be resumed with another.

    Args:
        model: the module to train; called through `loss`, in training mode.
        loss: of (model, batch on the device), a scalar to minimise.
        batch: of step 0 to `config.steps - 1`, what to train on: tensors in tuples, lists, dicts or objects with
            `.to(device)`. It must be a pure function of the step: that is why nothing of it is ever saved. torch's
            global generator, seeded with the step, may be used in it.
        config: how to train.
        divisible: whether `batch` may also be called with (step, `ranks.Part`), for examples of which the losses of all
            parts add up to the loss of the batch. Otherwise only one process trains, and on whole batches.
        evaluate: of the model in evaluation mode without gradients, on its device and in `config.precision`; gives
            validation metrics of which `loss` chooses the best model. None: the last model is the best. Every process
            calls it, and the first one's metrics count.
        folder: where checkpoint.safetensors and losses.csv go, the same for all processes; None keeps nothing on disk.
        description: what the progress line says is going on.
        progress: whether to show a progress line on stderr if it takes longer than two seconds.
    Raises:
        TrainingDiverged: at a loss, gradient or validation loss that is NaN or infinite, at most 10 steps later.
        CheckpointError: if `folder` holds a torn checkpoint or one of another config or model.
        ZooError: if another run trains in `folder`, or it cannot be written to.
        RanksError: if another process is lost or sees another folder, or a batch cannot be cut into the parts.
        ValueError: if nothing is trainable, CUDA is asked for and missing, or `loss` or `evaluate` give no loss.
        ImportError: if a tracker is asked for and missing.
    """
    was_training = model.training
    maker = _UpdateMaker(model, loss, batch, config, divisible)
    path = folder / CHECKPOINT if folder is not None else None
    state = Progress(History(), None, finished=False)
    if path is not None and path.exists():
        state = load_checkpoint(path, model, maker.optimiser, config)
    maker.ranks.check_same(state.history.steps, f"checkpoint in {folder}")

    if not state.finished:
        with _opened(maker, folder, state.history.steps, description, progress) as (log, advance):
            state = _run(maker, state, evaluate, log, path, advance)
    if state.best is not None:
        model.load_state_dict(state.best)
    model.train(was_training)
    return state.history


def _run(
    maker: _UpdateMaker,
    state: Progress,
    evaluate: Callable[[nn.Module], dict[str, float]] | None,
    log: Log,
    path: Path | None,
    advance: Callable[..., None],
) -> Progress:
    """Go on from a state to the end: update, and whenever it is time read the losses, evaluate, log and save."""
    config = maker.config
    course = _Course(state)
    unread: list[_Update] = []
    maker.model.train()
    for step in range(state.history.steps, config.steps):
        unread.append(maker.make(step))
        done = step + 1
        last, saving = done == config.steps, done % config.checkpoint_every == 0
        evaluating = evaluate is not None and (last or done % config.evaluate_every == 0)
        if not (last or evaluating or saving or len(unread) >= READ_EVERY[maker.device.type]):
            continue

        rows = course.read(unread)
        unread.clear()
        if evaluate is not None and evaluating:
            metrics = maker.metrics(evaluate, done)
            rows[-1] |= {f"validation_{name}": x for name, x in metrics.items()}
            course.judge(metrics, done, maker.model)
        log.write(rows)
        state = course.progress(done, finished=last or (evaluating and course.stale(config.patience)))
        if path is not None and maker.ranks.first and (state.finished or saving):
            log.sync()
            save_checkpoint(path, maker.model, maker.optimiser, config, state)
        advance(len(rows), note=f"loss {course.losses[-1]:.4g}")
        if state.finished:
            break
    return state


class _Update(NamedTuple):
    """One update that was made, its numbers still where they were computed.

    Attributes:
        done: updates made, this one included.
        loss: of the whole batch before it, ().
        norm: of the gradient before it was clipped, ().
        rate: the learning rate.
    """

    done: int
    loss: Tensor
    norm: Tensor
    rate: float


class _UpdateMaker:
    """A model with all that it takes to make an update of it, and to see how good it is."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module, Any], Tensor],
        batch: Callable[..., Any],
        config: TrainingConfig,
        divisible: bool,
    ) -> None:
        self.model, self.loss, self.batch, self.config, self.divisible = model, loss, batch, config, divisible
        self.device = choose_device(config.device)
        model.to(self.device)
        self.optimiser = adamw(model, config)
        self.parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.network: nn.Module = torch.compile(model) if config.compile else model  # type: ignore[assignment]
        self.ranks = Ranks.here()
        self.parts = self.ranks.parts(config.micro_batches)
        _check_divisible(divisible, self.parts[0].of)

    def make(self, step: int) -> _Update:
        """Update the model once, on the batch of `step`."""
        rate = learning_rate(step, self.config)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        total = torch.zeros((), device=self.device)  # the loss, over all parts of the batch
        for part in self.parts:
            total = total + self._add_gradients(step, part)
        total = self.ranks.sum_gradients(self.parameters, total)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm or inf)  # ()
        self.optimiser.step()
        self.optimiser.zero_grad()
        return _Update(step + 1, total, norm, rate)

    def _add_gradients(self, step: int, part: Part) -> Tensor:
        """Add the gradients of one part of a batch to those that are there, and give its loss."""
        _seed(self.device, self.config.seed, step, *part.key)
        with self._precision():
            examples = self.batch(step, part) if self.divisible else self.batch(step)
            value = self.loss(self.network, to_device(examples, self.device))  # ()
        if value.ndim:
            raise ValueError(f"loss gave a tensor of shape {tuple(value.shape)}: take its mean")
        value.backward()
        return value.detach()

    def metrics(self, evaluate: Callable[[nn.Module], dict[str, float]], done: int) -> dict[str, float]:
        """What `evaluate` says of the model after `done` updates, the same in every process."""
        self.ranks.align(self.model)
        self.model.eval()
        with torch.no_grad(), self._precision():
            metrics = self.ranks.agree({name: float(x) for name, x in evaluate(self.network).items()})
        self.model.train()
        _check_validation(metrics, done)
        return metrics

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")


class _Course:
    """What has come of a run so far: its losses, its evaluations, and the best model among them."""

    def __init__(self, state: Progress) -> None:
        """Go on from a state, which is left as it is."""
        history = state.history
        self.losses, self.evaluations = list(history.training_loss), list(history.evaluations)
        self.best, self.best_step = state.best, history.best_step
        self.started = monotonic() - history.seconds

    def read(self, updates: Sequence[_Update]) -> list[dict[str, Any]]:
        """Rows of the log, one for each update, which a GPU has to be waited for."""
        return [_row(update, self.losses, monotonic() - self.started) for update in updates]

    def judge(self, metrics: dict[str, float], done: int, model: nn.Module) -> None:
        """Keep an evaluation after `done` updates, and the model, if it is the best so far."""
        lowest = min((e["loss"] for e in self.evaluations), default=inf)
        self.evaluations.append({**metrics, "step": done})
        if metrics["loss"] < lowest:
            self.best, self.best_step = snapshot(model), done

    def stale(self, patience: int | None) -> bool:
        """Whether so many evaluations have come and gone since the best one."""
        since = sum(e["step"] > (self.best_step or 0) for e in self.evaluations)
        return patience is not None and since >= patience

    def progress(self, done: int, *, finished: bool) -> Progress:
        """How far the run is after `done` updates."""
        seconds = monotonic() - self.started
        return Progress(History(done, self.losses, self.evaluations, self.best_step, seconds), self.best, finished)


@contextmanager
def _opened(
    maker: _UpdateMaker, folder: Path | None, done: int, description: str, show: bool
) -> Iterator[tuple[Log, Callable[..., None]]]:
    """All that a run holds while it goes on after `done` updates: its folder, the generators, the log and a line."""
    ranks, config = maker.ranks, maker.config
    ranks.align(maker.model)
    own = folder if ranks.first else None
    with (
        writing(own) if own is not None else nullcontext(),  # before the log, which cuts its files
        _untied_unless_kept(own),
        _reproducible(maker.device),
        Log(own, done, open_trackers(own, done, config) if ranks.first else ()) as log,
        progress_line(description, config.steps, "steps", show and ranks.first, done=done) as advance,
    ):
        yield log, advance


@contextmanager
def _untied_unless_kept(folder: Path | None) -> Iterator[None]:
    """Let a folder go, see `checkpoint.bind`, if a run ends in an error before there is anything to go on from."""
    try:
        yield
    except BaseException:
        if folder is not None and not (folder / CHECKPOINT).exists():
            (folder / FITTED_ON).unlink(missing_ok=True)
        raise


def choose_device(device: Device) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` means here.

    Raises:
        ValueError: if `cuda` is asked for and torch sees none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch sees no CUDA device: use 'auto' or 'cpu'")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def to_device(batch: Any, device: torch.device) -> Any:
    """`batch` with its tensors on `device`: inside tuples, lists and dicts, and whatever has a `.to(device)`."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(item, device) for key, item in batch.items()}
    if isinstance(batch, list | tuple):
        items = [to_device(item, device) for item in batch]
        return type(batch)(*items) if hasattr(batch, "_fields") else type(batch)(items)
    return batch.to(device) if hasattr(batch, "to") else batch


def _row(update: _Update, losses: list[float], seconds: float) -> dict[str, Any]:
    """A row of the log, its loss appended to `losses`; a TrainingDiverged if it or the gradient is not finite."""
    number, length = float(update.loss), float(update.norm)
    if not (isfinite(number) and isfinite(length)):
        what = f"gradient's norm is {length}" if isfinite(number) else f"training loss is {number}"
        last = f"the last finite loss was {losses[-1]:.6g}" if losses else "it never was finite"
        raise TrainingDiverged(
            f"the {what} at step {update.done}, {last}: lower the learning rate (now {update.rate:.3g}), "
            "warm up longer, or look for NaN in the data; the last checkpoint, if any, is kept"
        )
    losses.append(number)
    return {
        "step": update.done,
        "training_loss": number,
        "learning_rate": update.rate,
        "gradient_norm": length,
        "seconds": round(seconds, 3),
    }


def _check_validation(metrics: dict[str, float], done: int) -> None:
    if "loss" not in metrics:
        raise ValueError(f"evaluate gave {sorted(metrics)} without 'loss', which chooses the best model")
    if not isfinite(metrics["loss"]):
        raise TrainingDiverged(
            f"the validation loss is {metrics['loss']} at step {done}, while the training loss is finite: look for "
            "NaN in the validation data; the last checkpoint, if any, is kept"
        )


def _check_divisible(divisible: bool, parts: int) -> None:
    if parts > 1 and not divisible:
        raise RanksError(
            f"this training takes its batches whole, and here each is cut into {parts} parts: use one process and "
            "micro_batches of 1"
        )


def _seed(device: torch.device, *numbers: int) -> None:
    """Seed the generators of the CPU and of `device` with seed, step and what else the numbers say."""
    mixed = mix(*numbers)
    torch.default_generator.manual_seed(mixed)  # torch.manual_seed would reach every GPU's too
    if device.type == "cuda":
        torch.cuda.manual_seed(mixed)


def mix(*numbers: int) -> int:
    """A 64-bit number from several, such that neighbours have nothing in common (SplitMix64, Steele et al., 2014).

    The CPU generator of torch uses the low 32 bits of a seed alone, so they must depend on all of every number.
    """
    state = 0
    for number in numbers:
        state = ((state ^ number) + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state


@contextmanager
def _reproducible(device: torch.device) -> Iterator[None]:
    """Give the global generators back as they were, and on a CPU add gradients in a fixed order.

    Without that, the gradient of indexing (`table[index]`) is summed by several threads at once and its last bits
    differ from run to run. On a GPU it would forbid fast kernels, and the caller's setting stands.
    """
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = deterministic  # a module whose property type checkers do not see
    fill = memory.fill_uninitialized_memory
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            if device.type == "cpu":
                torch.use_deterministic_algorithms(True, warn_only=True)
                memory.fill_uninitialized_memory = False  # costs time, and changes no result
            yield
        finally:
            torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
            memory.fill_uninitialized_memory = fill
