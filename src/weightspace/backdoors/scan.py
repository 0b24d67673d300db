"""Files judged by a detector of backdoors: a finding made of each, and all others of a folder accounted for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weightspace.backdoors.detector import AT_ONCE, Detector, Judgement
from weightspace.backdoors.general_detector import GeneralDetector
from weightspace.backdoors.reading import ANOTHER, Known, Passed, Reader, Waiting
from weightspace.backdoors.result_cache import Kept, ResultCache
from weightspace.backdoors.targets import INDEX_NAME, LEFT_OUT, Choice, Entry, entries_of
from weightspace.backdoors.verdict import FAILING, Finding, Scan, Verdict
from weightspace.files.hub import SCHEME
from weightspace.files.progress import progress
from weightspace.weights.network import Network

BLAMED = 8
"""Neurons that a finding names."""
FAR = "whose weights are too far from those that the detector was trained on"
UNTOLD = "of a kind of which the general detector knows too little"
UNLIKE = "that are unlike the networks which the general detector was made with"


def scan(
    targets: Sequence[str],
    detector: Detector,
    *,
    general: GeneralDetector | None = None,
    false_alarms: float = 0.05,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    allowed: frozenset[str] = frozenset(),
    results: Path | None = None,
    failing: Sequence[Verdict] = FAILING,
    show: bool = True,
    cache: Path | None = None,
) -> Scan:
    """Judge files, all checkpoints below folders, and repositories of the Hugging Face hub.

    Which files of a folder are checkpoints their content says, whatever they are called; each of the others is counted
    by its kind, or named if it could hold anything. A file that cannot be read, or is refused, is a finding like any
    other and stops nothing. Nothing in a file is executed. Files of another architecture are known by their header and
    not read whole. A model in several files with an index is one finding, by the name of its index.

    Args:
        targets: paths, or hf://OWNER/NAME@REVISION.
        general: judges networks of other architectures, and those that are too far from the detector's.
        false_alarms: the share of clean networks that may be called suspicious, above 0 to 0.5.
        include, exclude: globs that choose among the files of folders and repositories; see `targets.Choice`.
        allowed: SHA-256 hashes of files that are not judged.
        results: folder in which results are kept by the hashes of file and detector, and from which they are taken.
        failing: verdicts that give an exit status other than 0.
        cache: where files of the hub are kept; the hub's own cache unless given.
    Raises:
        UnreadableError: if a target is missing, or is on the hub and the hub's library is not installed.
        ValueError: if there is no target, a folder holds no checkpoint, or `false_alarms` is less than the calibration
            can tell.
    """
    least = 1 / (1 + len(detector.calibration.clean))
    if not least <= false_alarms <= 0.5:
        which = "this detector" if general is None else f"the detector of {detector.card['architecture']}"
        raise ValueError(
            f"a share of false alarms of {false_alarms:g} was asked for, and {which} was calibrated on "
            f"{len(detector.calibration.clean)} clean networks: choose {least:.3f} to 0.5"
        )
    start = time.perf_counter()
    entries = list(entries_of(targets, Choice(tuple(include), tuple(exclude)), cache))
    kept = None if results is None else ResultCache(results, detector, general)
    scanner = _Scanner(Reader(detector, allowed, kept, general=general), false_alarms)
    # An index first, so that the shards that it speaks for are known before they are looked at
    order = sorted(range(len(entries)), key=lambda number: not entries[number].name.endswith(INDEX_NAME))
    with progress("scanning", len(entries), "files", show and len(entries) > AT_ONCE) as advance:
        for number in order:
            scanner.look(number, entries[number])
            advance(1)
        scanner.judge()
    scanner.check_targets(targets, entries)
    left_out = scanner.passed.pop(LEFT_OUT, 0)
    notes = (f"Results could not be kept in {results}: {kept.failed}.",) if kept is not None and kept.failed else ()
    findings = tuple(scanner.findings[number] for number in sorted(scanner.findings))
    seconds = time.perf_counter() - start
    clean = tuple(detector.calibration.clean.tolist())
    passed, failed = dict(scanner.passed), tuple(failing)
    cards = (detector.card, {} if general is None else general.card)
    return Scan(findings, cards[0], false_alarms, seconds, passed, left_out, failed, notes, clean, cards[1])


class _Scanner:
    """A scan in progress.

    Attributes:
        findings: by the number of the entry.
        passed: how many files are counted and not named, by kind.
    """

    def __init__(self, reader: Reader, false_alarms: float) -> None:
        self.reader, self.false_alarms = reader, false_alarms
        self.findings: dict[int, Finding] = {}
        self.passed: Counter[str] = Counter()
        self._waiting: dict[int, Waiting] = {}

    def look(self, number: int, entry: Entry) -> None:
        """Look at a file; if it has networks they are judged later, with others."""
        if entry.passed:
            self.passed[entry.passed] += 1
            return
        if entry.path is None:
            verdict = entry.verdict or "unreadable"
            self.findings[number] = Finding(entry.name, verdict, entry.reason, entry.cause, notes=entry.notes)
            return
        found = self.reader.look(entry, entry.path)
        if isinstance(found, Finding):
            self.findings[number] = found
        elif isinstance(found, Passed):
            if found.kind:
                self.passed[found.kind] += 1
        elif isinstance(found, Known):
            self.findings[number] = finding_of(found.facts, found.kept, self.false_alarms)
        else:
            self._waiting[number] = found
            if len(self._waiting) == AT_ONCE:
                self.judge()

    def judge(self) -> None:
        """Judge the networks of all files that wait for it."""
        began = time.perf_counter()
        said = self._judged()
        seconds = (time.perf_counter() - began) / max(1, len(said))
        for number, kept in said.items():
            file = self._waiting[number]
            if self.reader.results is not None and file.key is not None:
                self.reader.results.put(file.key, kept)
            self.findings[number] = finding_of(file.facts, kept, self.false_alarms, seconds)
        self._waiting.clear()

    def _judged(self) -> dict[int, Kept]:
        """What is said of each file that waits: by the detector of its architecture, and by the general one of others
        and of those whose networks are all too far."""
        detector, general = self.reader.detector, self.reader.general
        own = {number: file for number, file in self._waiting.items() if not file.general}
        said = _shared_out(own, detector.judge(_networks(own)))
        found: dict[int, Kept] = {}
        for number, judgements in said.items():
            pairs = zip(own[number].networks, judgements, strict=True)
            farthest = tuple(detector.farthest(network) if one.distance > 1 else "" for network, one in pairs)
            found[number] = Kept(judgements, farthest, notes=own[number].notes)
        if general is None:
            return found
        far = {number for number, judgements in said.items() if all(one.distance > 1 for one in judgements)}
        others = {number: file for number, file in self._waiting.items() if file.general or number in far}
        for number, judgements in _shared_out(others, general.judge(_networks(others))).items():
            if number in far and all(one.distance > 1 for one in judgements):
                continue  # the detector of its own architecture says more about why
            farthest = tuple("" for _ in judgements)
            found[number] = Kept(judgements, farthest, notes=others[number].notes, general=True)
        return found

    def check_targets(self, targets: Sequence[str], entries: Sequence[Entry]) -> None:
        """That each folder and repository holds something that is told of.

        Raises:
            ValueError: if a folder holds no checkpoint.
        """
        inside = Counter(entry.target for entry in entries)
        told = {entries[n].target for n, found in self.findings.items() if found.verdict != "not_looked_at"}
        for number, target in enumerate(targets):
            if target in told:
                continue
            files = (
                f"none of its {inside[target]} files is a checkpoint" if inside[target] else "there is nothing in it"
            )
            if not target.startswith(SCHEME):
                raise ValueError(f"{target} holds no checkpoint: {files}")
            reason = f"The repository holds no weights: {files}."
            self.findings[len(entries) + number] = Finding(target, "unreadable", reason)


def _networks(files: Mapping[int, Waiting]) -> list[Network]:
    return [network for file in files.values() for network in file.networks]


def _shared_out(files: Mapping[int, Waiting], judged: Sequence[Judgement]) -> dict[int, tuple[Judgement, ...]]:
    """Judgements of `_networks`, file by file."""
    left = iter(judged)
    return {number: tuple(next(left) for _ in file.networks) for number, file in files.items()}


def finding_of(facts: dict[str, Any], kept: Kept, false_alarms: float, seconds: float = 0.0) -> Finding:
    """What is said of a file: of its most suspicious network in scope, or of the nearest if none is."""
    known = {**facts, "notes": (*facts["notes"], *kept.notes), "seconds": seconds}
    if not kept.judgements:
        return Finding(verdict="out_of_scope", reason=kept.reason, cause=kept.cause or ANOTHER, **known)
    judgements = kept.judgements
    # What is too far, or not to be told, does not stand before what is judged
    unjudged = [one.distance > 1 or not one.competent for one in judgements]
    place = min(range(len(judgements)), key=lambda i: (unjudged[i], judgements[i].p_value))
    judgement = judgements[place]
    known["distance"] = judgement.distance
    known["judged_by"] = "general" if kept.general else "special"
    if kept.general and judgement.near:
        known["notes"] = (*known["notes"], judgement.near)
    if judgement.distance > 1 and kept.general:
        reason = (
            f"It is unlike the networks that the general detector was made with: {judgement.distance:.2g} times as far "
            "from the nearest as it may judge."
        )
        return Finding(verdict="out_of_scope", reason=reason, cause=UNLIKE, **known)
    if not judgement.competent:
        reason = "The general detector hardly tells backdoored networks from others among those that are like it."
        return Finding(verdict="out_of_scope", reason=reason, cause=UNTOLD, **known)
    if judgement.distance > 1:
        reason = (
            f"Its weights are {judgement.distance:.1f} times as far from the training networks as this detector may "
            f"judge: {kept.farthest[place]}."
        )
        return Finding(verdict="out_of_scope", reason=reason, cause=FAR, **known)
    suspicious = judgement.p_value <= false_alarms
    return Finding(
        verdict="suspicious" if suspicious else "clean",
        reason=_why(judgement.p_value, judgement.probability, false_alarms, bound=not kept.general),
        probability=judgement.probability,
        p_value=judgement.p_value,
        layers=judgement.layers,
        neurons=judgement.neurons[:BLAMED],
        score=None if kept.general else judgement.score,  # the two are not on one scale
        **known,
    )


def _why(p_value: float, probability: float, false_alarms: float, bound: bool = True) -> str:
    """Why a file is suspicious or not: by the p-value; the probability is told with what it is of.

    Args:
        bound: whether the p-value bounds the share of clean networks on average, or is about it.
    """
    odds = f"Where half of all networks have a backdoor, {probability:.0%} of those with this score have one"
    if p_value <= false_alarms:
        share = f"{'At most' if bound else 'About'} {p_value:.1%}"
        return f"{share} of clean networks look so suspicious; the limit is {false_alarms:.1%}. {odds}."
    seen = f"About {p_value:.0%} of clean networks look at least as suspicious; the limit is {false_alarms:.1%}"
    if probability < 0.5:
        return f"{seen}. {odds}."
    return f"{seen}, and this alone decides. {odds}: it is called clean, and is nearer to those with a backdoor."
