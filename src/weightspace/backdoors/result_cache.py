"""What a detector has said of a file before, kept by the hashes of both, so that the file need not be read again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from weightspace import __version__
from weightspace.backdoors.detector import Detector, Judgement
from weightspace.backdoors.general_detector import GeneralDetector
from weightspace.backdoors.verdict import Blame

FORMAT = 2
LARGEST = 2**24
"""Bytes of the largest entry that is read."""


@dataclass(frozen=True)
class Kept:
    """What does not depend on how a scan was asked for: the share of false alarms is applied afterwards.

    Attributes:
        judgements: of each network in the file that the detector knows, in its order.
        farthest: of each, the array that is farthest from the training networks, in words; empty of one in scope.
        reason, cause: why the file is out of scope, if there is no judgement.
        notes: what else a reader must know.
        general: whether it was the general detector that judged.
    """

    judgements: tuple[Judgement, ...] = ()
    farthest: tuple[str, ...] = ()
    reason: str = ""
    cause: str = ""
    notes: tuple[str, ...] = ()
    general: bool = False


class ResultCache:
    """A folder of such results, one JSON file each. An entry that is damaged counts as missing.

    Whoever can write into the folder can change what a scan says: it has to be as safe as the detector itself.

    Args:
        folder: made if need be.
        detector, general: by which files are judged.
    Attributes:
        failed: why an entry could not be written, once one could not.
    """

    def __init__(self, folder: Path, detector: Detector, general: GeneralDetector | None = None) -> None:
        self.folder, self.failed = folder, ""
        self._detector = [detector_hash(detector), "" if general is None else general.digest()]

    def key(self, name: str, hashes: Sequence[str]) -> str:
        """What a file is known by: the hashes of all that is read for it, the end of its name, detector and version."""
        facts = [FORMAT, __version__, *self._detector, Path(name).suffix.lower(), *hashes]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def get(self, key: str) -> Kept | None:
        """What is kept under a key, or None."""
        try:
            path = self._path(key)
            if not path.is_file() or path.stat().st_size > LARGEST:
                return None
            entry = json.loads(path.read_bytes())
            if entry["checksum"] != _checksum(key, entry["kept"]):
                return None
            return _kept(entry["kept"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def put(self, key: str, kept: Kept) -> None:
        """Keep a result; if that fails, `failed` says why, and nothing else happens.

        The file appears whole or not at all, but is not forced to the disk: what a crash tears is seen by its checksum.
        """
        record = json.loads(json.dumps(asdict(kept)))
        path = self._path(key)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(json.dumps({"checksum": _checksum(key, record), "kept": record}).encode())
            temporary.replace(path)
        except OSError as error:
            self.failed = (error.strerror or str(error)).lower()
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def detector_hash(detector: Detector) -> str:
    """A hash of everything by which a detector judges: weights, how they are read, calibration and scope."""
    digest = hashlib.sha256()
    model = detector.model
    for name, tensor in sorted(model.model.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(array.shape)} {array.dtype}".encode())
        digest.update(array.float().numpy().tobytes())
    facts = {
        "config": {name: value for name, value in asdict(model.config).items() if name != "training"},
        "specs": [spec.to_json() for spec in model.specs],
        "normaliser": model.normaliser.to_json(),
        "scales": [list(scale) for scale in model.answering.scales],
        "calibration": detector.calibration.to_json(),
        "scope": detector.scope.to_json(),
    }
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _checksum(key: str, record: Any) -> str:
    return hashlib.sha256(f"{key}\n{json.dumps(record, sort_keys=True)}".encode()).hexdigest()


def _kept(record: dict[str, Any]) -> Kept:
    judgements = [
        Judgement(
            *(float(one[name]) for name in ("score", "probability", "p_value", "distance")),
            layers=tuple(Blame(str(b["name"]), float(b["share"])) for b in one["layers"]),
            neurons=tuple(Blame(str(b["name"]), float(b["share"])) for b in one["neurons"]),
            near=str(one["near"]),
            competent=bool(one["competent"]),
        )
        for one in record["judgements"]
    ]
    texts = (tuple(map(str, record["farthest"])), str(record["reason"]), str(record["cause"]))
    return Kept(tuple(judgements), *texts, notes=tuple(map(str, record["notes"])), general=bool(record["general"]))
