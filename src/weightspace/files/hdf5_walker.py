"""What the child process of `hdf5_child` runs: HDF5 files walked, a question for each line of the input."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from weightspace.files.keras import walk
from weightspace.files.kinds import open_regular


def main() -> None:
    """Do what each line says, and answer with an empty line; errors are for whoever reads the file afterwards.

    A file that had to be unpacked stays open for the next question, or each of its arrays would unpack it again.
    """
    opened: dict[tuple[str, int, int, int], BinaryIO] = {}
    for line in sys.stdin.buffer:
        path, zipped, name = json.loads(line)
        with suppress(Exception):
            state = os.stat(path)  # noqa: PTH116 - as text, like the key
            key = (path, state.st_ino, state.st_size, state.st_mtime_ns)
            file = opened.pop(key, None) or open_regular(Path(path))
            while opened:
                opened.popitem()[1].close()
            if walk(Path(path), file, zipped, name):
                opened[key] = file
            else:
                file.close()
        sys.stdout.write("\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
