"""The site and the notebooks: every public name and verb has its place, links are followed, notebooks run."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import weightspace as ws
from weightspace import project
from weightspace.backdoors.verdict import EXIT_STATUS
from weightspace.cli.dispatch import VERBS
from weightspace.decompiler.result import MEANING
from weightspace.decompiler.trained.result import MEANING as TRAINED_MEANING

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
LONG = ("first-meta-model", "trained-transformer")
"""Notebooks that train something."""


def script(name: str) -> ModuleType:
    """A script of docs/ as a module."""
    pytest.importorskip("mkdocs", reason="the site needs the extra docs")
    found = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site() -> ModuleType:
    return script("site")


# -- pages that are made ----------------------------------------------------------------------------------------------


def test_the_reference_has_every_public_name(site: ModuleType) -> None:
    listed = re.findall(r"^::: weightspace\.[\w.]*?(\w+)$", site.python_page(), re.MULTILINE)
    assert sorted(listed) == sorted(set(ws.__all__) - {"EXAMPLES"})


def test_the_reference_has_the_help_of_every_verb(site: ModuleType) -> None:
    page = site.commands_page()
    assert re.findall(r"^## weightspace (.+)$", page, re.MULTILINE) == list(VERBS)
    assert page.count("usage: weightspace ") == len(VERBS)


def test_the_store_has_a_page_of_its_own(site: ModuleType) -> None:
    page = site.store_page()
    assert page.startswith("# The store") and "manifest.json" in page and "\n## " not in page


def test_every_page_in_the_navigation_is_there_or_left_out(site: ModuleType) -> None:
    nav = site.on_config(yaml.safe_load((ROOT / "mkdocs.yml").read_text()))["nav"]
    places = [place for section in nav for entry in section.values() for place in flat(entry)]
    assert len(places) == len(set(places)) > 20
    made = site.generated()
    assert all(place in made or (ROOT / "docs" / place).is_file() for place in places)
    written = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert not written - set(places), "pages that nobody finds"


def flat(entry: str | list[dict[str, str]]) -> list[str]:
    return [entry] if isinstance(entry, str) else [place for each in entry for place in each.values()]


@pytest.mark.parametrize(
    ("place", "link", "expected"),
    [
        ("index.md", "docs/results.md", "results.md"),
        ("index.md", "CONTRIBUTING.md#tests", "contributing.md#tests"),
        ("results.md", "../README.md", "index.md"),
        ("results.md", "backdoors.md#figures", "backdoors.md#figures"),
        ("results.md", "../src/weightspace/api.py", project.page("src/weightspace/api.py")),
        ("tutorials/scan.md", "../../CONTRIBUTING.md", "../contributing.md"),
        ("tutorials/scan.md", "first-meta-model.ipynb", "first-meta-model.md"),
        ("reference/store.md", "publishing.md", "../publishing.md"),
        ("results.md", "#here", "#here"),
        ("results.md", "https://e.org/x.md", "https://e.org/x.md"),
        ("results.md", "nowhere.md", "nowhere.md"),
    ],
)
def test_links_lead_to_pages_or_into_the_repository(site: ModuleType, place: str, link: str, expected: str) -> None:
    known = {
        "index.md",
        "contributing.md",
        "publishing.md",
        "results.md",
        "backdoors.md",
        "tutorials/first-meta-model.md",
    }
    assert site.linked(f"see [it]({link}).", place, known) == f"see [it]({expected})."
    code = f"```\nsee [it]({link})\n```"
    assert site.linked(code, place, known) == code, "what stands in code is no link"


def test_a_notebook_becomes_a_page_with_what_it_shows(site: ModuleType, tmp_path: Path) -> None:
    html = {"output_type": "execute_result", "data": {"text/html": ["<div>card</div>"], "text/plain": ["card"]}}
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "words"]},
        {"cell_type": "code", "source": ["x"], "outputs": [html, {"output_type": "stream", "text": ["5\n"]}]},
    ]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    page = site.notebook_page(tmp_path / "a.ipynb")
    assert page.startswith("# Title\nwords\n\n```python\nx\n```\n\n")
    assert "<div>card</div>" in page and "```text\n5\n```" in page


def test_a_table_of_results_lies_beside_its_page_as_csv(site: ModuleType) -> None:
    table = "<table><tr><td></td><th>a, b</th></tr><tr><td><code>x &lt; 3</code></td><td>50%</td></tr></table>"
    html, tables = site.with_csv(f"<p>before</p>{table}{table}", "heads")
    assert list(tables) == ["tables/heads-1.csv", "tables/heads-2.csv"]
    assert list(csv.reader(io.StringIO(tables["tables/heads-1.csv"]))) == [["", "a, b"], ["x < 3", "50%"]]
    assert html.count("as CSV") == 2 and 'href="tables/heads-2.csv"' in html


def test_every_page_of_results_says_at_its_end_where_its_figures_come_from(site: ModuleType) -> None:
    places = site.results(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert len(places) > 5
    for place in places:
        page = site.boxed((ROOT / "docs" / place).read_text())
        box = page[page.rindex("\n!!! quote") :]
        assert site.FIGURES in box and "**Seeds**" in box and "**Machine" in box and "\n## " not in box, place


def test_sections_of_docstrings_are_found() -> None:
    pytest.importorskip("griffe", reason="the site needs the extra docs")
    text = "One.\n\nArgs:\n    a: b.\nRaises:\n    ValueError: c.\n\n>>> 1\n1"
    expected = "One.\n\nArgs:\n    a: b.\n\nRaises:\n    ValueError: c.\n\nExamples:\n    >>> 1\n    1"
    assert script("docstrings").sectioned(text) == expected


def test_every_verdict_is_explained() -> None:
    page = (ROOT / "docs" / "verdicts.md").read_text()
    for word in (*EXIT_STATUS, *MEANING, *TRAINED_MEANING):
        assert f"| `{word}` |" in page
    for verdict, status in EXIT_STATUS.items():
        (row,) = re.findall(rf"^\| `{verdict}` \|.*\| (\d)[^|]*\|$", page, re.MULTILINE)
        assert int(row) == status


# -- notebooks --------------------------------------------------------------------------------------------------------


def sources(path: Path) -> list[str]:
    cells = json.loads(path.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_there_are_four_notebooks() -> None:
    assert len(NOTEBOOKS) == 4


@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=[pytest.mark.slow] * (path.stem in LONG), id=path.stem) for path in NOTEBOOKS]
)
def test_a_notebook_runs_in_an_empty_folder(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for number, source in enumerate(sources(path), 1):
        exec(compile(source, f"{path.name}, cell {number}", "exec"), names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_as_it_ran_from_top_to_bottom(path: Path) -> None:
    notebook = json.loads(path.read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), "run `make notebooks`"
    shown = [output for cell in cells for output in cell["outputs"]]
    assert any("text/html" in output.get("data", {}) for output in shown)
    assert not [output for output in shown if output["output_type"] == "error" or output.get("name") == "stderr"]
    text = json.dumps(shown)
    assert "/tmp" not in text and "/home" not in text and "/root" not in text, "a path of somebody's machine"
