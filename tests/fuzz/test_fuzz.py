"""The fuzz harness: nothing is found in the reader, and everything in readers that are broken on purpose."""

import json
import multiprocessing
import os
import pickle
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fuzz import scanning, trial
from fuzz.campaign import run, table
from fuzz.canary import Canary
from fuzz.case import FORMATS, Case, Odd, make_case, write_case
from fuzz.findings import keep, kept, replay, smaller
from fuzz.formats.safetensors import packed
from fuzz.loaders import readings
from fuzz.trial import attempt
from fuzz.worker import Batch, try_batch, warm
from weightspace.files import checkpoints

REGRESSIONS = Path(__file__).parents[2] / "fuzz" / "regressions"
FEW = 30
"""Cases of each format in the default suite."""


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    """In a cage of its own; Python's audit hooks stay, so it is made once."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("cage"))
    made = Canary()
    warm(FORMATS, Path("files"), made)
    yield made
    os.chdir(before)


def faults_of(canary: Canary, name: str, count: int, out: Path | None = None) -> dict[str, int]:
    return try_batch(Batch(name, 7, 0, count), Path("files"), canary, out).faults


@pytest.mark.parametrize("name", FORMATS)
def test_the_reader_has_no_finding_in_a_few_files_of_every_format(name: str, canary: Canary) -> None:
    tally = try_batch(Batch(name, 0, 0, FEW), Path("files"), canary, None)
    assert tally.files == FEW == tally.accepted + tally.refused
    assert tally.faults == {}


def test_what_was_found_once_is_not_found_again(canary: Canary) -> None:
    assert len(list(REGRESSIONS.rglob("finding.json"))) >= 5
    assert replay(REGRESSIONS, Path("files"), canary) == {}


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_seed_and_number_make_the_same_files(name: str) -> None:
    made = [make_case(name, 0, number) for number in range(15)]
    assert made == [make_case(name, 0, number) for number in reversed(range(15))][::-1]
    assert len({(tuple(case.files.values()), tuple(case.odds.items())) for case in made}) > 3


@pytest.mark.parametrize("name", ["safetensors", "zip", "pickle", "pytorch"])
def test_some_files_of_every_format_are_sound_and_some_are_not(name: str, canary: Canary) -> None:
    """A harness whose files are all refused at once would test nothing behind the first check."""
    tally = try_batch(Batch(name, 3, 0, FEW), Path("files"), canary, None)
    assert tally.accepted > 0 and tally.refused > 0


# -- negative controls: readers that are broken on purpose -----------------------------------------------------------


def broken(monkeypatch: pytest.MonkeyPatch, outlines: Callable[[Path], Any]) -> None:
    """Put another reader in the place of ours, for the harness."""

    def given(path: str | Path) -> Any:
        return outlines(Path(path))

    monkeypatch.setattr(trial.checkpoints, "outlines", given)


def kinds(faults: dict[str, int]) -> set[str]:
    return {what.split(": ")[1] for what in faults}


def test_a_reader_that_unpickles_is_caught(monkeypatch: pytest.MonkeyPatch, canary: Canary) -> None:
    real = checkpoints.outlines

    def unpickles(path: Path) -> Any:
        try:
            with zipfile.ZipFile(path) as content:
                pickle.loads(content.read("archive/data.pkl"))
        except Exception:  # it hides what it did
            pass
        return real(path)

    broken(monkeypatch, unpickles)
    found = faults_of(canary, "pickle", 60)
    assert any("ran" in what for what in found) and any("the canary was" in what for what in found), found


def test_a_reader_that_gives_other_numbers_is_caught(monkeypatch: pytest.MonkeyPatch, canary: Canary) -> None:
    real = checkpoints.read
    monkeypatch.setattr(
        trial.checkpoints, "read", lambda found, names: {name: one + 1 for name, one in real(found, names).items()}
    )
    for name in ("safetensors", "zip"):
        assert "other weights" in kinds(faults_of(canary, name, FEW))


def test_a_reader_that_trusts_one_of_two_readings_is_caught(monkeypatch: pytest.MonkeyPatch, canary: Canary) -> None:
    """`torch.load(mmap=True)` as it is: a part whose attributes say folder is read, and `torch.load` gives noise."""
    arrays: dict[str, torch.Tensor] = {}

    def mapped(path: Path) -> Any:
        try:
            loaded = torch.load(path, weights_only=True, mmap=True)
            arrays.clear()
            arrays.update({name: one.float() for name, one in loaded.items()})
        except Exception as error:
            raise checkpoints.UnreadableError("it is not taken") from error
        shapes = {name: tuple(one.shape) for name, one in arrays.items()}
        return [checkpoints.Outline(path, "pytorch", shapes, dict.fromkeys(shapes, "F32"))]

    broken(monkeypatch, mapped)
    monkeypatch.setattr(trial.checkpoints, "read", lambda _, names: {name: arrays[name].numpy() for name in names})
    monkeypatch.setattr(trial.checkpoints, "pieces", lambda _, name, __: [arrays[name].numpy().reshape(-1)])
    assert "ambiguous" in kinds(faults_of(canary, "zip", 150))


@pytest.mark.parametrize(
    ("kind", "does"),
    [
        ("raised", lambda _: {}["no such name"]),
        ("ran", lambda _: Path("touched").write_text("")),
        ("ran", lambda _: Path("secret").read_bytes()),
        ("ran", lambda _: os.system("true")),
        ("memory", lambda _: len(bytearray(os.urandom(1)) * (330 * 2**20))),
        ("stuck", lambda _: time.sleep(60)),
        ("slow", lambda _: sum(range(10**6))),
    ],
)
def test_what_a_reader_may_not_do_is_caught(
    kind: str, does: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch, canary: Canary
) -> None:
    def outlines(path: Path) -> Any:
        does(path)
        return []

    monkeypatch.setattr(trial, "SECONDS", 0.001 if kind == "slow" else 5.0)
    monkeypatch.setattr(trial, "STUCK", 0.3 if kind == "stuck" else 30.0)
    broken(monkeypatch, outlines)
    tried = attempt(Case("safetensors", "m.safetensors", {"m.safetensors": b"x" * 9}, number=1), Path("files"), canary)
    assert {fault.kind for fault in tried.faults} == {kind}


def test_a_scan_that_calls_the_wrong_example_clean_is_caught(monkeypatch: pytest.MonkeyPatch, canary: Canary) -> None:
    from fuzz.formats.verdict import example

    case = Case("verdict", "m.safetensors", {"m.safetensors": packed(example("backdoored"))})
    assert attempt(case, Path("files"), canary).faults == []

    class Clean:
        findings = (type("Finding", (), {"verdict": "clean", "reason": "About 50%."})(),)

    monkeypatch.setattr(scanning, "scan", lambda *_, **__: Clean)
    assert [fault.kind for fault in attempt(case, Path("files"), canary).faults] == ["scan"]


# -- loaders, findings, campaigns ------------------------------------------------------------------------------------


def test_the_plain_unpickler_runs_nothing_and_says_what_it_would_have_called(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(b"\x80\x02cos\nsystem\n(X\x0c\0\0\0touch canaryt\x81.")
    found, calls = readings(path, path.read_bytes())
    assert found == [] and calls == ["os.system"]
    assert not Path("canary").exists()


def test_the_usual_loaders_read_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save({"model": {"w": torch.arange(4.0)}}, path)
    found, _ = readings(path, path.read_bytes())
    assert {one.loader for one in found} == {"torch.load", "torch.load(mmap=True)", "torch.load(weights_only=False)"}
    for one in found:
        (array,) = one.arrays["model", "w"]
        assert array is not None and np.array_equal(array, [0, 1, 2, 3])


def test_a_finding_is_kept_and_read_back(tmp_path: Path, canary: Canary) -> None:
    odds = {"pipe": Odd("fifo"), "big": Odd("sparse", 2**33, b"PK")}
    case = Case("odd", "pipe", {"a/b": b"\0\1"}, odds, ("one", "two"), 3, 9)
    place = keep(case, [trial.Fault("raised", "KeyError: 'a'")], tmp_path)
    assert kept(place) == case
    assert json.loads((place / "finding.json").read_text())["faults"] == [["raised", "KeyError: 'a'"]]
    path = write_case(case, tmp_path / "again")
    assert path.is_fifo() and (tmp_path / "again" / "big").stat().st_size == 2**33
    assert canary.sang() == []


def test_a_finding_is_made_smaller(monkeypatch: pytest.MonkeyPatch, canary: Canary) -> None:
    def fails_on_an_x(path: Path) -> Any:
        if b"x" in path.read_bytes():
            raise KeyError("x")
        return []

    broken(monkeypatch, fails_on_an_x)
    case = Case("safetensors", "m", {"m": bytes(300) + b"x" + bytes(300)}, number=1)
    tried = attempt(case, Path("files"), canary)
    assert smaller(case, tried, Path("files"), canary).files == {"m": b"x"}


@pytest.mark.slow
def test_a_campaign_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    first = run(tmp_path, seconds=60, seed=1, workers=1, formats=("safetensors", "odd"), count=30)
    assert {name: tally.files for name, tally in first.tallies.items()} == {"safetensors": 30, "odd": 30}
    more = run(tmp_path, seconds=60, seed=1, workers=1, formats=("safetensors",), count=50)
    assert more.tallies["safetensors"].files == 50 and more.tallies["odd"].files == 30
    assert "safetensors" in table(more)
    with pytest.raises(ValueError, match="seed 1"):
        run(tmp_path, seconds=1, seed=2, workers=1, formats=("odd",))


@pytest.mark.slow
def test_a_process_that_dies_is_a_finding_and_the_rest_is_tried(tmp_path: Path) -> None:
    def tell(line: str) -> None:
        if not line.startswith("0 files") and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)

    state = run(tmp_path / "out", seconds=300, seed=1, workers=1, formats=("safetensors",), count=4000, tell=tell)
    tally = state.tallies["safetensors"]
    assert (tmp_path / "killed").exists() and tally.files == 4000
    assert tally.theirs + sum(count for what, count in tally.faults.items() if "crash" in what) == 1


@pytest.mark.slow
def test_a_minute_of_fuzzing_finds_nothing(tmp_path: Path) -> None:
    state = run(tmp_path, seconds=60, seed=0, workers=2, formats=FORMATS)
    assert all(tally.faults == {} for tally in state.tallies.values()), table(state)
    assert sum(tally.files for tally in state.tallies.values()) > 1000
