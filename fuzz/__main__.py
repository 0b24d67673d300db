"""Fuzz the reader of checkpoints: `python -m fuzz --seconds 3600 --workers 2`, or try findings anew with --replay."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from fuzz.campaign import run, table
from fuzz.canary import Canary
from fuzz.case import FORMATS
from fuzz.findings import replay
from fuzz.worker import warm


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long")
    parser.add_argument("--count", type=int, help="cases of each format, instead of going on until the time is over")
    parser.add_argument("--seed", type=int, default=0, help="what is drawn; the same seed makes the same files")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    parser.add_argument("--only", default=",".join(FORMATS), help="formats, with commas between them")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"), help="folder of findings; a run is resumed")
    parser.add_argument("--replay", type=Path, help="try the findings below this folder anew, and nothing else")
    return parser.parse_args()


def main() -> int:
    """1 where there is a finding, else 0."""
    given = _arguments()
    formats = tuple(given.only.split(","))
    if unknown := sorted(set(formats) - set(FORMATS)):
        sys.exit(f"no format is named {', '.join(unknown)}: choose from {', '.join(FORMATS)}")
    if given.replay is not None:
        place = given.replay.resolve()
        with tempfile.TemporaryDirectory() as cage:
            os.chdir(cage)
            canary = Canary()  # it lays its baits where it is made
            warm(FORMATS, Path("files"), canary)
            found = replay(place, Path("files"), canary)
        print("\n".join(found) or "no finding")
        return int(bool(found))

    def tell(line: str) -> None:
        print(line, flush=True)

    state = run(
        given.out,
        seconds=given.seconds,
        seed=given.seed,
        workers=given.workers,
        formats=formats,
        count=given.count,
        tell=tell,
    )
    print(table(state))
    return int(any(tally.faults for tally in state.tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
