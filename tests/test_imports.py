"""How files may import each other, and what starting up may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"


def imports(path: Path, known: set[str]) -> set[str]:
    """Modules of the package that a file imports anywhere in it, but for types alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & known
            found |= inside or ({node.module} & known)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
    return found


def graph() -> dict[str, set[str]]:
    paths = {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (SOURCE / "weightspace").rglob("*.py")
    }
    return {name: imports(path, set(paths)) - {name} for name, path in paths.items()}


def test_no_two_files_import_each_other_not_even_lazily_or_round_a_corner() -> None:
    TopologicalSorter(graph()).prepare()


def test_a_circle_of_imports_is_found(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.py").write_text(f"def f():\n    import {other}\n")
    circle = {name: imports(tmp_path / f"{name}.py", {"a", "b"}) for name in "ab"}
    with pytest.raises(CycleError):
        TopologicalSorter(circle).prepare()


def loaded(code: str) -> set[str]:
    """Modules in memory after `code` has run in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules))"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


@pytest.mark.parametrize("room", ["files", "rasp"])
def test_the_ground_and_the_language_load_no_torch(room: str) -> None:
    names = [name for name in graph() if name.startswith(f"weightspace.{room}")]
    assert len(names) > 5
    assert "torch" not in loaded("\n".join(f"import {name}" for name in names))
