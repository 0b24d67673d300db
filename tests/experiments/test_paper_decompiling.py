"""The paper's experiment on the whole decompiler: what is kept, what goes on, what the tables say."""

import json
from dataclasses import replace

import numpy as np
import pytest

from weightspace.cli import main
from weightspace.decompiler.paper.ceiling import Answered, TwoStarts
from weightspace.errors import TaskError
from weightspace.experiments import listing_networks
from weightspace.experiments import paper_decompiling as experiment

CONFIG = experiment.PaperConfig(count=2, seed=4, steps=20, chains=1, alone=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("paper") / "run"
    experiment.run_paper(CONFIG, out, workers=0, show=False)
    return out


def test_what_is_finished_is_kept_and_not_done_again(folder, monkeypatch):
    path = folder / experiment.RESULTS
    whole = path.read_text()
    first, second = whole.splitlines()
    path.write_text(first + "\n" + second[:40])  # a kill in the middle of a line
    asked = []
    again = experiment.one_program

    def one(config, number, known):
        asked.append(number)
        return again(config, number, known)

    monkeypatch.setattr(experiment, "one_program", one)
    rows = experiment.run_paper(CONFIG, folder, workers=0, show=False)
    assert asked == [1] and [row.number for row in rows] == [0, 1]
    before = json.loads(second)
    assert rows[1].listings["kept"]["lines"] == before["listings"]["kept"]["lines"]
    assert rows[1].truth == before["truth"]
    experiment.run_paper(CONFIG, folder, workers=0, show=False)
    assert asked == [1]


def test_another_seed_needs_another_folder(folder):
    with pytest.raises(TaskError, match="choose another folder"):
        experiment.run_paper(experiment.PaperConfig(count=2, seed=5, steps=20, chains=1, alone=0), folder, show=False)


def test_programs_that_were_not_printed_are_printed_when_they_are_asked_for(tmp_path):
    config = experiment.PaperConfig(count=1, seed=4, steps=20, chains=1, alone=0, printed=0)
    (row,) = experiment.run_paper(config, tmp_path, workers=0, show=False)
    assert row.status == "certified" and row.listings == {} and experiment.columns_of([row]) == {}
    assert "0 of 0" in experiment.promised_table([row])
    (row,) = experiment.run_paper(replace(config, printed=1), tmp_path, workers=0, show=False)
    assert set(row.listings) == {"kept", "lost"}


def test_the_ceiling_is_shown_from_both_starts():
    known, missed = Answered(0.9, 0.5, 0.8, 1.0, 7), Answered(0.7, 0.25, 0.6, 0.0, 7)
    table = experiment.ceiling_table({"kept": [TwoStarts(4, known, missed), TwoStarts(5, known, None)]})
    drawn, made = table.splitlines()[-2:]
    assert "| that was drawn | 2 of 2 | 90.0%" in drawn and "| made for the weights | 1 of 2 | 70.0%" in made


def test_tables_say_what_came_of_the_programs(folder):
    rows = experiment.results(folder)
    assert all(row.status == "certified" for row in rows)
    assert "| the whole decompiler | 2 | 100.0% [" in experiment.certificate_table(rows)
    columns = experiment.columns_of(rows)
    truth = np.array([row.truth for row in rows])
    columns["the truth"] = (truth, truth)
    columns["nothing"] = (np.zeros_like(truth), truth)
    table = experiment.listing_table(columns)
    exact = next(line for line in table.splitlines() if line.startswith("| programs, exact"))
    assert "| 100.0% [" in exact and "| 0.0% [" in exact and exact.endswith("| 6.8% |")
    assert "weights as compiled" in experiment.promised_table(rows)


def test_what_cannot_be_asked_is_refused_in_a_sentence(capsys):
    assert main(["decompiler", "paper", "--count", "0"]) == 2
    assert "count 0 will not do: give at least 1" in capsys.readouterr().err
    assert main(["decompiler", "listing", "graph", "--minutes", "0"]) == 2
    assert "give minutes above 0" in capsys.readouterr().err


def test_steps_of_a_folder_are_measured_once(tmp_path):
    (tmp_path / listing_networks.BUDGET_FILE).write_text('{"minutes": 2.0, "steps": 7}')
    assert listing_networks._steps("graph", tmp_path, tmp_path, 2.0, 1, []) == 7
    with pytest.raises(TaskError, match="begun for 2 minutes"):
        listing_networks._steps("graph", tmp_path, tmp_path, 3.0, 1, [])
