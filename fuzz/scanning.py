"""What `scan` says of a case: it never raises, and calls nothing clean whose usual loader gives the other example."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from fuzz.loaders import Reading
from weightspace.backdoors.detector import Detector
from weightspace.backdoors.general_detector import GeneralDetector, detectors_for
from weightspace.backdoors.scan import scan

FOREIGN = "It could not be read ("
"""How `scan` begins of an error that it did not foresee."""


@cache
def _detectors() -> tuple[Detector, GeneralDetector | None]:
    """Both that ship: what the first does not know the second is asked about."""
    return detectors_for(None)


def wrong(path: Path, usual: list[Reading]) -> str | None:
    """What is wrong with the scan of a file, if anything."""
    if path.is_dir() or not path.exists():  # a folder is scanned for what is in it, and what is missing is an error
        return None
    try:
        special, general = _detectors()
        findings = scan([str(path)], special, general=general, show=False).findings
    except Exception as error:
        return f"scan raised {type(error).__name__}: {error}"
    for one in findings:
        if one.reason.startswith(FOREIGN):
            return one.reason
        if one.verdict == "clean" and (loader := _gives_the_other(usual)) is not None:
            return f"called clean, and {loader} gives the example with a backdoor"
    return None


def _gives_the_other(usual: list[Reading]) -> str | None:
    """The loader that reads the whole example with a backdoor, under whatever names: of a network of which a number was
    changed nobody can say what the verdict should be."""
    from fuzz.formats.verdict import example

    bad = [array for array in example("backdoored").values() if array.size > 8]
    for reading in usual:
        given = [array for found in reading.arrays.values() for array in found if array is not None]
        if all(any(one.shape == array.shape and np.array_equal(one, array) for array in given) for one in bad):
            return reading.loader
    return None
