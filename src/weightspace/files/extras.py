"""How a missing extra is installed, where this package came from: an index, a checkout, or a file."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

import weightspace

NEEDS = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow-skinny",
    "tables": "pandas",
    "lens": "transformer-lens",
    "gguf": "gguf",
    "keras": "h5py",
    "hub": "huggingface-hub",
    "ray": "ray",
}
"""The library that each extra brings."""


def install_command(extra: str) -> str:
    """The command that installs an extra beside this very package, such as `pip install -e '/here/weightspace[hub]'`.

    An index is only named where the running package came from one: elsewhere there may be none, or somebody else's
    package of this name.
    """
    try:
        found = distribution("weightspace")
    except PackageNotFoundError:
        return _local(extra)
    if found.read_text("RECORD") is None:  # the metadata of a checkout that is on the path
        return _local(extra)
    return _from_origin(found.read_text("direct_url.json"), extra)


def _from_origin(text: str | None, extra: str) -> str:
    """By what the installer wrote down (PEP 610); it writes nothing of what came from an index."""
    if text is None:
        return f"pip install 'weightspace[{extra}]'"
    origin = json.loads(text)
    url = origin["url"]
    if "dir_info" in origin:
        editable = "-e " if origin["dir_info"].get("editable") else ""
        return f"pip install {editable}'{unquote(urlsplit(url).path)}[{extra}]'"
    if "vcs_info" in origin:
        source = origin["vcs_info"]
        url = f"{source['vcs']}+{url}@{source['commit_id']}"
    return f"pip install 'weightspace[{extra}] @ {url}'"


def _local(extra: str) -> str:
    """From the checkout that the package lies in, or the library alone."""
    checkout = Path(weightspace.__file__).parents[2]
    if (checkout / "pyproject.toml").is_file():
        return f"pip install -e '{checkout}[{extra}]'"
    return f"pip install {NEEDS[extra]}"
