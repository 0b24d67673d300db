"""Runs the notebooks of docs/tutorials and keeps what they show: `make notebooks`."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TUTORIALS = Path(__file__).parent / "tutorials"


def run(path: Path) -> None:
    """Run one notebook in an empty folder, and write it back with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(
            notebook, timeout=1_800, kernel_name="python3", resources=resources, coalesce_streams=True
        )
        client.execute()
    for cell in notebook.cells:
        cell.metadata.clear()  # times of this run
    notebook.metadata["language_info"] = {"name": "python"}  # not this machine's version
    nbformat.write(notebook, path)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    wanted = sys.argv[1:]
    for path in sorted(TUTORIALS.glob("*.ipynb")):
        if not wanted or re.search("|".join(map(re.escape, wanted)), path.stem):
            print(path.name)
            run(path)
