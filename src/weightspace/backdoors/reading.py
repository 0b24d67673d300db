"""One file on its way to a detector: its kind, its hash, its networks, or what is to be said of it at once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weightspace.backdoors.detector import Detector
from weightspace.backdoors.general_detector import GeneralDetector
from weightspace.backdoors.ordinary import LFS, LOOKED_AT, archive_kind, ordinary_kind, promises_weights
from weightspace.backdoors.ours import of_a_zoo, ours
from weightspace.backdoors.result_cache import Kept, ResultCache
from weightspace.backdoors.targets import Entry
from weightspace.backdoors.verdict import Finding, Verdict
from weightspace.errors import NetworkError, UnreadableError
from weightspace.files.checkpoints import Outline, outlines, read
from weightspace.files.kinds import LARGEST_INDEX, Kind, kinds_of, open_regular
from weightspace.weights.matching import Match
from weightspace.weights.network import Network

HASHED = 2**31
"""Bytes up to which a file is hashed, unless there are hashes that are allowed."""
HASHED_TWICE = 2**24
"""Bytes up to which a file is hashed again after it was read; of a larger one only its times and size are compared."""
NAMED = 3
"""Shards that are named of a model in several files."""
ANOTHER = "of another architecture"


@dataclass(frozen=True)
class Waiting:
    """A file whose networks are to be judged.

    Attributes:
        facts: what a finding says of the file whatever the verdict.
        key: under which the result is kept; None if it is not.
        general: whether the general detector judges it.
    """

    facts: dict[str, Any]
    networks: tuple[Network, ...]
    notes: tuple[str, ...]
    key: str | None
    general: bool = False


@dataclass(frozen=True)
class Known:
    """A file of which the detector has said something before."""

    facts: dict[str, Any]
    kept: Kept


@dataclass(frozen=True)
class Passed:
    """A file that is counted by its kind and not named; a shard that its index speaks for has no kind."""

    kind: str = ""


@dataclass
class Reader:
    """Reads files for a detector of one architecture, and for a general one where there is one.

    Attributes:
        general: judges what the detector does not know.
        allowed: SHA-256 hashes of files that are not judged.
        results: what was said before.
        joined: real paths of the shards of models that were read by their index.
    """

    detector: Detector
    allowed: frozenset[str] = frozenset()
    results: ResultCache | None = None
    joined: set[str] = field(default_factory=set)
    general: GeneralDetector | None = None

    def look(self, entry: Entry, path: Path) -> Finding | Waiting | Known | Passed:
        """One file's networks, or what is said of it; whatever is wrong with it stops nothing."""
        facts: dict[str, Any] = {"file": entry.name, "notes": entry.notes}
        try:
            facts["size"] = path.stat().st_size
            kinds = kinds_of(path)
            if not entry.given:
                other = _no_checkpoint(entry, path, kinds)
                if other is not None:
                    return other
            return self._checkpoint(entry, path, kinds, facts)
        except UnreadableError as error:
            return _said(facts, "unreadable", _sentence(error, path))
        except OSError as error:
            return _said(facts, "unreadable", f"It cannot be read: {(error.strerror or str(error)).lower()}.")
        except Exception as error:  # a file can be wrong in ways that nobody thought of, and must not stop the others
            what = " ".join(str(error).split())[:120]
            return _said(facts, "unreadable", f"It could not be read ({type(error).__name__}: {what}).")

    def _checkpoint(
        self, entry: Entry, path: Path, kinds: tuple[Kind, ...], facts: dict[str, Any]
    ) -> Finding | Waiting | Known | Passed:
        """A file that is a checkpoint by its content or its name, and has not changed while it was looked at."""
        shards, complete = _others_of(path, kinds)
        files = [path, *shards]
        facts["size"] = sum(file.stat().st_size for file in files if file.is_file())
        if shards:
            named = ", ".join(shard.name for shard in shards[:NAMED])
            more = f", and {len(shards) - NAMED:,} more" if len(shards) > NAMED else ""
            facts["notes"] = (*facts["notes"], f"Its arrays lie in {len(shards):,} files beside it: {named}{more}.")
        before = [_state(file) for file in files]
        hashes = [self._hash(file) for file in files]
        facts["sha256"] = hashes[0]
        whole = [digest for digest in hashes if digest is not None]
        if len(whole) < len(files):
            unhashed = f"It was not hashed, having more than {HASHED // 2**30} GiB."
            facts["notes"] = (*facts["notes"], unhashed)
        elif complete and self.allowed.issuperset(whole):
            self.joined.update(os.path.realpath(shard) for shard in shards)
            return _said(facts, "allowed", "Its hash is in the list of those that are allowed.", "that are allowed")
        key = None
        if self.results is not None and complete and len(whole) == len(files):
            key = self.results.key(path.name, whole)
            kept = self.results.get(key)
            if kept is not None:
                return Known(facts, kept)
        found = self._outlined(entry, path, kinds, facts, key)
        if [_state(file) for file in files] != before or self._changed(files, hashes):
            return _said(facts, "unreadable", "It changed while it was read: scan it again when it is finished.")
        if shards and not (isinstance(found, Finding) and found.verdict == "unreadable"):
            self.joined.update(os.path.realpath(shard) for shard in shards)
        if isinstance(found, Known) and self.results is not None and key is not None:
            self.results.put(key, found.kept)
        return found

    def _outlined(
        self, entry: Entry, path: Path, kinds: tuple[Kind, ...], facts: dict[str, Any], key: str | None
    ) -> Finding | Waiting | Known | Passed:
        """What the state dicts of a file are to the detector."""
        try:
            parts = outlines(path)
        except UnreadableError as error:
            return _unread(entry, path, kinds, facts, error)
        known: list[tuple[Outline, tuple[str, ...]]] = []
        matches: list[Match] = []
        refused: NetworkError | None = None
        for part in parts:
            try:
                matches.append(self.detector.matched(part))
                known.append((part, matches[-1].names))
            except NetworkError as error:
                refused = refused or error
        general: tuple[Network, ...] = ()
        if not known and self.general is not None:
            known, general, refused = self._for_general(parts, self.general, refused)
        if not known:
            if os.path.realpath(path) in self.joined:
                return Passed()
            own = ours(parts[0]) if len(parts) == 1 else None
            if own is not None:
                return _said(facts, "ours", f"It is one of weightspace's own files ({own}) and is not judged.", own)
            notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
            text = _sentence(refused)
            cause = "whose weights are quantised or packed" if "quantised or packed" in text else ANOTHER
            if any(note.startswith("It is an adapter") for note in notes):
                cause = "that are adapters of other networks"
            return Known(facts, Kept(reason=text, cause=cause, notes=notes))
        notes = _notes(known, matches)
        networks = general or tuple(self.detector.network(read(part, names), names) for part, names in known)
        try:
            for network in networks:
                network.check_finite()
        except NetworkError as error:
            return _said(facts, "unreadable", _sentence(error))
        return Waiting(facts, networks, notes, key, bool(general))

    @staticmethod
    def _for_general(
        parts: Sequence[Outline], general: GeneralDetector, refused: NetworkError | None
    ) -> tuple[list[tuple[Outline, tuple[str, ...]]], tuple[Network, ...], NetworkError | None]:
        """The state dicts of a file that a general detector can judge, with their networks; and why others are not."""
        known, networks = [], []
        for part in parts:
            try:
                names = general.matched(part)
                networks.append(general.network(read(part, names)))
                known.append((part, names))
            except NetworkError as error:
                if refused is not None:
                    refused = NetworkError(f"{refused}; and for the general detector {error}")
        return known, tuple(networks), refused

    def _hash(self, path: Path) -> str | None:
        """The SHA-256 of a file; None of one that is too large to be hashed without need."""
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > HASHED and not self.allowed:
                return None
            digest = hashlib.sha256()
            while piece := file.read(2**20):
                digest.update(piece)
            return digest.hexdigest()

    def _changed(self, files: list[Path], hashes: list[str | None]) -> bool:
        """Whether a small file has another content than before: times alone miss what happens within their steps."""
        return any(
            file.stat().st_size <= HASHED_TWICE and digest is not None and self._hash(file) != digest
            for file, digest in zip(files, hashes, strict=True)
        )


def _state(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _no_checkpoint(entry: Entry, path: Path, kinds: tuple[Kind, ...]) -> Finding | Passed | None:
    """What is said of a file of a folder that is no checkpoint, neither by its content nor by its name."""
    if kinds == ("npy",):  # one array without a name is no network; one of objects is refused, which is told
        outlines(path)
        return Passed("single arrays")
    if kinds or promises_weights(path.name):
        return None
    if of_a_zoo(path):
        reason = "It belongs to a zoo of weightspace and holds no network."
        return Finding(entry.name, "ours", reason, "descriptions and indexes of zoos", size=path.stat().st_size)
    with open_regular(path) as file:
        start = file.read(LOOKED_AT)
    kind = ordinary_kind(path.name, start)
    if kind is not None:
        return Passed(kind)
    packed = archive_kind(start)
    if packed is not None:
        reason = f"It is an archive ({packed}), which is not unpacked: scan what is in it."
        return Finding(entry.name, "not_looked_at", reason, "that are archives", size=path.stat().st_size)
    reason = "It is of no kind that is known, and its name promises no weights."
    return Finding(entry.name, "not_looked_at", reason, "of no kind that is known", size=path.stat().st_size)


def _unread(
    entry: Entry, path: Path, kinds: tuple[Kind, ...], facts: dict[str, Any], error: UnreadableError
) -> Finding:
    """A file that no state dict could be read from."""
    if kinds == ("tar",) and not entry.given and not promises_weights(path.name.removesuffix(".tar")):
        reason = "It is an archive (tar), which is not unpacked: scan what is in it."
        return _said(facts, "not_looked_at", reason, "that are archives")
    if not kinds:
        with open_regular(path) as file:
            if file.read(len(LFS)) == LFS:
                reason = "It is a pointer of Git LFS and not the file itself: fetch that with `git lfs pull`."
                return _said(facts, "unreadable", reason)
    return _said(facts, "unreadable", _sentence(error, path))


def _notes(known: Sequence[tuple[Outline, tuple[str, ...]]], matches: Sequence[Match]) -> tuple[str, ...]:
    """What a reader must know of the state dicts that a detector knows."""
    notes = list(dict.fromkeys(note for found in (*(part for part, _ in known), *matches) for note in found.notes))
    odd = sorted({part.dtypes[array] for part, names in known for array in names} - {"F32"})
    if odd:
        notes.append(f"Its weights are {' and '.join(odd)}; the detector was trained on F32.")
    if len(known) > 1:
        named = ", ".join(".".join(part.part) or "the file itself" for part, _ in known)
        notes.append(f"It holds {len(known)} such networks ({named}): the most suspicious one is reported.")
    return tuple(notes)


def _others_of(path: Path, kinds: tuple[Kind, ...]) -> tuple[list[Path], bool]:
    """The other files that are read for a checkpoint, and whether these are all: shards, external data of ONNX."""
    if "index" in kinds:
        return _shards_of(path)
    if "onnx" not in kinds:
        return [], True
    try:
        read_for_it = {other for found in outlines(path) for other in found.files}
    except UnreadableError:
        return [], False
    return sorted(read_for_it - {path}), True


def _shards_of(path: Path) -> tuple[list[Path], bool]:
    """The files beside an index that it names, and whether these are all; what is wrong with others the reader says."""
    with open_regular(path) as file:
        raw = file.read(LARGEST_INDEX + 1)
    try:
        names = sorted({str(name) for name in json.loads(raw)["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [], False
    plain = [path.parent / name for name in names if name and "/" not in name and "\0" not in name]
    shards = [shard for shard in plain if shard.is_file()]
    return shards, len(shards) == len(names)


def _said(facts: dict[str, Any], verdict: Verdict, reason: str, cause: str = "") -> Finding:
    return Finding(verdict=verdict, reason=reason, cause=cause, **facts)


def _sentence(error: Exception | None, path: Path | None = None) -> str:
    """A message as a sentence about the file, whose name stands above it."""
    text = str(error)
    if path is not None and text.startswith(f"{path} "):
        text = f"it {text[len(str(path)) + 1 :]}"
    return f"{text[:1].upper()}{text[1:]}."
