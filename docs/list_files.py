"""Writes the list of files in docs/architecture.md from the first line of every module: `make docs`."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- files: written by docs/list_files.py -->\n", "<!-- end of files -->"


def sentence(path: Path) -> str:
    """The first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]


def listing() -> str:
    """Every package with its sentence, and below it a table of its files with theirs."""
    package = ROOT / "src" / "weightspace"
    lines = []
    for folder in [package, *sorted(path for path in package.rglob("*") if (path / "__init__.py").exists())]:
        name = "weightspace" if folder == package else str(folder.relative_to(package))
        lines += ["", f"**`{name}/`** {sentence(folder / '__init__.py')}", "", "| file | what it is |", "|---|---|"]
        files = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
        lines += [f"| `{path.name}` | {sentence(path).replace('|', '/')} |" for path in files]
    return "\n".join(lines[1:]) + "\n"


def written() -> str:
    """The page with its list made anew."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    return f"{head}{BEGIN}\n{listing()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    if "--check" in sys.argv and written() != PAGE.read_text():
        sys.exit("docs/architecture.md does not list the files as they are: run `make docs`")
    PAGE.write_text(written())
