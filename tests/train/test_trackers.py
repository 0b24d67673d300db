"""Trackers: every step arrives once a curve, a resumed run goes on as the same one, and what is missing is named."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.train.test_train import CONFIG, Interrupted, train_reader
from weightspace.errors import PlaceError
from weightspace.train.config import TrainingConfig

SHORT = replace(CONFIG, steps=12, evaluate_every=6, checkpoint_every=4)


class Service:
    """What stands for W&B and for MLflow here: it keeps what it is sent, by the identifier of the run."""

    def __init__(self) -> None:
        self.points: dict[str, list[dict[str, Any]]] = {}
        self.ended: list[tuple[str, object]] = []
        self.settings: dict[str, object] = {}
        self.refuses = False

    # -- as the module wandb ------------------------------------------------------------------------------------------

    class Refused(Exception):
        pass

    def init(self, *, id: str, config: dict[str, object], **options: object) -> Any:  # noqa: A002 (theirs)
        if self.refuses:
            raise self.Refused("no API key\nconfigured")
        self.settings = {**config, **options}
        points = self.points.setdefault(id, [])
        return SimpleNamespace(
            define_metric=lambda *_, **__: None,
            log=lambda row: points.append(dict(row)),
            finish=lambda exit_code: self.ended.append((id, exit_code)),
        )

    def as_wandb(self) -> Any:
        return SimpleNamespace(init=self.init, Settings=dict, errors=SimpleNamespace(Error=self.Refused))

    # -- as the module mlflow -----------------------------------------------------------------------------------------

    def as_mlflow(self) -> Any:
        def metric(name: str, value: float, time: int, step: int) -> dict[str, Any]:
            assert time > 1_600_000_000_000
            return {name: value, "step": step}

        return SimpleNamespace(
            MlflowClient=lambda: self,
            entities=SimpleNamespace(Metric=metric),
            exceptions=SimpleNamespace(MlflowException=self.Refused),
        )

    def get_experiment_by_name(self, name: str) -> Any:
        if self.refuses:
            raise self.Refused("no server\nthere")
        return SimpleNamespace(experiment_id=name)

    def create_run(self, experiment: str, run_name: str) -> Any:
        self.settings["experiment"], self.settings["name"] = experiment, run_name
        run = f"run {len(self.points)}"
        self.points[run] = []
        return SimpleNamespace(info=SimpleNamespace(run_id=run))

    def update_run(self, run: str, status: str) -> None:
        assert status == "RUNNING"
        if run not in self.points:
            raise self.Refused("it was deleted")

    def log_param(self, run: str, name: str, value: object) -> None:
        assert run in self.points
        self.settings[name] = value

    def log_batch(self, run: str, metrics: list[dict[str, Any]]) -> None:
        assert 0 < len(metrics) <= 1_000
        self.points[run] += metrics

    def set_terminated(self, run: str, status: str) -> None:
        self.ended.append((run, status))


@pytest.fixture(params=["wandb", "mlflow"])
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Service, TrainingConfig]:
    found = Service()
    monkeypatch.setitem(sys.modules, request.param, getattr(found, f"as_{request.param}")())
    return found, replace(SHORT, **{request.param: True})


def curve(points: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(point["step"], point[name]) for point in points if name in point]


def test_every_step_and_every_evaluation_arrives(service: tuple[Service, TrainingConfig], tmp_path: Path) -> None:
    given, config = service
    _, history = train_reader(tmp_path / "mine", config)
    ((_, points),) = given.points.items()
    assert curve(points, "training_loss") == [(step + 1, loss) for step, loss in enumerate(history.training_loss)]
    assert curve(points, "validation_loss") == [(entry["step"], entry["loss"]) for entry in history.evaluations]
    assert given.settings["name"] == "mine" and given.settings["learning_rate"] == config.learning_rate
    assert [end for _, end in given.ended] in ([0], ["FINISHED"])


def test_a_resumed_run_goes_on_as_the_same_one(service: tuple[Service, TrainingConfig], tmp_path: Path) -> None:
    given, config = service
    with pytest.raises(Interrupted):
        train_reader(tmp_path, config, stop_at=9)
    train_reader(tmp_path, config)
    ((_, points),) = given.points.items()
    losses = curve(points, "training_loss")
    assert dict(losses).keys() == set(range(1, 13))
    assert len(set(losses)) == 12, "a step that is written twice has the same values"
    assert [end for _, end in given.ended] in ([1, 0], ["FAILED", "FINISHED"])


def test_a_run_that_the_server_has_lost_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Service()
    monkeypatch.setitem(sys.modules, "mlflow", given.as_mlflow())
    (tmp_path / "mlflow-run").write_text("gone")
    train_reader(tmp_path, replace(SHORT, mlflow=True))
    assert list(given.points) == ["run 0"] == [(tmp_path / "mlflow-run").read_text()]


def test_a_service_that_refuses_is_one_sentence(service: tuple[Service, TrainingConfig], tmp_path: Path) -> None:
    given, config = service
    given.refuses = True
    with pytest.raises(PlaceError, match=r"cannot begin \(no (API key configured|server there)\): (log in|see MLFLOW)"):
        train_reader(tmp_path, config)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_library_names_its_installation(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, {"tensorboard": "torch.utils.tensorboard"}.get(name, name), None)
    with pytest.raises(ImportError, match=rf"pip install .*\[{name}\]'"):
        train_reader(tmp_path, replace(SHORT, **{name: True}))
    with pytest.raises(ValueError, match=f"{name}=True needs a folder"):
        train_reader(None, replace(SHORT, **{name: True}))


def test_folders_of_older_versions_keep_their_settings() -> None:
    assert "wandb" not in repr(CONFIG) and "mlflow" not in repr(CONFIG)


# -- the libraries themselves, where they are installed ---------------------------------------------------------------


def test_tensorboard_events_are_written_where_asked(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train_reader(tmp_path, replace(SHORT, tensorboard=True))
    assert list((tmp_path / "tensorboard").glob("events.*"))


@pytest.mark.filterwarnings("ignore")  # theirs
def test_mlflow_itself_keeps_a_resumed_run_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is an extra")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    config = replace(SHORT, mlflow=True)
    with pytest.raises(Interrupted):
        train_reader(tmp_path / "run", config, stop_at=9)
    _, history = train_reader(tmp_path / "run", config)
    run = (tmp_path / "run" / "mlflow-run").read_text()
    kept = mlflow.MlflowClient().get_metric_history(run, "training_loss")
    assert {point.step: point.value for point in kept} == dict(enumerate(history.training_loss, 1))
    assert mlflow.MlflowClient().get_run(run).info.status == "FINISHED"


@pytest.mark.filterwarnings("ignore")  # theirs
def test_wandb_itself_keeps_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="Weights & Biases is an extra")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train_reader(tmp_path / "run", replace(SHORT, wandb=True))
    identifier = (tmp_path / "run" / "wandb-run").read_text()
    (kept,) = (tmp_path / "run" / "wandb").glob(f"offline-run-*-{identifier}")
    assert list(kept.glob("*.wandb"))
