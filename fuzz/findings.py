"""Findings on disk: the files that led to a fault, and what it was; `fuzz/regressions` keeps those that were mended."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from pathlib import Path

from fuzz.canary import Canary
from fuzz.case import Case, Odd
from fuzz.trial import Fault, Trial, attempt

EXAMPLES = 3
"""Cases that are kept of one fault."""
MINIMISING = 2.0
"""Seconds for making a file smaller that shows the same fault."""
RECORD = "finding.json"


def signature(case: Case, fault: Fault) -> str:
    """What makes two findings one: the format, the kind, and the text without its particulars."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|b'.*|0x[0-9a-f]+|\d+", "_", fault.text)
    return f"{case.format}: {fault.kind}: {text[:80]}"


def keep(case: Case, faults: list[Fault], folder: Path) -> Path:
    """Write a case with what was wrong; its files lie below `files`.

    Seed and number make the files again as long as the mutations stay as they are.
    """
    place = folder / f"{case.format}-{case.seed}-{case.number}"
    files = place / "files"
    files.mkdir(parents=True, exist_ok=True)
    for name, content in case.files.items():
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_bytes(content)
    record = {
        "format": case.format,
        "main": case.main,
        "seed": case.seed,
        "number": case.number,
        "told": list(case.told),
        "odds": {name: [odd.kind, odd.target, odd.start.hex()] for name, odd in case.odds.items()},
        "faults": [[fault.kind, fault.text] for fault in faults],
    }
    (place / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    return place


def kept(place: Path) -> Case:
    """A case as `keep` wrote it."""
    record = json.loads((place / RECORD).read_text())
    files = place / "files"
    return Case(
        record["format"],
        record["main"],
        {str(path.relative_to(files)): path.read_bytes() for path in sorted(files.rglob("*")) if path.is_file()},
        {name: Odd(kind, target, bytes.fromhex(start)) for name, (kind, target, start) in record["odds"].items()},
        tuple(record["told"]),
        record["seed"],
        record["number"],
    )


def smaller(case: Case, trial: Trial, folder: Path, canary: Canary, seconds: float = MINIMISING) -> Case:
    """The case with as much of its main file cut out as leaves a fault of the same signature, within the time."""
    content, wanted = case.files.get(case.main), signature(case, trial.faults[0])
    if content is None or trial.seconds > 0.5 or trial.faults[0].kind in ("stuck", "slow", "memory", "crash"):
        return case
    end, step = time.monotonic() + seconds, max(1, len(content) // 2)
    while step >= 1 and time.monotonic() < end:
        place = 0
        while place < len(content) and time.monotonic() < end:
            shorter = content[:place] + content[place + step :]
            tried = _with(case, shorter)
            if any(signature(tried, fault) == wanted for fault in attempt(tried, folder, canary).faults):
                content = shorter
            else:
                place += step
        step //= 2
    return _with(case, content)


def _with(case: Case, content: bytes) -> Case:
    files = {**case.files, case.main: content}
    return Case(case.format, case.main, files, case.odds, case.told, case.seed, case.number)


def replay(folder: Path, work: Path, canary: Canary) -> Counter[str]:
    """Every finding below a folder tried anew: how many show a fault still, by its signature."""
    found: Counter[str] = Counter()
    for record in sorted(folder.rglob(RECORD)):
        case = kept(record.parent)
        for fault in attempt(case, work, canary).faults:
            found[f"{record.parent.name}: {fault.kind}: {fault.text}"] += 1
    return found
