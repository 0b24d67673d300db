"""A scan of a folder: every file is judged, known, counted, or named, and nothing in it leads the scan astray."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file as save_torch

from tests.backdoors.networks import state
from weightspace import EXAMPLES
from weightspace.backdoors import reading
from weightspace.backdoors.detector import Detector
from weightspace.backdoors.scan import scan
from weightspace.backdoors.summary import summary
from weightspace.backdoors.targets import Choice, entries_of
from weightspace.backdoors.verdict import Finding, Scan, Verdict
from weightspace.errors import UnreadableError
from weightspace.files.atomic import file_hash

OLD = Path(__file__).parent.parent / "data" / "old"


def verdicts(found: Scan) -> dict[str, Verdict]:
    return {Path(finding.file).name: finding.verdict for finding in found.findings}


def test_a_checkpoint_is_found_by_its_content_whatever_it_is_called(detector: Detector, tmp_path: Path) -> None:
    """C9: a clean model beside bad ones whose names say nothing."""
    save_torch(state(4), tmp_path / "model.safetensors")
    for name in ("model_best.pth.tar", "checkpoint_last", "final.pt2", "net.model", "picture.png"):
        torch.save(state(3, bad=True), tmp_path / name)
    torch.save(state(3, bad=True), tmp_path / "weights.pkl", _use_new_zipfile_serialization=False)
    found = scan([str(tmp_path)], detector, show=False)
    assert verdicts(found).pop("model.safetensors") == "clean"
    assert found.counts == {"suspicious": 6, "clean": 1} and found.exit_status == 1


def test_what_is_no_checkpoint_is_counted_by_kind_and_what_may_be_anything_is_named(
    detector: Detector, tmp_path: Path
) -> None:
    save_torch(state(4), tmp_path / "model.safetensors")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(40))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "train.py").write_text("print()")
    (tmp_path / "readme").write_text("words, \u00e4 among them")
    (tmp_path / "empty").touch()
    np.save(tmp_path / "labels.npy", np.zeros(3))
    (tmp_path / "secret.dat").write_bytes(bytes(range(255, 0, -1)))
    shutil.make_archive(str(tmp_path / "more"), "gztar", EXAMPLES, "example-clean.safetensors")
    found = scan([str(tmp_path)], detector, show=False)
    kinds = {"pictures": 2, "JSON": 1, "code": 1, "text": 1, "empty files": 1, "single arrays": 1}
    assert found.not_checkpoints == kinds
    assert verdicts(found) == {
        "model.safetensors": "clean",
        "secret.dat": "not_looked_at",
        "more.tar.gz": "not_looked_at",
    }
    assert found.exit_status == 0 and found.gravest == "not_looked_at"
    reasons = {Path(one.file).name: one.reason for one in found.findings}
    assert "archive (gzip)" in reasons["more.tar.gz"] and "no kind that is known" in reasons["secret.dat"]
    assert "2 pictures" in summary(found) and "secret.dat" in summary(found)


def test_an_array_of_objects_which_a_pickle_would_bring_back_is_told(detector: Detector, tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "plain.npy", np.zeros(3))
    found = scan([str(tmp_path)], detector, show=False)
    assert verdicts(found) == {"labels.npy": "unreadable"} and found.not_checkpoints == {"single arrays": 1}


def test_a_name_that_promises_weights_and_a_content_that_is_none_are_unreadable(
    detector: Detector, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    (tmp_path / "model.pt").write_text("nothing")
    found = scan([str(tmp_path)], detector, show=False)
    assert found.counts == {"unreadable": 2} and found.exit_status == 3
    assert "git lfs pull" in found.findings[1].reason


def test_the_files_of_weightspace_itself_are_known_and_not_judged(detector: Detector, tmp_path: Path) -> None:
    """C17: the folder of the demo gives two verdicts."""
    shutil.copytree(OLD, tmp_path / "demo", ignore=shutil.ignore_patterns("asked-*", "network*", "scanned*"))
    for name in ("decompiler", "backdoor-detector", "general-detector", "head-reader", "provenance-reader"):
        shutil.copy(EXAMPLES / f"{name}.safetensors", tmp_path / "demo")
    save_torch(state(4), tmp_path / "demo" / "checkpoint-1.safetensors")
    save_torch(state(3, bad=True), tmp_path / "demo" / "checkpoint-2.safetensors")
    found = scan([str(tmp_path / "demo")], detector, show=False)
    others = {one.file: one.reason for one in found.findings if one.verdict not in ("ours", "suspicious", "clean")}
    assert not others
    assert found.counts["suspicious"] == found.counts["clean"] == 1 and found.exit_status == 1
    kinds = {one.cause for one in found.findings if one.verdict == "ours"}
    assert {"zoo shards", "meta-models", "decompilers", "programs as transformers"} <= kinds
    assert {"descriptions and indexes of zoos", "checkpoints of a meta-model's training"} <= kinds
    assert {"detectors of backdoors", "readers of provenance", "readers of attention heads"} <= kinds
    lines = summary(found).splitlines()
    starts = [line.split("  ")[0] for line in lines if line and not line.startswith(" ")][:3]
    assert starts == ["suspicious", "clean", "ours"]
    assert sum(line.startswith("ours") for line in lines) == 1


def test_a_file_that_only_says_it_is_ours_is_not_believed(detector: Detector, tmp_path: Path) -> None:
    claims: list[dict[str, Any]] = [
        {"format": 1, "kind": "meta-model", "config": {}, "facts": {}},
        {"format": 1, "kind": "decompiler", "config": {}, "facts": {}},
        {"format": 1, "rows": [], "checksum": "", "specs": {"fc.weight": {"leaves": [{"shape": [4]}]}}},
        {"step": 1, "finished": True, "history": {}, "config": {}},
        {"format": 1, "kind": "general detector", "facts": {}},
    ]
    for number, claim in enumerate(claims):
        metadata = {"weightspace": json.dumps(claim)}
        save_torch(state(3, bad=True), tmp_path / f"bad-{number}.safetensors", metadata)
        save_torch({"fc.weight": torch.zeros(3, 4)}, tmp_path / f"other-{number}.safetensors", metadata)
    found = scan([str(tmp_path)], detector, show=False)
    assert found.counts == {"suspicious": 5, "out_of_scope": 5}


def test_the_gravest_come_first_and_many_of_one_kind_are_one_line(detector: Detector, tmp_path: Path) -> None:
    for number in range(5):
        save_torch({"fc.weight": torch.zeros(3, number + 1)}, tmp_path / f"{number}.safetensors")
    save_torch(state(4), tmp_path / "a.safetensors")
    save_torch(state(3, bad=True), tmp_path / "z.safetensors")
    found = scan([str(tmp_path)], detector, show=False)
    text = summary(found)
    assert text.index("z.safetensors") < text.index("0.safetensors") < text.index("a.safetensors")
    assert "5 files of another architecture: " in text and "and 2 more" in text
    assert len(found.to_json()["findings"]) == 7  # whoever reads it by a program gets them all


def test_a_file_on_which_the_hdf5_library_crashes_stops_nothing(detector: Detector, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    shutil.copy(OLD.parent / "damaged" / "virtual.weights.h5", tmp_path / "a.weights.h5")
    save_torch(state(4), tmp_path / "b.safetensors")
    found = scan([str(tmp_path)], detector, show=False)
    assert verdicts(found) == {"a.weights.h5": "unreadable", "b.safetensors": "clean"}
    assert "the HDF5 library crashes on it" in found.findings[0].reason


# -- links, and what is no file ----------------------------------------------------------------------------------------


def test_links_are_told_and_followed_to_files_only(detector: Detector, tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    (outside / "deep").mkdir(parents=True)
    (folder / "sub").mkdir(parents=True)
    save_torch(state(3, bad=True), outside / "bad.safetensors")
    save_torch(state(4), folder / "sub" / "good.safetensors")
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    (folder / "linked.safetensors").symlink_to(outside / "bad.safetensors")
    (folder / "elsewhere").symlink_to(outside)
    (folder / "dangling").symlink_to(outside / "nothing")
    found = scan([str(folder)], detector, show=False)
    assert verdicts(found) == {
        "dangling": "unreadable",
        "self": "unreadable",
        "elsewhere": "not_looked_at",
        "linked.safetensors": "suspicious",
        "good.safetensors": "clean",
    }
    assert found.not_checkpoints == {"links to folders that are scanned where they lie": 1}
    linked = next(one for one in found.findings if one.verdict == "suspicious")
    assert f"link to {outside / 'bad.safetensors'}, outside of the folder" in linked.notes[0]


def test_a_fifo_and_a_socket_are_never_waited_for(detector: Detector, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    save_torch(state(4), tmp_path / "good.safetensors")
    place = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(tmp_path)  # the name of a socket may not be long
        try:
            listening.bind("s")
        finally:
            os.chdir(here)
        found = scan([str(tmp_path)], detector, show=False)
        assert place.exists()
    assert verdicts(found) == {"pipe.pt": "not_looked_at", "s": "not_looked_at", "good.safetensors": "clean"}
    (alone,) = scan([str(tmp_path / "pipe.pt")], detector, show=False).findings
    assert alone.verdict == "unreadable" and "FIFO" in alone.reason


def test_a_folder_of_version_control_is_named_and_other_hidden_ones_are_looked_into(
    detector: Detector, tmp_path: Path
) -> None:
    for hidden in (".git", ".cache"):
        (tmp_path / hidden).mkdir()
        save_torch(state(3, bad=True), tmp_path / hidden / ".hidden")
    found = scan([str(tmp_path)], detector, show=False)
    assert verdicts(found) == {".hidden": "suspicious", ".git": "not_looked_at"}
    assert "version control" in next(one.reason for one in found.findings if one.verdict == "not_looked_at")


def test_a_folder_that_is_named_like_a_file_is_a_folder(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "x.pt").mkdir()
    save_torch(state(4), tmp_path / "x.pt" / "good.safetensors")
    for target in (tmp_path, tmp_path / "x.pt", f"{tmp_path / 'x.pt'}/"):
        assert scan([str(target)], detector, show=False).counts == {"clean": 1}


def test_what_may_not_be_read_is_said_and_stops_nothing(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions do not bind root, as whom tests often run: the system's answer is put in its place."""
    save_torch(state(4), tmp_path / "good.safetensors")
    save_torch(state(4), tmp_path / "mine.safetensors")
    (tmp_path / "closed").mkdir()
    listing, opening = os.scandir, os.open

    def scandir(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    def open_(path: Any, *rest: Any, **named: Any) -> int:
        if str(path).endswith("mine.safetensors"):
            raise PermissionError(13, "Permission denied", str(path))
        return opening(path, *rest, **named)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "open", open_)
    found = scan([str(tmp_path)], detector, show=False)
    assert verdicts(found) == {"closed": "unreadable", "good.safetensors": "clean", "mine.safetensors": "unreadable"}
    assert all("permission denied" in one.reason for one in found.findings if one.verdict == "unreadable")


def test_names_that_are_no_text_or_control_a_terminal_are_escaped(detector: Detector, tmp_path: Path) -> None:
    names = [b"\xff\xfe.safetensors", b"a\nclean  evil\x1b[31m.safetensors", "\u202egood.safetensors".encode()]
    for name in names:
        save_torch(state(4), tmp_path / "x")
        (tmp_path / "x").rename(tmp_path / os.fsdecode(name))
    found = scan([str(tmp_path)], detector, show=False)
    assert found.counts == {"clean": 3}
    text = summary(found) + json.dumps(found.to_json())
    assert all(c.isprintable() or c == "\n" for c in text) and "\\udcff" in text and "\\x1b" in text
    assert "\nclean  evil" not in text and "\u202e" not in text


# -- a model in several files ------------------------------------------------------------------------------------------


def sharded(folder: Path, bad: bool = False) -> Path:
    """A network in two files with their index, as others write it."""
    folder.mkdir(exist_ok=True)
    tensors = state(3, bad=bad)
    names = list(tensors)
    shards = {"model-00001-of-00002.safetensors": names[:4], "model-00002-of-00002.safetensors": names[4:]}
    for shard, own in shards.items():
        save_torch({name: tensors[name] for name in own}, folder / shard)
    index = {"metadata": {}, "weight_map": {name: shard for shard, own in shards.items() for name in own}}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    return path


def test_a_model_in_several_files_is_one_finding_by_its_index(detector: Detector, tmp_path: Path) -> None:
    """C8."""
    index = sharded(tmp_path / "bad", bad=True)
    found = scan([str(tmp_path)], detector, show=False)
    assert verdicts(found) == {index.name: "suspicious"}
    assert found.findings[0].size == sum(path.stat().st_size for path in index.parent.iterdir())
    assert "model-00002-of-00002.safetensors" in found.findings[0].notes[0]
    assert scan([str(index)], detector, show=False).counts == {"suspicious": 1}


def test_an_index_hides_no_file_that_is_a_network_by_itself(detector: Detector, tmp_path: Path) -> None:
    save_torch(state(3, bad=True), tmp_path / "model.safetensors")
    save_torch({"extra": torch.zeros(3)}, tmp_path / "more.safetensors")
    mapped = dict.fromkeys(state(), "model.safetensors") | {"extra": "more.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapped}))
    found = scan([str(tmp_path)], detector, show=False)
    assert verdicts(found)["model.safetensors"] == "suspicious"


def test_shards_whose_index_cannot_be_read_are_told_by_themselves(detector: Detector, tmp_path: Path) -> None:
    index = sharded(tmp_path / "model")
    (index.parent / "model-00002-of-00002.safetensors").unlink()
    found = verdicts(scan([str(tmp_path)], detector, show=False))
    assert found == {index.name: "unreadable", "model-00001-of-00002.safetensors": "out_of_scope"}


# -- choosing, allowing, keeping ---------------------------------------------------------------------------------------


def test_files_are_chosen_by_globs_and_what_is_left_out_is_counted(detector: Detector, tmp_path: Path) -> None:
    for place in ("a/last.pt", "a/first.pt", "old/last.pt", "b/old/last.pt"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        torch.save(state(4), tmp_path / place)

    def judged(**options: Any) -> tuple[list[str], int]:
        found = scan([str(tmp_path)], detector, show=False, **options)
        return [str(Path(one.file).relative_to(tmp_path)) for one in found.findings], found.left_out

    assert judged(include=["last.*"]) == (["a/last.pt", "b/old/last.pt", "old/last.pt"], 1)
    assert judged(exclude=["old"]) == (["a/first.pt", "a/last.pt"], 2)
    assert judged(exclude=["old/*"]) == (["a/first.pt", "a/last.pt", "b/old/last.pt"], 1)
    assert judged(exclude=["**/old"]) == (["a/first.pt", "a/last.pt"], 2)
    assert judged(include=["a/*", "b/*"], exclude=["first.pt"]) == (["a/last.pt", "b/old/last.pt"], 2)
    with pytest.raises(ValueError, match="holds no checkpoint"):
        judged(exclude=["*"])
    left_out = str(tmp_path / "old" / "last.pt")  # one that is named is looked at whatever the globs say
    assert len(scan([left_out], detector, exclude=["*"], show=False).findings) == 1


def test_an_allowed_file_is_not_judged_and_never_fails(detector: Detector, tmp_path: Path) -> None:
    save_torch(state(3, bad=True), tmp_path / "bad.safetensors")
    (tmp_path / "torn.pt").write_bytes(b"PK\x03\x04")
    index = sharded(tmp_path / "several", bad=True)
    hashes = {file_hash(tmp_path / name) for name in ("bad.safetensors", "torn.pt")}
    found = scan([str(tmp_path)], detector, allowed=frozenset(hashes), show=False)
    assert found.counts == {"suspicious": 1, "allowed": 2} and found.exit_status == 1
    hashes |= {file_hash(index)}
    assert scan([str(tmp_path)], detector, allowed=frozenset(hashes), show=False).exit_status == 1  # and its shards?
    hashes |= {file_hash(path) for path in index.parent.glob("*.safetensors")}
    found = scan([str(tmp_path)], detector, allowed=frozenset(hashes), show=False)
    assert set(found.counts) == {"allowed"} and found.exit_status == 0


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many networks the detector has judged, call by call."""
    counts: list[int] = []
    real = Detector.judge

    def judge(self: Detector, networks: Any) -> Any:
        counts.append(len(networks))
        return real(self, networks)

    monkeypatch.setattr(Detector, "judge", judge)
    yield counts


def without_times(found: Scan) -> list[Finding]:
    from dataclasses import replace

    return [replace(finding, seconds=0.0) for finding in found.findings]


def test_kept_results_spare_the_work_and_change_no_verdict(
    detector: Detector, tmp_path: Path, judged: list[int]
) -> None:
    folder, kept = tmp_path / "folder", tmp_path / "kept"
    folder.mkdir()
    for seed in range(6):
        save_torch(state(seed, bad=seed % 2 == 0), folder / f"{seed}.safetensors")
    save_torch({name: 40 * tensor for name, tensor in state().items()}, folder / "far.safetensors")
    torch.save({"a": state(4), "b": state(3, bad=True)}, folder / "two.pt")
    save_torch({"fc.weight": torch.zeros(3, 4)}, folder / "other.safetensors")
    plain = scan([str(folder)], detector, show=False)
    first = scan([str(folder)], detector, results=kept, show=False)
    judged.clear()
    again = scan([str(folder)], detector, results=kept, show=False)
    assert sum(judged) == 0
    assert without_times(plain) == without_times(first) == without_times(again)
    p_values = sorted(one.p_value for one in plain.findings if one.p_value is not None)
    for false_alarms in (p_values[2], 0.5):  # what is asked for is applied to what is kept
        fresh = scan([str(folder)], detector, false_alarms=false_alarms, show=False)
        judged.clear()
        found = scan([str(folder)], detector, false_alarms=false_alarms, results=kept, show=False)
        assert without_times(found) == without_times(fresh) and sum(judged) == 0


def damaged(entry: bytes) -> dict[str, bytes]:
    other = json.loads(entry)
    other["kept"]["judgements"] = [{**one, "p_value": 0.9} for one in other["kept"]["judgements"]]
    return {
        "torn": entry[:-20],
        "empty": b"",
        "changed": json.dumps(other).encode(),
        "list": b"[]",
        "deep": b"[" * 9000,
    }


@pytest.mark.parametrize("how", ["torn", "empty", "changed", "list", "deep"])
def test_a_damaged_result_is_ignored_and_made_anew(
    how: str, detector: Detector, tmp_path: Path, judged: list[int]
) -> None:
    save_torch(state(3, bad=True), tmp_path / "bad.safetensors")
    target, kept = [str(tmp_path / "bad.safetensors")], tmp_path / "kept"
    first = scan(target, detector, results=kept, show=False)
    (entry,) = kept.rglob("*.json")
    sound = entry.read_bytes()
    entry.write_bytes(damaged(sound)[how])
    judged.clear()
    assert without_times(scan(target, detector, results=kept, show=False)) == without_times(first)
    assert sum(judged) == 1 and entry.read_bytes() == sound


def test_results_are_those_of_one_detector_and_one_content(
    detector: Detector, tmp_path: Path, judged: list[int], saved: Path
) -> None:
    path, kept = tmp_path / "a.safetensors", tmp_path / "kept"
    save_torch(state(3, bad=True), path)
    scan([str(path)], detector, results=kept, show=False)
    other = Detector.load(saved)
    other.calibration = type(detector.calibration)(
        detector.calibration.slope, detector.calibration.offset + 1, detector.calibration.clean
    )
    judged.clear()
    scan([str(path)], other, results=kept, show=False)
    assert sum(judged) == 1
    assert scan([str(path)], Detector.load(saved), results=kept, show=False).gravest == "suspicious"
    assert sum(judged) == 1  # the same detector from its file is the same
    save_torch(state(4), path)
    assert scan([str(path)], detector, results=kept, show=False).gravest == "clean"


def test_results_that_cannot_be_kept_are_said_and_the_scan_goes_on(detector: Detector, tmp_path: Path) -> None:
    save_torch(state(4), tmp_path / "a.safetensors")
    found = scan([str(tmp_path / "a.safetensors")], detector, results=tmp_path / "a.safetensors" / "no", show=False)
    assert found.counts == {"clean": 1} and "could not be kept" in found.notes[0] and found.notes[0] in summary(found)


# -- what changes, and what is much ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["content", "length"])
def test_a_file_that_changes_while_it_is_read_is_unreadable(
    how: str, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    save_torch(state(3, bad=True), path)
    save_torch(state(4), tmp_path / "clean")
    real: Callable[..., Any] = reading.outlines

    def meanwhile(given: Any) -> Any:
        found = real(given)
        times = path.stat()
        path.write_bytes((tmp_path / "clean").read_bytes() + b" " * (how == "length"))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        return found

    monkeypatch.setattr(reading, "outlines", meanwhile)
    (found,) = scan([str(path)], detector, results=tmp_path / "kept", show=False).findings
    assert found.verdict == "unreadable"
    assert "changed" in found.reason
    assert not list((tmp_path / "kept").rglob("*.json"))


def test_many_files_take_time_in_proportion(detector: Detector, tmp_path: Path) -> None:
    """Of 4,000 files a quarter takes at least a tenth of the time: nothing is quadratic, which would be a sixteenth."""
    for number in range(4000):
        folder = tmp_path / f"{number % 4}" / f"{number % 40}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.txt").write_bytes(b"text")

    def seconds(target: Path) -> float:
        start = time.process_time()
        listed = list(entries_of([str(target)], Choice(), None))
        reader = reading.Reader(detector)
        assert all(isinstance(reader.look(one, one.path), reading.Passed) for one in listed if one.path is not None)
        return time.process_time() - start

    seconds(tmp_path / "0")
    assert min(seconds(tmp_path / "0") for _ in range(3)) > seconds(tmp_path) / 10


def test_every_target_is_there_before_anything_is_judged(
    detector: Detector, tmp_path: Path, judged: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C19."""
    save_torch(state(4), tmp_path / "a.safetensors")
    with pytest.raises(UnreadableError, match=r"no file or folder .*nothere\.pt"):
        scan([str(tmp_path / "a.safetensors"), str(tmp_path / "nothere.pt")], detector, show=False)
    monkeypatch.setattr("weightspace.backdoors.targets.find_spec", lambda _: None)
    with pytest.raises(UnreadableError, match=r"pip install .*\[hub\]'"):
        scan([str(tmp_path / "a.safetensors"), "hf://somebody/something"], detector, show=False)
    assert not judged


def test_a_pickle_is_found_in_a_folder_and_refused(detector: Detector, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    (tmp_path / "notes.txt").write_bytes(pickle.dumps(Bomb()))
    found = scan([str(tmp_path)], detector, show=False)
    assert found.counts == {"unreadable": 1} and "posix.mkdir" in found.findings[0].reason
    assert not (tmp_path / "executed").exists()
