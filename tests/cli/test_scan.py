"""The verb `scan` at the command line: options, exit statuses, reports, and whatever a path may hold."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from safetensors.numpy import save_file

from weightspace import EXAMPLES
from weightspace.backdoors import page
from weightspace.backdoors.detector import Detector, Judgement
from weightspace.backdoors.page import sarif, write_scan
from weightspace.backdoors.scan import scan
from weightspace.backdoors.summary import summary
from weightspace.cli import main

CLEAN, BAD = (EXAMPLES / f"example-{name}.safetensors" for name in ("clean", "backdoored"))
SCHEMA = json.loads((Path(__file__).parent.parent / "data" / "sarif-2.1.0.json").read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bad network, a clean one, one of another architecture, and a torn file."""
    place = tmp_path / "folder"
    place.mkdir()
    shutil.copy(BAD, place / "bad.safetensors")
    shutil.copy(CLEAN, place / "clean.safetensors")
    save_file({"w": np.zeros((3, 3), np.float32)}, place / "other.safetensors")
    (place / "torn.pt").write_bytes(b"PK")
    return place


def wrong_usage(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["scan", *words]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("weightspace: ")
    return said.err


def test_what_is_not_there_is_wrong_usage(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C19."""
    assert "there is no file or folder nothere.pt" in wrong_usage(capsys, "nothere.pt")
    assert "nothere.pt" in wrong_usage(capsys, str(folder), "nothere.pt")
    monkeypatch.setattr("weightspace.backdoors.targets.find_spec", lambda _: None)
    assert "[hub]'" in wrong_usage(capsys, "hf://somebody/something").split("pip install ")[1]
    assert "no SHA-256 hash" in wrong_usage(capsys, str(folder), "--allow", str(CLEAN.with_suffix(".safetensors")))
    assert "there is no file" in wrong_usage(capsys, str(folder), "--allow", "nothere.txt")
    assert "is a file" in wrong_usage(capsys, str(folder), "--cache", str(CLEAN))


@pytest.mark.parametrize(
    ("chosen", "status"),
    [
        (None, 1),
        (["suspicious"], 1),
        (["unreadable", "out-of-scope"], 3),
        (["out-of-scope"], 4),
        (["not-looked-at"], 5),
        ([], 0),
    ],
)
def test_the_verdicts_that_fail_are_chosen(
    chosen: list[str] | None, status: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "unknown.dat").write_bytes(b"\xfe\xdc\xba\x98")
    words = [] if chosen is None else ["--fail-on", *chosen]
    assert main(["scan", str(folder), "--json", *words]) == status
    found = json.loads(capsys.readouterr().out)
    assert found["exit_status"] == status and found["verdict"] == "suspicious"


def test_a_list_of_hashes_lets_files_pass(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = tmp_path / "allowed.txt"
    digest = hashlib.sha256((folder / "bad.safetensors").read_bytes()).hexdigest()
    torn = hashlib.sha256(b"PK").hexdigest()
    listed.write_text(f"# what we know\n\n{digest.upper()}  bad.safetensors\n{torn} # a stub\n")
    assert main(["scan", str(folder), "--allow", str(listed)]) == 4
    said = capsys.readouterr().out
    assert "allowed" in said and "2 allowed" in said
    listed.write_text("abc\n")
    assert "line 1 of" in wrong_usage(capsys, str(folder), "--allow", str(listed))


def test_globs_and_a_folder_of_results_at_the_command_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["scan", str(folder), "--include", "*.safetensors", "--exclude", "bad*", "other*"]
    for _ in range(2):
        assert main([*words, "--cache", str(tmp_path / "kept"), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert [Path(one["file"]).name for one in found["findings"]] == ["clean.safetensors"]
        assert found["left_out"] == 3
    assert len(list((tmp_path / "kept").rglob("*.json"))) == 1


# -- reports ----------------------------------------------------------------------


def test_a_full_disk_takes_a_report_away_and_not_the_verdicts(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    out, html = tmp_path / "out.sarif", tmp_path / "out.html"
    words = ["--sarif", str(out), "--html", str(html)]
    monkeypatch.setattr(page, "write_atomically", full)
    for target, status in ((folder / "clean.safetensors", 2), (folder / "bad.safetensors", 1)):
        assert main(["scan", str(target), *words]) == status
        said = capsys.readouterr()
        assert target.name in said.out and said.err.count("\n") == 2
        assert f"{out} could not be written (no space left on device)" in said.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_output_that_is_full_is_one_sentence_and_no_success(folder: Path) -> None:
    words = [sys.executable, "-m", "weightspace", "scan", str(folder / "clean.safetensors")]
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert run.returncode != 0 and "the disk is full" in run.stderr and "Traceback" not in run.stderr


def test_a_path_that_controls_a_terminal_is_escaped_everywhere(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a\nclean \x1b[2J\x9b31m\u202e.pt"
    (folder / name).write_bytes(b"PK")
    out, html = tmp_path / "out\x1b.sarif", tmp_path / "out\x1b.html"
    assert main(["scan", str(folder), "--sarif", str(out), "--html", str(html)]) == 1
    told = [capsys.readouterr().out, out.read_text(), html.read_text()]
    assert main(["scan", str(folder / name)]) == 3
    told.append(capsys.readouterr().out)
    assert main(["scan", str(folder / f"no{name}")]) == 2
    told.append(capsys.readouterr().err)
    assert main(["inspect", str(folder / name)]) == 3
    told.append(capsys.readouterr().out)
    for text in told:
        assert all(c.isprintable() or c == "\n" for c in text)
        assert "\nclean " not in text.replace("\nclean        ", "")
    log = json.loads(out.read_text())
    jsonschema.Draft4Validator(SCHEMA).validate(log)


def test_sarif_and_page_have_every_file_and_what_was_passed(folder: Path, tmp_path: Path) -> None:
    for number in range(5):
        save_file({"w": np.zeros((3, number + 1), np.float32)}, folder / f"other-{number}.safetensors")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "unknown.dat").write_bytes(b"\xfe\xdc\xba\x98")
    shutil.copy(EXAMPLES / "decompiler.safetensors", folder)
    found = scan([str(folder)], Detector.load(), show=False)
    log = sarif(found)
    jsonschema.Draft4Validator(SCHEMA).validate(log)
    (run,) = log["runs"]
    assert len(run["artifacts"]) == 11
    levels = {"WS001": 1, "WS002": 1, "WS003": 6, "WS004": 1}
    assert {rule: sum(r["ruleId"] == rule for r in run["results"]) for rule in levels} == levels
    assert run["tool"]["driver"]["properties"]["notCheckpoints"] == {"pictures": 1}
    write_scan(found, tmp_path / "scan.html")
    text = (tmp_path / "scan.html").read_text()
    assert text.index("bad.safetensors") < text.index("torn.pt") < text.index("clean.safetensors")
    assert "6 files of another architecture" in text and all(f"other-{n}.safetensors" in text for n in range(5))
    assert "1 pictures" in text and "unknown.dat" in text


# -- what the words say ----------------------------------------------------------------------


def judged(monkeypatch: pytest.MonkeyPatch, p_value: float, probability: float) -> Any:
    """A scan by a detector that says this of every network."""
    said = Judgement(0.0, probability, p_value, 0.5, (), ())
    monkeypatch.setattr(Detector, "judge", lambda _, networks: [said for _ in networks])
    return scan([str(CLEAN)], Detector.load(), show=False)


def test_a_clean_file_with_a_high_probability_does_not_contradict_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """C14: the p-value decides, and the probability says what it is of."""
    found = judged(monkeypatch, 0.12, 0.7)
    (finding,) = found.findings
    assert finding.verdict == "clean"
    assert finding.reason == (
        "About 12% of clean networks look at least as suspicious; the limit is 5.0%, and this alone decides. Where "
        "half of all networks have a backdoor, 70% of those with this score have one: it is called clean, and "
        "is nearer to those with a backdoor."
    )
    record = found.to_json()
    assert "probability" not in record["findings"][0]
    assert record["findings"][0]["probability_if_half_have_one"] == 0.7
    assert "the probability does not decide" in record["decided_by"]
    write_scan(found, tmp_path / "scan.html")
    for text in (summary(found), (tmp_path / "scan.html").read_text(), json.dumps(record), json.dumps(sarif(found))):
        assert "probability of a backdoor 70%" not in text
    ordinary = judged(monkeypatch, 0.6, 0.1).findings[0].reason
    assert ordinary.endswith("10% of those with this score have one.") and "decides" not in ordinary
    bad = judged(monkeypatch, 0.02, 0.9).findings[0]
    assert bad.verdict == "suspicious" and bad.reason.startswith("At most 2.0% of clean networks look so suspicious")
