"""A module that no reader of weights may import: that it was loaded, or called, is kept and seen."""

import sys
from pathlib import Path
from typing import Any

NEST = Path("canary")
"""A file in the working folder of the cage; hostile commands of the shell make it too."""


def sing(*_: Any, **__: Any) -> Any:
    """Leave a mark that somebody called this."""
    sys.__dict__.setdefault("_weightspace_canary", []).append("called")
    NEST.touch()
    return {}


class Bird:
    """An object whose every way of being made leaves the mark."""

    def __new__(cls, *_: Any, **__: Any) -> "Bird":
        sing()
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        sing(state)


sys.__dict__.setdefault("_weightspace_canary", []).append("imported")
NEST.touch()
