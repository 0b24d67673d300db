"""What mkdocs asks of us: pages that are made and not written, and links that lead out of docs/."""

from __future__ import annotations

import csv
import io
import json
import os
import posixpath
import re
import textwrap
from html import unescape
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import weightspace
from weightspace import project
from weightspace.cli.arguments import arguments
from weightspace.cli.dispatch import VERBS
from weightspace.cli.help import verb_help

ROOT = Path(__file__).parent.parent
TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
"""Documents beside docs/, and the pages that they become."""
TOP |= {"CHANGELOG.md": "changes.md"}
FIGURES = "Where the figures come from"
"""The heading of the last section of each page of results."""
TABLES: dict[str, str] = {}
"""The tables of pages of results as CSV, by their place in the site."""
PYTHON = {
    "Networks": ("Network", "NetworkSpec", "load_network", "network_of_module", "inspect", "permute"),
    "Zoos": ("Zoo", "make_zoo", "zoo_recipe", "import_zoo", "push", "pull"),
    "Meta-models": ("Examples", "examples", "MetaModel", "compare", "check_predictor"),
    "Backdoors": ("scan", "Detector"),
    "Origins": ("lineage",),
    "Programs": ("Program", "compile_program", "save_transformer", "run", "decompile", "certify", "scrub"),
    "Transformers": (
        "load_transformer",
        "TrainedTransformer",
        "Place",
        "read_heads",
        "label_heads",
        "to_transformer_lens",
    ),
    "Hypotheses": ("Hypothesis", "Component"),
}
"""The public names, by what they are about; errors follow."""


def on_config(config: Any) -> Any:
    """Leave out of the navigation what this checkout does not have."""
    made = set(generated())
    config["nav"] = _present(config["nav"], made)
    return config


def _present(nav: list[Any], made: set[str]) -> list[Any]:
    found = []
    for entry in nav:
        ((title, place),) = entry.items()
        if isinstance(place, list):
            found.append({title: _present(place, made)})
        elif place in made or (ROOT / "docs" / place).is_file():
            found.append(entry)
    return found


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    for place, text in generated().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links lead to pages of the site, or to the repository."""
    del config
    place = page.file.src_uri
    return boxed(linked(markdown, place, {file.src_uri for file in files}))


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Put every table of a page of results beside it as CSV; an empty corner of a table is no heading."""
    del files
    html, place = re.sub(r"<th[^>]*></th>", "<td></td>", html), page.file.src_uri
    if place not in results(config["nav"]):
        return html
    text, tables = with_csv(html, Path(place).stem)
    TABLES.update(tables)
    return text


def on_post_build(config: Any) -> None:
    """Write the tables of all pages of results."""
    for place, text in TABLES.items():
        path = Path(config["site_dir"]) / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, newline="")


def results(nav: list[Any]) -> list[str]:
    """The pages that are all tables."""
    ((_, pages),) = (entry for part in nav for entry in part.items() if entry[0] == "Results")
    return [place for page in pages for place in page.values()]


def boxed(markdown: str) -> str:
    """The last section of a page of results, which says where its figures come from, as a box."""
    head, found, text = markdown.partition(f"## {FIGURES}\n")
    if not found:
        return markdown
    return head + f'!!! quote "{FIGURES}"\n\n' + textwrap.indent(text.strip(), "    ") + "\n"


def with_csv(html: str, name: str) -> tuple[str, dict[str, str]]:
    """A page with a link below each table, and the tables as CSV by their place in the site."""
    tables: dict[str, str] = {}

    def linked_table(found: re.Match[str]) -> str:
        place = f"tables/{name}-{len(tables) + 1}.csv"
        tables[place] = csv_of(found[0])
        return f'{found[0]}\n<p class="csv"><a href="{place}" download>This table as CSV</a></p>'

    return re.sub(r"<table>.*?</table>", linked_table, html, flags=re.DOTALL), tables


def csv_of(table: str) -> str:
    """A table of HTML as CSV, its cells as plain text."""
    written = io.StringIO()
    rows = csv.writer(written)
    for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL):
        cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
        rows.writerow([unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in cells])
    return written.getvalue()


def generated() -> dict[str, str]:
    """The text of every page that is made, by its place."""
    pages = {page: (ROOT / document).read_text() for document, page in TOP.items()}
    pages["reference/python.md"] = python_page()
    pages["reference/commands.md"] = commands_page()
    pages["reference/store.md"] = store_page()
    for path in sorted((ROOT / "docs" / "tutorials").glob("*.ipynb")):
        pages[f"tutorials/{path.stem}.md"] = notebook_page(path)
    return pages


def source_of(place: str) -> str:
    """The file of the repository from which a page comes, relative to its root."""
    document = next((name for name, page in TOP.items() if page == place), None)
    if document is not None:
        return document
    if place == "reference/store.md":
        return "docs/architecture.md"
    return f"docs/{place.removesuffix('.md')}.ipynb" if place.startswith("tutorials/") else f"docs/{place}"


def linked(markdown: str, place: str, known: set[str]) -> str:
    """A page's text with links as the site has them; those that lead to other files of the repository go there."""
    folder = posixpath.dirname(source_of(place))

    def moved(link: re.Match[str]) -> str:
        target, hash_, anchor = link[1].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return link[1]
        path = posixpath.normpath(posixpath.join(folder, target))
        page = TOP.get(path, path.removeprefix("docs/").replace(".ipynb", ".md") if path.startswith("docs/") else "")
        if page in known:
            return posixpath.relpath(page, posixpath.dirname(place) or ".") + hash_ + anchor
        return project.page(path) + hash_ + anchor if (ROOT / path).exists() else link[1]

    parts = re.split(r"(^```.*?^```)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(
        part if number % 2 else re.sub(r"(?<=\]\()([^)\s]+)(?=\))", moved, part) for number, part in enumerate(parts)
    )


def python_page() -> str:
    """Every public name."""
    lines = ["# Python", "", "`import weightspace as ws` is the whole public interface.", ""]
    homes = weightspace._HOMES  # where each name is defined, which the package itself goes by
    errors = tuple(name for name in homes if name.endswith("Error"))
    for title, names in {**PYTHON, "Errors": errors}.items():
        lines += [f"## {title}", ""]
        lines += [f"::: weightspace.{homes[name]}.{name}\n" for name in names]
    return "\n".join(lines)


def commands_page() -> str:
    """The help of every verb."""
    os.environ["COLUMNS"] = "96"  # of the terminal for which help is wrapped
    lines = ["# Every command", "", "What `weightspace VERB --help` prints.", ""]
    for name, (verb, sentence) in VERBS.items():
        text = verb_help(verb, f"weightspace {name}", arguments(verb))
        lines += [f"## weightspace {name}", "", f"{sentence[0].upper()}{sentence[1:]}.", "", "```text", text, "```", ""]
    return "\n".join(lines)


def store_page() -> str:
    """What architecture.md says of the store, as a page of its own."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    section = re.search(r"^## The store, field by field\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    assert section is not None, "docs/architecture.md has no section about the store"
    return f"# The store, field by field\n{section[1]}"


def notebook_page(path: Path) -> str:
    """A notebook with what it shows, as Markdown."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [_output(output) for output in cell["outputs"]]
    place = f"docs/tutorials/{path.name}"
    return "\n\n".join([*parts, f"[This page as a notebook]({project.page(place)})"]) + "\n"


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "text/html" in data:
        return '<div class="output">' + "".join(data["text/html"]).replace("\n\n", "\n") + "</div>"
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f"```text\n{text.rstrip()}\n```"
