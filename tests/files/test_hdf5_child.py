"""HDF5 that crashes the library that reads it: refused, and nothing else stops."""

import sys
from pathlib import Path

import numpy as np
import pytest

from weightspace.errors import UnreadableError
from weightspace.files import checkpoints, hdf5_child, keras
from weightspace.files.checkpoints import outlines, read

h5py = pytest.importorskip("h5py")
CRASHES = Path(__file__).parent.parent / "data" / "damaged" / "virtual.weights.h5"
"""Out of the fuzzing: a virtual array with some changed bytes. Opening it ends the process with SIGSEGV."""


@pytest.fixture(autouse=True)
def _another_child_for_each_test() -> None:
    if hdf5_child._child is not None:
        hdf5_child._child.end()
        hdf5_child._child = None


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "sound.h5", "w") as file:
        file["dense/kernel"] = np.arange(6, dtype=np.float32).reshape(2, 3)
    return tmp_path / "sound.h5"


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    (found,) = outlines(path)
    return dict(read(found, list(found.floating)))


def test_a_file_on_which_the_library_crashes_is_refused_and_the_next_one_is_read(sound: Path) -> None:
    for _ in range(2):
        with pytest.raises(UnreadableError, match="the HDF5 library crashes on it"):
            outlines(CRASHES)
        assert arrays_of(sound)["dense/kernel"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_an_array_on_which_it_crashes_is_refused_when_it_is_read(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = outlines(sound)
    monkeypatch.setattr(keras, "endures", lambda *asked: asked[-1] is None)
    with pytest.raises(UnreadableError, match="the HDF5 library crashes on it"):
        read(found, ["dense/kernel"])


def test_a_child_that_does_not_answer_is_ended_in_time(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hdf5_child.endures(sound, False)
    monkeypatch.setattr(hdf5_child, "LONGEST", 0.5)
    assert hdf5_child._child is not None
    child = hdf5_child._child.process
    child.send_signal(19)  # SIGSTOP
    assert not hdf5_child.endures(sound, False) and child.returncode == -9
    assert hdf5_child.endures(sound, False)


def test_without_a_child_the_file_is_read_all_the_same(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert list(arrays_of(sound)) == ["dense/kernel"]
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert list(arrays_of(sound)) == ["dense/kernel"]


def test_a_module_in_the_folder_that_is_scanned_is_not_imported(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "numpy", "h5py", "weightspace"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert checkpoints.outlines(sound.name) and not (tmp_path / "ran").exists()
