"""Where the rows of a run may go besides losses.csv: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from weightspace.errors import PlaceError
from weightspace.files.atomic import write_atomically
from weightspace.files.extras import install_command
from weightspace.train.config import TrainingConfig

PROJECT = "weightspace"
"""What runs are filed under: the project of W&B, the experiment of MLflow, unless their own variables say another."""
NOT_SHOWN = ("step", "seconds")
"""Entries of a row that are no curve."""


class Tracker(ABC):
    """Something that shows a run while it goes on."""

    @abstractmethod
    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows, each with the keys of `log.COLUMNS` and possibly `validation_...`."""

    @abstractmethod
    def close(self, failed: bool) -> None:
        """End the run; `failed` where an error ends it."""

    def flush(self) -> None:  # noqa: B027 (most have nothing to do)
        """Called with every checkpoint."""


def open_trackers(folder: Path | None, done: int, config: TrainingConfig) -> list[Tracker]:
    """The trackers that a config asks for.

    Args:
        folder: of the run; a tracker keeps there what it needs to go on with the same run after a kill.
        done: steps that were made before.
    Raises:
        ValueError: if one is wanted without a folder.
        ImportError: if its library is not installed; the message says how to install it.
        PlaceError: if it cannot begin, for want of a login for instance.
    """
    known = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}
    wanted = [name for name in known if getattr(config, name)]
    if wanted and folder is None:
        raise ValueError(f"{wanted[0]}=True needs a folder to keep the run in: give one")
    return [known[name](folder, done, config) for name in wanted]


class TensorBoard(Tracker):
    """Events in `folder`/tensorboard; what a killed run wrote after step `done` is hidden."""

    def __init__(self, folder: Path, done: int, config: TrainingConfig) -> None:  # noqa: ARG002 (one call for all)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("tensorboard", "TensorBoard") from error
        self._writer = SummaryWriter(folder / "tensorboard", purge_step=done + 1)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            for name, value in _curves(row).items():
                self._writer.add_scalar(name, value, row["step"])

    def flush(self) -> None:
        self._writer.flush()

    def close(self, failed: bool) -> None:  # noqa: ARG002 (one call for all)
        self._writer.close()


class WeightsAndBiases(Tracker):
    """One run of Weights & Biases for a folder, however often it is resumed.

    The library's own variables decide where it goes: WANDB_MODE=offline keeps it in `folder`/wandb, WANDB_PROJECT and
    WANDB_ENTITY name another place. No source text and no output of the terminal is sent. Steps are a metric of their
    own, since a resumed run writes some of them a second time, with the same values.
    """

    def __init__(self, folder: Path, done: int, config: TrainingConfig) -> None:  # noqa: ARG002 (one call for all)
        try:
            import wandb  # type: ignore[import-not-found]
        except ImportError as error:
            raise _missing("wandb", "Weights & Biases") from error
        settings = wandb.Settings(console="off", disable_git=True, disable_code=True, quiet=True)
        try:
            self._run: Any = wandb.init(
                project=_unless_said("WANDB_PROJECT", PROJECT),
                dir=folder,
                id=_identifier(folder / "wandb-run"),
                name=folder.resolve().name,
                config=asdict(config),
                resume="allow",
                settings=settings,
            )
        except wandb.errors.Error as error:
            why = " ".join(str(error).split())
            raise PlaceError(
                f"W&B cannot begin ({why}): log in with `wandb login`, or set WANDB_MODE=offline"
            ) from None
        self._run.define_metric("*", step_metric="step")

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self._run.log({**_curves(row), "step": row["step"]})

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class MLflow(Tracker):
    """One run of MLflow for a folder, however often it is resumed.

    The library's own variables decide where it goes: MLFLOW_TRACKING_URI, and MLFLOW_EXPERIMENT_NAME.
    """

    def __init__(self, folder: Path, done: int, config: TrainingConfig) -> None:  # noqa: ARG002 (one call for all)
        try:
            import mlflow  # type: ignore[import-not-found]
        except ImportError as error:
            raise _missing("mlflow", "MLflow") from error
        self._entities = mlflow.entities
        self._client: Any = mlflow.MlflowClient()
        kept = folder / "mlflow-run"
        try:
            self._run = self._known(kept) or self._begun(kept, folder.resolve().name, config)
        except mlflow.exceptions.MlflowException as error:
            raise PlaceError(f"MLflow cannot begin ({' '.join(str(error).split())}): see MLFLOW_TRACKING_URI") from None

    def _known(self, kept: Path) -> str | None:
        """The run of an earlier call, if the server still has it."""
        if not kept.is_file():
            return None
        import mlflow  # type: ignore[import-not-found]

        run = kept.read_text().strip()
        with suppress(mlflow.exceptions.MlflowException):
            self._client.update_run(run, status="RUNNING")
            return run
        return None

    def _begun(self, kept: Path, name: str, config: TrainingConfig) -> str:
        """A new run, its settings with it."""
        wanted = _unless_said("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(wanted)
        experiment = found.experiment_id if found else self._client.create_experiment(wanted)
        run = self._client.create_run(experiment, run_name=name).info.run_id
        for setting, value in asdict(config).items():
            self._client.log_param(run, setting, value)
        write_atomically(kept, run.encode())
        return run

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        now = int(time.time() * 1000)
        metrics = [
            self._entities.Metric(name, float(value), now, row["step"])
            for row in rows
            for name, value in _curves(row).items()
        ]
        for start in range(0, len(metrics), 1_000):  # as many as one call may have
            self._client.log_batch(self._run, metrics=metrics[start : start + 1_000])

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")


def _curves(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in NOT_SHOWN}


def _missing(extra: str, library: str) -> ImportError:
    return ImportError(
        f"{extra}=True needs {library}: {install_command(extra)}, or leave it off; losses.csv is written either way"
    )


def _unless_said(variable: str, otherwise: str) -> str:
    return os.environ.get(variable) or otherwise


def _identifier(kept: Path) -> str:
    """The run's name for W&B: made once for a folder."""
    if not kept.is_file():
        write_atomically(kept, uuid4().hex[:16].encode())
    return kept.read_text().strip()
