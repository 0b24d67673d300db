"""The study of repairs: a line a network and method, kept when it is stopped, and tables that say what the lines do."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.backdoors.test_trials import CONFIG as SMALL
from weightspace.backdoors.repairing.inversion import Search
from weightspace.backdoors.repairing.subjects import Scores
from weightspace.errors import TaskError
from weightspace.experiments import repair
from weightspace.experiments.repair import (
    CLEAN,
    GRID,
    NAMED,
    OURS,
    SETTINGS,
    Line,
    chosen,
    methods,
    read_lines,
    study,
    tables,
    with_every_setting,
)
from weightspace.zoo.engine import ProcessEngine
from weightspace.zoo.making import make_zoo
from weightspace.zoo.plan import Choice
from weightspace.zoo.store import Zoo

ATTACK = {"poison_rate": Choice((0.15,)), "alpha": Choice((0.8,))}
SPACE = {**ATTACK, "attack": Choice(("checkerboard-blend", CLEAN)), "target": Choice((3,))}
CONFIG = replace(SMALL, count=8, space=SPACE, fixed={**SMALL.fixed, "epochs": 6})


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return make_zoo(CONFIG, tmp_path_factory.mktemp("zoo"), ProcessEngine(workers=0), show=False)


def test_a_study_goes_on_where_it_was_and_leaves_out_a_line_that_was_cut_short(zoo: Zoo, tmp_path: Path) -> None:
    options = {"split": "train", "count": 1, "clean": 1, "images": (20,), "show": False}
    one = study(zoo, CONFIG, tmp_path, names=("nothing",), **options)
    assert [line.attack for line in one] == ["checkerboard-blend", CLEAN]
    assert one[0].gone == 0 and one[0].lost == 0 and one[0].before == one[0].after
    path = tmp_path / "lines.jsonl"
    with path.open("a") as file:
        file.write('{"network": 1, "att')
    both = study(zoo, CONFIG, tmp_path, names=("nothing", "CLP"), **options)
    assert both[:2] == one and [line.method for line in both[2:]] == ["CLP", "CLP"]
    assert read_lines(path) == both
    assert study(zoo, CONFIG, tmp_path, minutes=0.0, **options) == both
    assert len(tables(both)["clean networks"].splitlines()) == 4
    with pytest.raises(TaskError, match="nothing to repair"):
        chosen(zoo, "test", 0, 1)
    assert OURS in methods()


def test_settings_are_among_those_that_are_tried_and_each_of_these_is_a_method(zoo: Zoo, tmp_path: Path) -> None:
    assert all(SETTINGS[name] in GRID[name] for name in SETTINGS) and GRID.keys() == SETTINGS.keys()
    every = with_every_setting()
    assert len(every) == sum(map(len, GRID.values())) and "FST (rate 0.001, weight 0.1)" in every
    lines = study(zoo, CONFIG, tmp_path, split="train", count=1, clean=0, images=(0,), grid=True, show=False)
    assert [line.method for line in lines] == [name for name in every if name.startswith("CLP")]


def test_naming_alone_changes_nothing_and_shows_the_sizes_of_both_kinds_of_networks(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = Search(steps=3, images=8, restarts=2)
    for name in ("name_target", "name_by_both"):
        monkeypatch.setattr(repair, name, partial(getattr(repair, name), search=quick))
    options = {"split": "train", "count": 1, "clean": 1, "images": (20, 0)}
    lines = study(zoo, CONFIG, tmp_path, names=(NAMED,), show=False, **options)
    assert [(each.images, each.method) for each in lines] == [(20, NAMED), (0, NAMED)] * 2
    assert all(each.before == each.after and each.suspect is not None for each in lines)
    assert list(tables(lines)) == ["sizes by which a class is named"]
    assert cells(tables(lines)["sizes by which a class is named"])[1:3] == ["20", "1"]


def line(attack: str, success: float, accuracy: float, *, named: int | None = 2) -> Line:
    before = Scores(accuracy=0.5, success=0.9, chance=0.1, right=0.05)
    after = Scores(accuracy=accuracy, success=success, chance=0.1, right=0.4)
    return Line(0, attack, OURS, 500, before, after, 2, named, 0.1, 0.3, 0.2, 7.0)


def cells(table: str) -> list[str]:
    """Of a table's first row."""
    return [cell.strip() for cell in table.splitlines()[2].split("|")]


def test_tables_say_what_the_lines_do_and_blends_stand_apart() -> None:
    found = tables(
        [
            line("badnets-corner", 0.1, 0.5),
            line("ulp-test", 0.5, 0.48),
            line("ulp-test", 0.9, 0.49, named=None),
            line("noise-blend", 0.9, 0.5),
            line(CLEAN, 0.1, 0.49, named=None),
        ]
    )
    row = cells(found["working backdoors but blends over the whole image"])
    assert row[1:5] == [OURS, "500", "3", "50%"] and row[5:7] == ["50%", "1.0"]
    assert row[8:] == ["0.40", "2 of 3", "0.30", "0.20", "7.0", ""]
    assert cells(found["blends over the whole image"])[4] == "0%"
    clean = cells(found["clean networks"])
    assert clean[3:6] == ["1", "0", "1.0"]
    assert json.dumps(found)
