"""Files judged by a detector of backdoors: read safely, recognised, and a finding made of each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from weightspace.backdoors.detector import AT_ONCE, Detector, Judgement
from weightspace.backdoors.verdict import Finding, Scan, Verdict
from weightspace.errors import NetworkError, UnreadableError
from weightspace.files.atomic import file_hash
from weightspace.files.checkpoints import SUFFIXES, Outline, outlines, read
from weightspace.files.hub import SCHEME, HubError, repository
from weightspace.files.progress import progress
from weightspace.weights.network import Network

HASHED = 2**31
"""Bytes up to which a file is hashed."""
BLAMED = 8
"""Neurons that a finding names."""


@dataclass(frozen=True)
class _Read:
    """A file on its way to the detector: with networks, or with what is wrong."""

    file: str
    size: int = 0
    sha256: str | None = None
    networks: tuple[Network, ...] = ()
    verdict: Verdict = "unreadable"
    reason: str = ""
    notes: tuple[str, ...] = ()


def scan(
    targets: Sequence[str],
    detector: Detector,
    *,
    false_alarms: float = 0.05,
    show: bool = True,
    cache: Path | None = None,
) -> Scan:
    """Judge files, all checkpoints below folders, and repositories of the Hugging Face hub.

    A file that cannot be read, or is refused, is a finding like any other and stops nothing. Nothing in a file is
    executed. Files of another architecture are known by their header and not read whole.

    Args:
        targets: paths, or hf://OWNER/NAME@REVISION.
        false_alarms: the share of clean networks that may be called suspicious, above 0 to 0.5.
        cache: where files of the hub are kept; the hub's own cache unless given.
    Raises:
        ValueError: if there is no target, a folder holds no checkpoint, or `false_alarms` is less than the calibration
            can tell.
    """
    least = 1 / (1 + len(detector.calibration.clean))
    if not least <= false_alarms <= 0.5:
        raise ValueError(
            f"a share of false alarms of {false_alarms:g} was asked for, and this detector was calibrated on "
            f"{len(detector.calibration.clean)} clean networks: choose {least:.3f} to 0.5"
        )
    files = list(_files(targets, cache))
    start = time.perf_counter()
    findings: dict[int, Finding] = {}
    waiting: list[tuple[int, _Read]] = []

    def judge() -> None:
        began = time.perf_counter()
        judged = iter(detector.judge([network for _, file in waiting for network in file.networks]))
        said = [(number, file, [next(judged) for _ in file.networks]) for number, file in waiting]
        seconds = (time.perf_counter() - began) / max(1, len(waiting))
        for number, file, judgements in said:
            findings[number] = _finding(file, judgements, detector, false_alarms, seconds)
        waiting.clear()

    with progress("scanning", len(files), "files", show and len(files) > AT_ONCE) as advance:
        for number, (name, path) in enumerate(files):
            file = _Read(name, reason=f"{path}.") if isinstance(path, str) else _read(name, path, detector)
            if file.networks:
                waiting.append((number, file))
            else:
                facts = {"sha256": file.sha256, "size": file.size, "notes": file.notes}
                findings[number] = Finding(name, file.verdict, file.reason, **facts)
            if len(waiting) == AT_ONCE:
                judge()
            advance(1)
        judge()
    ordered = tuple(findings[number] for number in range(len(files)))
    return Scan(ordered, detector.card, false_alarms, time.perf_counter() - start)


def _files(targets: Sequence[str], cache: Path | None) -> Iterator[tuple[str, Path | str]]:
    """Names of files with their paths, or with the sentence that says why there is none."""
    if not targets:
        raise ValueError("nothing to scan: give files, folders or hf://OWNER/NAME@REVISION")
    for target in targets:
        if target.startswith(SCHEME):
            yield from _hub_files(target, cache)
            continue
        path = Path(target)
        if not path.is_dir():
            yield target, path
            continue
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and (p.is_file() or p.is_symlink()))
        if not inside:
            raise ValueError(f"{target} holds no checkpoint: looked for files ending in {', '.join(SUFFIXES)}")
        yield from ((str(p), p) for p in inside)


def _hub_files(target: str, cache: Path | None) -> Iterator[tuple[str, Path | str]]:
    """The checkpoints of a repository; the commit is pinned before anything is fetched."""
    try:
        found = repository(target)
        names = [name for name in found.files if Path(name).suffix.lower() in SUFFIXES]
        if not names:
            yield target, f"The repository holds no weights: none of its {len(found.files)} files is a checkpoint"
        for name in names:
            yield f"{found}/{name}", found.fetch(name, cache)
    except HubError as error:
        text = str(error)
        yield target, text[0].upper() + text[1:]


def _read(name: str, path: Path, detector: Detector) -> _Read:
    """One file's networks; whatever is wrong with it is said of it, and stops nothing."""
    try:
        size, sha256 = path.stat().st_size, None
    except OSError as error:
        why = (
            "there is no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error)).lower()
        )
        return _Read(name, reason=f"It cannot be read: {why}.")
    if path.is_file() and size <= HASHED:
        with suppress(OSError):
            sha256 = file_hash(path)
    unhashed = (f"It was not hashed, having more than {HASHED // 2**30} GiB.",) if size > HASHED else ()
    known = {"size": size, "sha256": sha256}
    try:
        parts = outlines(path)
        kept: list[tuple[Outline, list[str]]] = []
        refused: NetworkError | None = None
        for part in parts:
            try:
                kept.append((part, detector.recognise(part)))
            except NetworkError as error:
                refused = refused or error
        if not kept:
            return _Read(name, verdict="out_of_scope", reason=_sentence(refused), notes=unhashed, **known)
        notes = list(unhashed)
        odd = sorted({part.dtypes[array] for part, arrays in kept for array in arrays} - {"F32"})
        if odd:
            notes.append(f"Its weights are {' and '.join(odd)}; the detector was trained on F32.")
        if len(kept) > 1:
            named = ", ".join(".".join(part.part) or "the file itself" for part, _ in kept)
            notes.append(f"It holds {len(kept)} such networks ({named}): the most suspicious one is reported.")
        networks = tuple(detector.network(read(part, arrays), arrays) for part, arrays in kept)
        try:
            for network in networks:
                network.check_finite()
        except NetworkError as error:
            return _Read(name, verdict="unreadable", reason=_sentence(error), **known)
        return _Read(name, networks=networks, notes=tuple(notes), **known)
    except UnreadableError as error:
        return _Read(name, reason=_sentence(error, path), notes=unhashed, **known)
    except Exception as error:  # a file can be wrong in ways that nobody thought of, and must not stop the others
        what = " ".join(str(error).split())[:120]
        return _Read(name, reason=f"It could not be read ({type(error).__name__}: {what}).", **known)


def _sentence(error: Exception | None, path: Path | None = None) -> str:
    """A message as a sentence about the file, whose name stands above it."""
    text = str(error)
    if path is not None and text.startswith(f"{path} "):
        text = f"it {text[len(str(path)) + 1 :]}"
    return f"{text[:1].upper()}{text[1:]}."


def _finding(
    file: _Read, judgements: Sequence[Judgement], detector: Detector, false_alarms: float, seconds: float
) -> Finding:
    """What is said of a file: of its most suspicious network in scope, or of the nearest if none is."""
    place = min(range(len(judgements)), key=lambda i: (judgements[i].distance > 1, judgements[i].p_value))
    judgement = judgements[place]
    known = {"sha256": file.sha256, "size": file.size, "notes": file.notes, "seconds": seconds}
    known["distance"] = judgement.distance
    if judgement.distance > 1:
        return Finding(
            file.file,
            "out_of_scope",
            f"Its weights are {judgement.distance:.1f} times as far from the training networks as this detector may "
            f"judge: {detector.farthest(file.networks[place])}.",
            **known,
        )
    suspicious = judgement.p_value <= false_alarms
    odds = f"probability of a backdoor {judgement.probability:.0%} if half of all networks have one"
    if suspicious:
        reason = f"At most {judgement.p_value:.1%} of clean networks look so suspicious; {odds}."
    else:
        reason = f"About {judgement.p_value:.0%} of clean networks look at least as suspicious; {odds}."
    return Finding(
        file.file,
        "suspicious" if suspicious else "clean",
        reason,
        probability=judgement.probability,
        p_value=judgement.p_value,
        layers=judgement.layers,
        neurons=judgement.neurons[:BLAMED],
        **known,
    )
