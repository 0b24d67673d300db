"""The demo: what it says in its first seconds is right, and its page links every page that is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from weightspace.cli.dispatch import main
from weightspace.evaluation.results import Results, Row
from weightspace.experiments import demo
from weightspace.experiments.demo import PARTS, PREDICTOR, Shown, shown_results, write_index


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "demo"
    found = list(demo.quick_demo(out))
    (out / "record.json").write_text(json.dumps([part.record for part in found]))
    return out


def test_the_quick_demo_proves_a_program_finds_the_backdoor_reads_heads_and_names_the_training(folder: Path) -> None:
    decompiled, scanned, heads, asked, classes = json.loads((folder / "record.json").read_text())
    assert decompiled["status"] == "certified"
    verdicts = {Path(one["file"]).name: one["verdict"] for one in scanned["findings"]["findings"]}
    expected = ("clean", "suspicious", "clean", "suspicious")
    assert verdicts == {f"checkpoint-{number}.safetensors": one for number, one in enumerate(expected, 1)}
    assert [one["judged_by"] for one in scanned["findings"]["findings"]] == ["special"] * 2 + ["general"] * 2
    assert len(heads["read"]) == len(heads["measured"]) == 4 and heads["heads"] == 24
    assert heads["measured"][0][4] == "C" and heads["agreeing"] > 12
    best = {name: max(classes, key=classes.get) for name, classes in asked["targets"].items()}
    assert best == asked["truth"] == {"activation": "tanh", "initialisation": "kaiming_normal", "optimiser": "rmsprop"}
    assert asked["distance"] < 1, "it is a test network of the very zoo"
    for one in classes.values():
        said = {found["name"] for found in one["classes"][: len(one["truth"])]}
        assert len(said & set(one["truth"])) >= 3, "of five classes of ten, of which 2.5 would be right by chance"


def test_the_page_of_the_demo_links_every_page_beside_it_and_loads_nothing(folder: Path) -> None:
    page = (folder / "index.html").read_text()
    links = re.findall(r'href="([^"]+)"', page)
    assert set(links) == {path.name for path in folder.glob("*.html")} - {"index.html"}
    assert "default-src 'none'" in page and "<script" not in page and "http" not in page.split("</head>")[1]
    assert "certified" in page and "suspicious" in page and "heads agree" in page and "optimiser" in page


def test_the_page_escapes_what_parts_say(tmp_path: Path) -> None:
    write_index(tmp_path, [Shown("a < b", "<script>", {"x.html": "y"}, {})])
    page = (tmp_path / "index.html").read_text()
    assert "a &lt; b" in page and "&lt;script&gt;" in page and 'href="x.html"' in page


def test_the_verb_stops_after_the_quick_parts_and_says_where_the_page_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "PARTS", {"counting": lambda _: Shown("Counted", "1, 2", {}, {"n": 2})})
    assert main(["demo", "--quick", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"Counted\n\n1, 2\n\n{tmp_path / 'index.html'}\n"
    assert main(["demo", "--quick", "--json", "--out", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out) == {"Counted": {"n": 2}}
    figures = {"accuracy": 0.5, "low": 0.4, "high": 0.6, "chance": 0.5, "majority": 0.5, "n": 10}
    row = Row(target="a", predictor="linear", **figures)  # pyright: ignore[reportArgumentType]
    results = Results(task="t", rows=(row,))
    monkeypatch.setattr(demo, "demo", lambda *_, **__: results)
    assert main(["demo", "--out", str(tmp_path)]) == 0
    assert "report.html" in (tmp_path / "index.html").read_text()
    assert shown_results(results).text in capsys.readouterr().out


def test_what_ships_for_the_demo_is_small_and_has_a_card() -> None:
    assert PREDICTOR.stat().st_size < 2**20
    card = PREDICTOR.with_suffix(".md").read_text()
    assert "weightspace demo --out demo" in card and "190,475" in card
    assert len(PARTS) == 5
