"""The verb that says what a bug report needs."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

from weightspace.cli.output import say, say_json

NEEDED = ("torch", "numpy", "safetensors", "scikit-learn", "lightgbm", "pyarrow")


def env(json: bool = False) -> int:
    """Say what a bug report needs: versions, machine, threads, devices and extras. No path, name or token is in it.

    Args:
        json: print JSON.

    Examples:
        weightspace env
        weightspace env --json
    """
    found = facts()
    if json:
        return say_json(found)
    width = max(map(len, found))
    return say("\n".join(f"{name:<{width}}  {value}" for name, value in found.items()))


def facts() -> dict[str, Any]:
    """Versions, machine, threads, devices and extras, by name."""
    import torch

    from weightspace import __version__
    from weightspace.files.extras import NEEDS

    cuda = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    settings = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "NO_COLOR") if name in os.environ}
    named = sorted(name for name in os.environ if name.startswith("WEIGHTSPACE_"))
    return {
        "weightspace": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        **{name: _version(name) for name in NEEDED},
        "threads of torch": torch.get_num_threads(),
        "GPUs": ", ".join(cuda) or "none",
        "extras": ", ".join(f"{name} {_version(package)}" for name, package in NEEDS.items() if _version(package)),
        "variables": ", ".join([*(f"{name}={value}" for name, value in settings.items()), *named]) or "none",
        "encoding": f"{sys.getfilesystemencoding()}, {getattr(sys.stdout, 'encoding', None)}",
        "installed": _installed(),
    }


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _installed() -> str:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        editable = "editable" in (distribution("weightspace").read_text("direct_url.json") or "")
    except PackageNotFoundError:
        return "no: it runs from its source"
    return "from a checkout, editable" if editable else "as a package"
