"""The documents: their Python runs, their commands exist, their links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from weightspace.cli.dispatch import GROUPS, VERBS, main
from weightspace.heads.model_zoo import RECIPE as HEADS_RECIPE
from weightspace.pairs.card import RECIPES as PAIR_RECIPES
from weightspace.zoo.recipes import PROGRAM_RECIPES, ZOO_RECIPES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make demo` leaves behind, smaller."""
    folder = tmp_path_factory.mktemp("docs")
    small = ["--count", "60", "--epochs", "1", "--workers", "0"]
    assert main(["zoo", "make", "digits-small", "--out", str(folder / "demo" / "zoo"), *small]) == 0
    short = ["--steps", "10", "--permutations", "8", "--device", "cpu"]
    assert main(["train", str(folder / "demo" / "zoo"), "--out", str(folder / "demo" / "metamodel"), *short]) == 0
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page: Path, demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)
    names = {"__name__": "__main__"}  # a page is read from top to bottom: later blocks use what earlier ones made
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), names)


def test_the_readme_shows_python(demo: Path) -> None:
    assert len(blocks(ROOT / "README.md", "python")) >= 2
    assert demo.exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_a_page_exists(page: Path) -> None:
    text = page.read_text()
    for verb in re.findall(
        rf"(?<!import )weightspace ((?:{'|'.join(f'{group} ' for group in GROUPS)})?[a-z]+(?:-[a-z]+)*)(?![a-z|.])",
        "\n".join(re.findall(r"`{1,3}[^`]+`{1,3}", text)),
    ):
        assert verb in VERBS, f"{page.name} names `weightspace {verb}`"
    for recipe in re.findall(r"weightspace zoo make ([a-z-]+)", text):
        assert recipe in ZOO_RECIPES or recipe in PROGRAM_RECIPES or recipe in (HEADS_RECIPE, *PAIR_RECIPES)
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name} names `make {target}`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_in_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_file_of_the_package_begins_with_its_one_sentence() -> None:
    for path in sorted((ROOT / "src" / "weightspace").rglob("*.py")):
        first = path.read_text().split("\n", 1)[0]
        assert first.startswith('"""'), f"{path} has no first sentence"


def test_the_picture_of_the_house_lists_every_file_with_its_sentence_as_it_is() -> None:
    run = subprocess.run([sys.executable, ROOT / "docs" / "list_files.py", "--check"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
