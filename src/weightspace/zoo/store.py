"""The store on disk: shards of flat weights, one index of everything known, checksums, splits, resume."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weightspace.errors import ZooError
from weightspace.files.atomic import file_hash, write_atomically
from weightspace.files.extras import install_command
from weightspace.files.tensors import METADATA_KEY, map_safetensors
from weightspace.notebook import card
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.spec import NetworkSpec

if TYPE_CHECKING:
    from weightspace.zoo.batches import NetworkRows

FORMAT = 1
"""Version of the store's format; `docs/architecture.md` describes it field by field."""
SPLITS = ("train", "validation", "test")
DESCRIPTION, MANIFEST, INDEX, SHARDS = "zoo.json", "manifest.json", "index.parquet", "shards"
PULLING = ".pull"
"""Folder inside one that is pulled (`zoo.publishing`) for as long as it is not whole."""


@dataclass(frozen=True, eq=False)
class Record:
    """One network, or one checkpoint of it, as it goes into a shard.

    Attributes:
        spec: what its arrays are.
        weights: (spec.size,) float32, or None for a network that was dropped.
        facts: its row of the index: `network` (its number), `split`, labels, seeds, metrics; JSON-serialisable.
    """

    spec: NetworkSpec
    weights: np.ndarray | None
    facts: Mapping[str, Any]


def split_of(network: int, seed: int, fractions: Sequence[float] = (0.6, 0.15, 0.25)) -> str:
    """The split of a network: a function of its number and the zoo's seed alone.

    So every method sees the same split, every checkpoint of a network falls on the same side, and a zoo that grows
    keeps the splits of the networks that it had.
    """
    digest = hashlib.blake2b(f"split {seed} {network}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    return SPLITS[int(np.searchsorted(np.cumsum(fractions[:-1]), place, side="right"))]


def checksum(weights: np.ndarray) -> str:
    """Sixteen hexadecimal digits that change when a byte of the flat weights does."""
    return hashlib.blake2b(np.ascontiguousarray(weights).tobytes(), digest_size=8).hexdigest()


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Begin a zoo: write what it is to be. Its presence is what makes a directory a zoo."""
    text = json.dumps({"format": FORMAT, **description}, indent=1, sort_keys=True)
    write_atomically(folder / DESCRIPTION, text.encode())


def shard_path(folder: Path, number: int) -> Path:
    return folder / SHARDS / f"{number:05d}.safetensors"


def write_shard(folder: Path, number: int, records: Iterable[Record]) -> None:
    """Write one shard: a safetensors file with a matrix for each spec, and its rows of the index as metadata.

    It appears whole or not at all. The same records give the same bytes.
    """
    from safetensors.numpy import save

    matrices: dict[str, list[np.ndarray]] = {}
    specs: dict[str, NetworkSpec] = {}
    rows = []
    for record in records:
        signature = record.spec.signature
        specs[signature] = record.spec
        row = {**record.facts, "signature": signature, "shard": number, "row": -1, "checksum": ""}
        if record.weights is not None:
            row["row"] = len(matrices.setdefault(signature, []))
            row["checksum"] = checksum(record.weights)
            matrices[signature].append(record.weights)
        rows.append(row)
    header = {
        "format": FORMAT,
        "rows": rows,
        "specs": {name: spec.to_json() for name, spec in sorted(specs.items())},
    }
    header["checksum"] = _json_checksum(header)
    tensors = {name: np.stack(matrix) for name, matrix in sorted(matrices.items())}
    content = save(tensors, {METADATA_KEY: json.dumps(header, sort_keys=True)})
    write_atomically(shard_path(folder, number), content)


def remove_torn(folder: Path) -> None:
    """Take away what was half written into a zoo by runs, or their workers, that were killed."""
    for torn in [*folder.glob(".*.tmp"), *folder.glob(f"{SHARDS}/.*.tmp")]:
        torn.unlink(missing_ok=True)


def _json_checksum(record: Mapping[str, Any]) -> str:
    """Hash of a JSON record but for its own `checksum`: labels are worth as much as weights."""
    content = {name: value for name, value in record.items() if name != "checksum"}
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def finish(folder: Path, shards: int) -> None:
    """Complete a zoo: gather the shards' rows into the index, and note the hash of every file in the manifest."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = []
    specs: dict[str, Any] = {}
    for number in range(shards):  # one at a time: each mapped shard holds a file descriptor
        shard = Shard.open(shard_path(folder, number))
        rows += shard.rows
        specs |= shard.specs
    columns = sorted({name for row in rows for name in row})
    table = pa.table({name: [row.get(name) for row in rows] for name in columns})
    buffer = BytesIO()
    pq.write_table(table.replace_schema_metadata({}), buffer, compression="zstd")
    write_atomically(folder / INDEX, buffer.getvalue())
    files = [shard_path(folder, number) for number in range(shards)]
    write_manifest(folder, files, {"networks": len(rows), "shards": shards, "specs": specs})


def write_manifest(folder: Path, shards: Iterable[Path], facts: Mapping[str, Any]) -> None:
    """Complete a zoo: note facts about it, and the hash of its description, its index and every shard."""
    files = [folder / DESCRIPTION, folder / INDEX, *shards]
    hashes = {str(path.relative_to(folder)): file_hash(path) for path in files}
    write_atomically(folder / MANIFEST, sealed({"format": FORMAT, **facts, "sha256": hashes}))


def sealed(record: Mapping[str, Any]) -> bytes:
    """A JSON record with a `checksum` of itself."""
    return json.dumps({**record, "checksum": _json_checksum(record)}, sort_keys=True).encode()


def unsealed(content: bytes) -> dict[str, Any]:
    """The record that `sealed` wrote.

    Raises:
        ValueError: if it is none, or differs from its checksum.
    """
    record = json.loads(content)
    if not isinstance(record, dict) or record.get("checksum") != _json_checksum(record):
        raise ValueError("it differs from its checksum")
    return record


@dataclass(frozen=True, eq=False)
class Shard:
    """One opened shard: its rows, and its matrices mapped into memory, not read."""

    path: Path
    rows: list[dict[str, Any]]
    specs: dict[str, Any]
    matrices: dict[str, np.ndarray]

    @staticmethod
    def open(path: Path) -> Shard:
        """Map a shard.

        Raises:
            ZooError: if the file is missing, torn, or no shard.
        """
        if not path.exists():
            raise ZooError(f"shard {path} is missing: make the zoo again to restore just this shard")
        try:
            matrices, metadata = map_safetensors(path)
            record = json.loads(metadata[METADATA_KEY])
            for name, matrix in matrices.items():
                if matrix.dtype != np.float32 or matrix.ndim != 2:
                    raise ValueError(f"matrix {name} is {matrix.dtype} of {matrix.ndim} axes, not float32 of two")
            if record["checksum"] != _json_checksum(record):
                raise ValueError("its labels differ from their checksum")
            for row in record["rows"]:
                if row["row"] >= 0 and row["row"] >= len(matrices[row["signature"]]):
                    raise ValueError(f"it has no weights for network {row['network']}")
            return Shard(path, record["rows"], record["specs"], matrices)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise ZooError(f"shard {path} is torn or not a shard ({error}): {_REPAIR}") from None


_REPAIR = "delete that file and run the same `weightspace zoo make` again, which makes only what is missing"


KINDS = {
    "networks": {"recipe", "seed", "count", "space", "architectural"},
    "programs": {"recipe", "seed", "count", "distribution", "mode"},
}
"""Kinds of zoos, and what the configuration of each holds."""


def read_description(folder: str | Path, kind: str | None = None) -> dict[str, Any]:
    """What a zoo was asked to be: kind, recipe, configuration, seed, count.

    Args:
        kind: what it has to hold, `networks` or `programs`; anything unless given.
    Raises:
        ZooError: if the directory is no zoo, one of another format, or of another kind.
    """
    path = Path(folder) / DESCRIPTION
    if (path.parent / PULLING).is_dir():
        raise ZooError(f"{folder} is not pulled to its end: run the same `weightspace zoo pull` again")
    if not path.is_file():
        raise ZooError(f"{folder} is not a zoo: it has no {DESCRIPTION}; make one with `weightspace zoo make RECIPE`")
    try:
        description = json.loads(path.read_bytes())
        version = description["format"]
        found = description.setdefault("kind", "networks")
        if KINDS[found] - set(description["config"]):
            raise KeyError("config")
    except (ValueError, KeyError, TypeError):
        raise ZooError(
            f"{path} is damaged: it should be JSON with a format number; restore it or make the zoo anew"
        ) from None
    if version != FORMAT:
        raise ZooError(f"{folder} has format {version}, this weightspace reads format {FORMAT}: make the zoo again")
    if kind not in (None, found):
        raise ZooError(f"zoo {folder} holds {found}, and {kind} are wanted here: choose a zoo of another recipe")
    return description


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a complete zoo holds, and the hash of each of its files; that of its description is compared.

    Raises:
        ZooError: if the zoo is not complete, or its manifest or description is damaged.
    """
    try:
        manifest = unsealed((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        done = len([path for path in (folder / SHARDS).glob("*.*") if not path.name.startswith(".")])
        raise ZooError(
            f"zoo {folder} is not complete ({done} shards): run the same `weightspace zoo make` again"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ZooError(f"{folder / MANIFEST} is damaged: delete it and run the same `weightspace zoo make`") from None
    if DESCRIPTION not in manifest.get("sha256", {}):
        raise ZooError(f"{folder / MANIFEST} is the manifest of something else: choose the folder of a zoo")
    if file_hash(folder / DESCRIPTION) != manifest["sha256"][DESCRIPTION]:
        raise ZooError(f"{folder / DESCRIPTION} has changed since the zoo was finished: restore it")
    return manifest


def read_index(folder: Path) -> Any:
    """The index of a complete zoo as an Arrow table.

    Raises:
        ZooError: if it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(folder / INDEX, memory_map=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ZooError(
            f"{folder / INDEX} cannot be read ({error}): delete it and {MANIFEST}, then run the same "
            "`weightspace zoo make` again"
        ) from None


@dataclass(frozen=True, eq=False)
class Zoo:
    """A complete zoo, opened for reading.

    Attributes:
        folder: where it lies.
        description: what it was asked to be.
        manifest: number of shards, specs, and the hash of every file.
    """

    folder: Path
    description: dict[str, Any]
    manifest: dict[str, Any]
    _shards: dict[int, Shard] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return f"<Zoo {self.description['config']['recipe']!r}: {len(self):,} networks in {self.folder}>"

    def _repr_html_(self) -> str:
        counts = {split: f"{len(self.rows(split)):,} networks" for split in SPLITS}
        facts = {"folder": self.folder, **counts, "labels": ", ".join(self.columns)}
        return card(f"Zoo {self.description['config']['recipe']}", facts)

    def __len__(self) -> int:
        """Networks that have weights, by their last checkpoint."""
        return len(self.rows())

    def __iter__(self) -> Iterator[Network]:
        yield from self.population()

    def __getitem__(self, index: int) -> Network:
        """Network `index` of those that have weights; its labels are its metadata."""
        return self.population()[index]

    def to_pandas(self) -> Any:
        """Everything known of the networks as a pandas table, a row for each that has weights.

        Raises:
            ZooError: if pandas is not installed.
        """
        try:
            return self._index.take(self.rows()).to_pandas()
        except ImportError:
            raise ZooError(f"a table needs pandas: {install_command('tables')}") from None

    def torch(self, split: str | None = None) -> NetworkRows:
        """The networks of a split as a data set for `torch.utils.data.DataLoader`; weights are read when asked for.

        Returns:
            for each network its flat float32 weights (n,) as a tensor, and its labels: the columns of the index that
            hold a number, a text or a truth value for every network of the split; numbers that are missing are NaN.
            Networks of several sizes need a `collate_fn` of yours, or batches of one.
        """
        from weightspace.zoo.batches import NetworkRows

        return NetworkRows(self.population(split), self._index.take(self.rows(split)))

    @staticmethod
    def open(folder: str | Path) -> Zoo:
        """Open a complete zoo; nothing but its description and manifest is read yet.

        Raises:
            ZooError: if it is no zoo, or not complete, or its manifest is damaged.
        """
        folder = Path(folder)
        description = read_description(folder, "networks")
        manifest = read_manifest(folder)
        return Zoo(folder, description, manifest)

    @property
    def specs(self) -> tuple[NetworkSpec, ...]:
        """The different specs of the zoo's networks, by signature."""
        return self._specs

    @cached_property
    def _specs(self) -> tuple[NetworkSpec, ...]:
        return tuple(NetworkSpec.from_json(self.manifest["specs"][name]) for name in self._signatures)

    @cached_property
    def _signatures(self) -> list[str]:
        return sorted(self.manifest["specs"])

    def column(self, name: str) -> np.ndarray:
        """One column of the index, one entry a row; strings come as objects, missing values as None or NaN.

        Raises:
            ZooError: if the index has no such column or cannot be read; the message lists the columns.
        """
        if name not in self.columns:
            raise ZooError(f"zoo {self.folder} has no column {name!r}; it has {', '.join(self.columns)}")
        return self._index.column(name).to_numpy()

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return tuple(self._index.column_names)

    @cached_property
    def _index(self) -> Any:
        return read_index(self.folder)

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shard, row in its matrix, and spec position of every row of the index."""
        position = {name: i for i, name in enumerate(self._signatures)}
        signature = self._index.column("signature").combine_chunks().dictionary_encode()
        codes = np.array([position[str(name)] for name in signature.dictionary])
        return (
            self.column("shard").astype(np.int64),
            self.column("row").astype(np.int64),
            codes[signature.indices.to_numpy()],
        )

    def population(self, split: str | None = None, *, checkpoints: bool = False) -> Population:
        """The networks of one split, or all of them, see `rows`."""
        return Population(self, self.rows(split, checkpoints=checkpoints))

    def rows(self, split: str | None = None, *, checkpoints: bool = False) -> np.ndarray:
        """Rows of the index of the networks of one split, or of all; those that were dropped have no weights and are
        left out.

        Args:
            checkpoints: every stored checkpoint of each network, instead of the last alone.
        """
        keep = self._places[1] >= 0
        if not checkpoints:
            keep &= self._last
        if split is not None:
            if split not in SPLITS:
                raise ZooError(f"there is no split {split!r}: choose from {', '.join(SPLITS)}")
            keep &= self.column("split") == split
        return np.flatnonzero(keep)

    @cached_property
    def _last(self) -> np.ndarray:
        """Of every row whether it is its network's last checkpoint."""
        if "epoch" not in self.columns:
            return np.ones(len(self._places[0]), bool)
        network, epoch = self.column("network"), self.column("epoch")
        _, of = np.unique(network, return_inverse=True)
        latest = np.full(of.max(initial=-1) + 1, -1)
        np.maximum.at(latest, of, epoch)
        return epoch == latest[of]

    def shard(self, number: int) -> Shard:
        """One shard, opened at its first use."""
        if number not in self._shards:
            self._shards[number] = Shard.open(shard_path(self.folder, number))
        return self._shards[number]

    # -- what a Population needs of its source --------------------------------------------------------------------

    def spec_ids(self, rows: np.ndarray) -> np.ndarray:
        return self._places[2][rows]

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy flat weights of rows (n,) of one spec into `out` (n, size), shard by shard."""
        shards, places, ids = (column[rows] for column in self._places)
        signature = self._signatures[int(ids[0])] if len(rows) else ""
        order = np.argsort(shards, kind="stable")
        bounds = np.flatnonzero(np.diff(shards[order], prepend=-1, append=-1))
        for start, end in pairwise(bounds):
            chosen = order[start:end]
            matrix = self.shard(int(shards[chosen[0]])).matrices[signature]
            out[chosen] = matrix[places[chosen]]

    def metadata(self, row: int) -> Mapping[str, Any]:
        facts = self._index.slice(row, 1).to_pylist()[0]
        with suppress(KeyError, TypeError, ValueError):
            facts["architecture"] = json.loads(facts["architecture"])
        return facts


def verify(folder: str | Path) -> list[str]:
    """Compare every byte of a zoo with its checksums; that of its description is compared whenever it is opened.

    Returns:
        one sentence for each thing found wrong, naming the network where it is one; empty for a sound zoo.
    """
    zoo = Zoo.open(folder)
    found = []
    for name in changed_files(zoo.folder):
        path = zoo.folder / name
        if not path.is_file():
            found.append(f"{name} is missing: run the same `weightspace zoo make` again")
        else:
            found += _locate(path, name) if name != INDEX else [f"{name} has changed since it was written"]
    return found


def changed_files(folder: Path) -> list[str]:
    """The files of a complete zoo that are missing or differ from their hash in the manifest.

    Raises:
        ZooError: if the zoo is not complete, or its manifest or description is damaged.
    """
    hashes = read_manifest(folder)["sha256"]
    return [
        name
        for name, expected in hashes.items()
        if not (folder / name).is_file() or file_hash(folder / name) != expected
    ]


def _locate(path: Path, name: str) -> list[str]:
    """Which networks of a changed shard are damaged."""
    damaged = damaged_networks(path)
    if isinstance(damaged, str):
        return [damaged]
    found = [f"network {network} in {name} differs from its checksum: {_REPAIR}" for network in damaged]
    return found or [f"{name} has changed since it was written, though no weight or label did: {_REPAIR}"]


def damaged_networks(path: Path) -> list[int] | str:
    """Numbers of the networks of a shard whose weights differ from their checksum; a sentence if it cannot be read."""
    try:
        shard = Shard.open(path)
    except ZooError as error:
        return str(error)
    return [
        row["network"]
        for row in shard.rows
        if row["row"] >= 0 and checksum(shard.matrices[row["signature"]][row["row"]]) != row["checksum"]
    ]
