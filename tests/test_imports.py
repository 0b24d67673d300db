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


def test_a_compiled_program_is_decompiled_without_torch(tmp_path: Path) -> None:
    file = tmp_path / "hist.safetensors"
    verbs = f"main(['rasp', 'compile', 'examples/hist.rasp', '--out', {str(file)!r}]); "
    modules = loaded(
        f"import os; os.chdir({str(SOURCE.parent)!r}); from weightspace.cli import main; {verbs}"
        f"assert main(['decompile', {str(file)!r}]) == 0"
    )
    assert "weightspace.decompiler.decompile" in modules
    assert "torch" not in modules


def test_a_scan_loads_no_baseline_no_zoo_engine_and_no_experiment() -> None:
    example = SOURCE / "weightspace" / "pretrained" / "example-clean.safetensors"
    modules = loaded(f"from weightspace.cli import main; assert main(['scan', {str(example)!r}]) == 0")
    assert "weightspace.backdoors.detector" in modules
    unwanted = ("weightspace.metamodels.baselines", "weightspace.zoo.engine", "weightspace.experiments")
    assert not [name for name in modules if name.startswith(unwanted)]
