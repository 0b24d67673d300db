"""What the child process of `hdf5_child` runs: HDF5 files walked, one for each line of the input."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

from weightspace.files.keras import walk


def main() -> None:
    """Read what each line says, and answer with an empty line; errors are for whoever reads the file afterwards."""
    for line in sys.stdin.buffer:
        path, kind, name = json.loads(line)
        with suppress(Exception):
            walk(Path(path), kind, name)
        sys.stdout.write("\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
