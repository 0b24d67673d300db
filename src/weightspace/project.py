"""Where the project lives: the one place that says it, for the package's metadata, its links and its SARIF."""

from __future__ import annotations

import re

REPOSITORY = "https://github.com/OWNER/weightspace"
"""To be replaced where the project is published."""


def urls() -> dict[str, str]:
    """The addresses that the package's metadata name."""
    return {
        "Homepage": REPOSITORY,
        "Documentation": f"{REPOSITORY}/tree/main/docs",
        "Changelog": page("CHANGELOG.md"),
        "Issues": f"{REPOSITORY}/issues",
    }


def page(path: str) -> str:
    """The address of a file of the repository."""
    return f"{REPOSITORY}/blob/main/{path}"


def absolute(markdown: str) -> str:
    """A document with every relative link as an absolute one, so that it reads away from the repository too."""
    return re.sub(r"(?<=\]\()(?!https?:|#|mailto:)([^)\s]+)(?=\))", lambda link: page(link[1]), markdown)
