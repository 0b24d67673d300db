"""What is published: a wheel that holds all it needs and little more, a source distribution that is whole, and words
about installing that fit where the package came from."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

from weightspace import __version__, project
from weightspace.backdoors.detector import Detector
from weightspace.backdoors.page import RULES, sarif
from weightspace.backdoors.scan import scan
from weightspace.files import extras
from weightspace.files.extras import NEEDS, install_command

ROOT = Path(__file__).parent.parent
LISTED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel and a source distribution, made offline from a copy of what git knows."""
    folder = tmp_path_factory.mktemp("built")
    for name in filter(None, LISTED):
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    for kind in ("sdist", "wheel"):
        code = f"from setuptools import build_meta; build_meta.build_{kind}({str(folder)!r})"
        done = subprocess.run([sys.executable, "-c", code], cwd=folder / "source", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_wheel_is_small_and_holds_every_file_of_the_package(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.stat().st_size < 15 * 2**20
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = Parser().parsestr(archive.read(f"weightspace-{__version__}.dist-info/METADATA").decode())
    wanted = {name.removeprefix("src/") for name in LISTED if name.startswith("src/weightspace/")}
    assert wanted and not wanted - names, "files that are not packed"
    assert not [name for name in names if not name.startswith(("weightspace/", "weightspace-"))]
    assert metadata["Version"] == __version__
    assert {line.split(", ")[0] for line in metadata.get_all("Project-URL") or ()} == set(project.urls())
    links = re.findall(r"\]\(([^)]+)\)", str(metadata.get_payload()))
    assert len(links) > 10 and all(link.startswith("https://") for link in links)


@pytest.mark.slow
def test_the_source_distribution_is_whole(built: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert not {name for name in LISTED if name} - names - {name for name in LISTED if name.startswith("CHANGES-")}


@pytest.mark.slow
def test_the_wheel_shows_the_quick_demo_away_from_the_checkout(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    words = [sys.executable, "-m", "weightspace", "demo", "--quick", "--out", "demo"]
    environment = {"PYTHONPATH": str(tmp_path / "installed"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "certified" in done.stdout and (tmp_path / "demo" / "index.html").exists()


def test_the_version_is_one() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["version"] == __version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    assert re.search(rf"^## {re.escape(__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_address_of_the_project_stands_in_one_file_of_the_package() -> None:
    owner = project.REPOSITORY.removeprefix("https://")
    found = [path.name for path in (ROOT / "src").rglob("*.py") if owner in path.read_text()]
    assert found == ["project.py"]
    for name in ("CITATION.cff", "docs/scan-in-ci.md"):
        assert project.REPOSITORY in (ROOT / name).read_text(), f"{name} names another address"


def test_relative_links_become_absolute_and_others_stay() -> None:
    text = "[a](docs/x.md) [b](https://e.org/y) [c](#d)"
    assert project.absolute(text) == f"[a]({project.page('docs/x.md')}) [b](https://e.org/y) [c](#d)"


@pytest.mark.parametrize(
    "path", [*(ROOT / ".github").rglob("*.yml"), ROOT / "action.yml", ROOT / ".pre-commit-hooks.yaml"], ids=str
)
def test_every_workflow_can_be_read_and_calls_verbs_that_exist(path: Path) -> None:
    from weightspace.cli.dispatch import VERBS

    text = path.read_text()
    assert yaml.safe_load(text)
    for verb in re.findall(r"weightspace (scan|demo|env|[a-z]+ --help)", text):
        assert verb in VERBS


def test_the_workflow_tests_every_python_that_is_promised() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        classifiers = tomllib.load(file)["project"]["classifiers"]
    promised = re.findall(r"Python :: (3\.\d+)", " ".join(classifiers))
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert jobs["tests"]["strategy"]["matrix"]["python"] == promised
    assert jobs["tests"]["strategy"]["matrix"]["dependencies"] == ["latest", "lowest"]
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}


def test_every_extra_of_the_package_is_known_by_its_library() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        optional = tomllib.load(file)["project"]["optional-dependencies"]
    for extra, library in NEEDS.items():
        assert any(requirement.startswith(library) for requirement in optional[extra]), extra


class Installed:
    """A distribution as `importlib.metadata` gives it, by what the installer wrote down."""

    def __init__(self, **files: str) -> None:
        self.files = files

    def read_text(self, name: str) -> str | None:
        return self.files.get(name.removesuffix(".json"))


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'weightspace[hub]'"),
        ({"url": "file:///a%20b/c", "dir_info": {"editable": True}}, "pip install -e '/a b/c[hub]'"),
        ({"url": "file:///a/c", "dir_info": {}}, "pip install '/a/c[hub]'"),
        ({"url": "file:///x.whl", "archive_info": {}}, "pip install 'weightspace[hub] @ file:///x.whl'"),
        (
            {"url": "https://e.org/w", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "pip install 'weightspace[hub] @ git+https://e.org/w@abc'",
        ),
    ],
)
def test_an_extra_is_installed_from_where_the_package_came_from(
    origin: dict[str, object] | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"RECORD": ""} | ({} if origin is None else {"direct_url": json.dumps(origin)})
    monkeypatch.setattr(extras, "distribution", lambda _: Installed(**files))
    assert install_command("hub") == command


def test_what_is_not_installed_names_the_checkout_or_the_library_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(extras, "distribution", lambda _: Installed())
    assert install_command("keras") == f"pip install -e '{ROOT}[keras]'"
    monkeypatch.setattr("weightspace.__file__", str(tmp_path / "a" / "weightspace" / "__init__.py"))
    assert install_command("keras") == "pip install h5py"


def test_every_rule_of_the_sarif_says_what_to_do_and_where_more_stands() -> None:
    example = Path(str(extras.weightspace.__file__)).parent / "pretrained" / "example-backdoored.safetensors"
    driver = sarif(scan([str(example)], Detector.load()))["runs"][0]["tool"]["driver"]
    assert driver["informationUri"] == project.page("docs/backdoors.md")
    assert len(driver["rules"]) == len(RULES)
    for rule in driver["rules"]:
        assert rule["help"]["text"] in rule["fullDescription"]["text"] and rule["helpUri"].startswith("https://")
