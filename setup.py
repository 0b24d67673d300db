"""What pyproject.toml cannot say: the README with absolute links, and addresses that stand in one place."""

import runpy
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
project = runpy.run_path(str(HERE / "src" / "weightspace" / "project.py"))
setup(
    long_description=project["absolute"]((HERE / "README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
    project_urls=project["urls"](),
)
