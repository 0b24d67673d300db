"""The site as it is built: no broken link, tables beside their pages, and every page usable by everybody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import chromium

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site."""
    pytest.importorskip("mkdocs", reason="the site needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_builds_without_a_broken_link(built: Path) -> None:
    assert "to_transformer_lens" in (built / "reference" / "python.html").read_text()
    assert (built / "tables" / "heads-1.csv").read_text().startswith("behaviour,")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_every_page_of_the_site_is_usable_by_everybody(
    built: Path, browser: chromium.Windows, width: int, scheme: str
) -> None:
    pages = [path for path in sorted(built.rglob("*.html")) if path.name != "404.html"]
    assert len(pages) > 25
    for path in pages:
        page = browser.open(path, width=width, scheme=scheme)
        assert (path.name, chromium.violations(page)) == (path.name, [])
        assert (path.name, chromium.overflow(page)) == (path.name, 0)
