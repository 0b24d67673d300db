"""Networks that a network may come from: those of a folder of checkpoints, or of a zoo, as filters and descriptors."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from weightspace.errors import NetworkError
from weightspace.files.atomic import file_hash, write_atomically
from weightspace.files.checkpoints import SUFFIXES
from weightspace.files.progress import progress
from weightspace.provenance.descriptors import descriptors
from weightspace.provenance.filters import balanced_filters
from weightspace.provenance.opening import ComparisonError, check_comparable, weights_as
from weightspace.weights.spec import NetworkSpec
from weightspace.zoo.store import DESCRIPTION, Zoo

FORMAT = 1
BLOCK = 256
"""Networks whose filters are made together."""
HELD = 2**29
"""Numbers of filters that are held in memory, at most, as half precision; of larger networks files are read again."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Networks of one architecture.

    Attributes:
        names: of n networks, as a person knows them: paths, or numbers in a zoo.
        descriptors: (n, d).
        held: (n, spec.size) balanced filters in half precision, None where they would be too large.
        skipped: what was left out and why: a sentence for each reason, with the number of files.
    """

    spec: NetworkSpec
    names: tuple[str, ...]
    descriptors: np.ndarray
    held: np.ndarray | None
    skipped: Mapping[str, int]

    def filters(self, position: int) -> np.ndarray:
        """Balanced filters (spec.size,) float32 of one network."""
        if self.held is not None:
            return self.held[position].astype(np.float32)
        weights = weights_as(Path(self.names[position]), self.spec, "the network")
        return balanced_filters(weights[None], self.spec)[0]


def candidates_in(
    folder: Path, spec: NetworkSpec, *, whose: str, leaving: Path | None = None, cache: Path | None = None
) -> Candidates:
    """The networks below a folder that can be compared with one of a spec.

    Args:
        folder: of checkpoints, or of a zoo.
        whose: the network, for sentences.
        leaving: a file that is left out, as it is the network itself.
        cache: a folder where descriptors and filters are kept by the hash of each file.
    Raises:
        ComparisonError: if there is no such folder, or none of its files can be compared; it says why.
    """
    if not folder.is_dir():
        raise ComparisonError(f"there is no folder {folder}: name one with checkpoints, or a zoo")
    skipped: dict[str, int] = {}
    if (folder / DESCRIPTION).is_file():
        found = _of_zoo(folder, spec, skipped)
    else:
        found = _of_files(folder, spec, whose, leaving, cache, skipped)
    if not found.names:
        reasons = "; ".join(f"{count} {reason}" for reason, count in skipped.items())
        raise ComparisonError(
            f"{folder} holds no network that can be compared with {whose} ({reasons or 'it holds no checkpoint'}): "
            "name a folder of networks of the same architecture"
        )
    return found


def _of_zoo(folder: Path, spec: NetworkSpec, skipped: dict[str, int]) -> Candidates:
    zoo = Zoo.open(folder)
    population = zoo.population()
    names: list[str] = []
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    numbers = zoo.column("network")[population.rows]
    for own, positions in population.groups():
        if [leaf.shape for leaf in own.leaves] != [leaf.shape for leaf in spec.leaves]:
            skipped["of another architecture"] = skipped.get("of another architecture", 0) + len(positions)
            continue
        for start in range(0, len(positions), BLOCK):
            block = positions[start : start + BLOCK]
            parts.append(_described(population.read(block), spec))
            names += [f"network {number}" for number in numbers[block]]
    return _joined(spec, names, parts, skipped)


def _described(weights: np.ndarray, spec: NetworkSpec) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors and half-precision filters of some networks."""
    filters = balanced_filters(weights, spec)
    return descriptors(filters, spec), filters.astype(np.float16)


def _joined(
    spec: NetworkSpec, names: list[str], parts: list[tuple[np.ndarray, np.ndarray]], skipped: Mapping[str, int]
) -> Candidates:
    if not parts:
        return Candidates(spec, (), np.zeros((0, 0), np.float32), None, skipped)
    held = np.concatenate([filters for _, filters in parts]) if parts[0][1].shape[1] else None
    return Candidates(spec, tuple(names), np.concatenate([table for table, _ in parts]), held, skipped)


def _of_files(
    folder: Path, spec: NetworkSpec, whose: str, leaving: Path | None, cache: Path | None, skipped: dict[str, int]
) -> Candidates:
    paths = [path for path in _files(folder) if leaving is None or not path.samefile(leaving)]
    index = Index.open(cache, spec)
    holds = len(paths) * spec.size <= HELD
    names: list[str] = []
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    waiting: list[tuple[str, bytes, np.ndarray]] = []

    def flush() -> None:
        if waiting:
            described = _described(np.stack([weights for _, _, weights in waiting]), spec)
            for place, (name, key, _) in enumerate(waiting):
                index.put(key, described[0][place], described[1][place])
                names.append(name)
            parts.append((described[0], described[1] if holds else described[1][:, :0]))
            waiting.clear()

    with progress("reading", total=len(paths), unit="files", enabled=len(paths) > BLOCK) as advance:
        for path in paths:
            advance(1)
            key = index.key(path)
            known = index.get(key)
            if known is not None:
                names.append(str(path))
                parts.append((known[0][None], known[1][None] if holds else known[1][None, :0]))
                continue
            try:
                weights = weights_as(path, spec, whose)
                check_comparable(spec, weights, str(path))
            except (NetworkError, OSError) as error:
                reason = _reason(error)
                skipped[reason] = skipped.get(reason, 0) + 1
                continue
            waiting.append((str(path), key, weights))
            if len(waiting) == BLOCK:
                flush()
                index.save(every=20_000)
    flush()
    index.save()
    return _joined(spec, names, parts, skipped)


def _files(folder: Path) -> Iterator[Path]:
    """The checkpoints below a folder by the end of their names, in order; no link to a folder is followed."""
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(root) / name


def _reason(error: Exception) -> str:
    """Why a file was left out, in few words."""
    text = str(error)
    if "not comparable" in text:
        return "of another architecture"
    return "with NaN or infinite weights" if "NaN" in text else "that could not be read as a network"


class Index:
    """What is known of files by the hashes of their content: descriptors and filters, for one architecture.

    One safetensors file in the cache's folder. A damaged one counts as empty. Whoever can write into the folder can
    change what a search finds.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._known: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
        self._fresh = 0

    @staticmethod
    def open(cache: Path | None, spec: NetworkSpec) -> Index:
        """The index of an architecture in a cache; without a cache an empty one that is not kept.

        Raises:
            ComparisonError: if the cache is a file.
        """
        if cache is None:
            return Index(None)
        if cache.exists() and not cache.is_dir():
            raise ComparisonError(f"the cache {cache} is a file: name a folder")
        index = Index(cache / f"lineage-{FORMAT}-{spec.signature}.safetensors")
        assert index.path is not None
        if index.path.is_file():
            try:
                tables = load_file(index.path)
                rows = zip(tables["hashes"], tables["descriptors"], tables["filters"], strict=True)
                index._known = {bytes(key): (table, filters) for key, table, filters in rows}
            except (SafetensorError, ValueError, KeyError, OSError):
                index._known = {}
        return index

    def key(self, path: Path) -> bytes:
        """What a file is known by; nothing of a file that is not kept."""
        return b"" if self.path is None else hashlib.sha256(file_hash(path).encode()).digest()

    def get(self, key: bytes) -> tuple[np.ndarray, np.ndarray] | None:
        return self._known.get(key)

    def put(self, key: bytes, table: np.ndarray, filters: np.ndarray) -> None:
        if self.path is not None:
            self._known[key] = (table, filters)
            self._fresh += 1

    def save(self, every: int = 1) -> None:
        """Write what is new, if that is at least `every` files; if it cannot be written, the next search is slower."""
        if self.path is None or self._fresh < every:
            return
        keys = list(self._known)
        tables = {
            "hashes": np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1),
            "descriptors": np.stack([self._known[key][0] for key in keys]),
            "filters": np.stack([self._known[key][1] for key in keys]),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, save(tables))
        self._fresh = 0
