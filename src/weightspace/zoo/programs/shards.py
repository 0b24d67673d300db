"""A shard of compiled programs on disk: a Parquet file of texts and of the weights that are not zero, checksummed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.errors import ZooError
from weightspace.files.atomic import write_atomically
from weightspace.rasp.compiler.transformer import Configuration
from weightspace.zoo.programs.config import ProgramZooConfig
from weightspace.zoo.programs.draws import ProgramRow
from weightspace.zoo.store import MANIFEST, SHARDS

CONFIGURATION = Configuration._fields
METADATA = b"weightspace"


@dataclass(frozen=True, eq=False)
class Summary:
    """What the index needs of one shard.

    Attributes:
        keys: (n,) uint64, the first half of each program's canonical key.
        lengths, parameters: (n,) of each program and its transformer.
        reasons: how many draws were dropped, by reason.
    """

    keys: np.ndarray
    lengths: np.ndarray
    parameters: np.ndarray
    reasons: Mapping[str, int]


def shard_file(folder: Path, number: int) -> Path:
    """Where a zoo in this folder has, or would have, the shard of this number."""
    return folder / SHARDS / f"{number:05d}.parquet"


def write_shard(
    path: Path, config: ProgramZooConfig, number: int, rows: list[ProgramRow], dropped: Mapping[str, int]
) -> None:
    """Write a shard, which appears whole or not at all.

    Args:
        dropped: how many draws were dropped, by reason.
    """
    table = _table(rows)
    facts: dict[str, Any] = {"config": _fingerprint(config), "shard": number, "dropped": dict(dropped)}
    facts["checksum"] = _checksum(table, facts)
    _write(path, table.replace_schema_metadata({METADATA: json.dumps(facts, sort_keys=True)}))


def _table(rows: list[ProgramRow]) -> Any:
    """The rows of a shard as an Arrow table."""
    import pyarrow as pa

    def lists(parts: list[np.ndarray], kind: Any) -> Any:
        offsets = np.cumsum([0, *map(len, parts)])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(np.concatenate(parts or [[]]), kind))

    orders = [np.argsort(row.transformer.places) for row in rows]
    shapes = [row.transformer.configuration for row in rows]
    layouts = [row.transformer.layout for row in rows]
    return pa.table(
        {
            "key": pa.array([row.key for row in rows], pa.binary(16)),
            "program": pa.array([str(row.program) for row in rows]),
            "length": pa.array([len(row.program) for row in rows], pa.int16()),
            "parameters": pa.array([len(row.transformer) for row in rows], pa.int32()),
            "tokens": pa.array([layout.tokens for layout in layouts], pa.int32()),
            "positions": pa.array([layout.positions for layout in layouts], pa.int32()),
            "width": pa.array([layout.width for layout in layouts], pa.int32()),
            **{name: pa.array([getattr(shape, name) for shape in shapes]) for name in CONFIGURATION},
            "places": lists([r.transformer.places[o] for r, o in zip(rows, orders, strict=True)], pa.int32()),
            "values": lists([r.transformer.values[o] for r, o in zip(rows, orders, strict=True)], pa.float32()),
        }
    )


def _write(path: Path, table: Any) -> None:
    import pyarrow.parquet as pq

    buffer = BytesIO()
    pq.write_table(
        table,
        buffer,
        row_group_size=1_000,
        compression="zstd",
        compression_level=3,
        use_dictionary=["values.list.element", *CONFIGURATION],  # type: ignore[arg-type] - its stubs know only bool
        column_encoding={"places.list.element": "DELTA_BINARY_PACKED"},
        write_page_checksum=True,
    )
    write_atomically(path, buffer.getvalue())


def read_summary(path: Path, config: ProgramZooConfig, number: int) -> Summary | None:
    """What the index needs of a shard; None if it is not there, not whole, or another's."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        return None
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        facts = json.loads(table.schema.metadata[METADATA])
        if facts["config"] != _fingerprint(config) or facts["shard"] != number:
            return None
        if facts["checksum"] != _checksum(table, facts):
            return None
        keys = np.frombuffer(b"".join(key.as_py()[:8] for key in table["key"]), dtype=">u8").astype(np.uint64)
        return Summary(keys, table["length"].to_numpy(), table["parameters"].to_numpy(), facts["dropped"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException):
        return None


def read_shard(path: Path) -> Any:
    """The Arrow table of a shard of a complete zoo.

    Raises:
        ZooError: if it is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, page_checksum_verification=True)
        facts = json.loads(table.schema.metadata[METADATA])
        if facts["checksum"] != _checksum(table, facts):
            raise ValueError("it differs from its checksum")
        return table
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise ZooError(
            f"{path} cannot be read ({error}): delete it and {MANIFEST}, and run the same `weightspace zoo make` "
            "again, which makes only what is missing"
        ) from None


def _checksum(table: Any, facts: Mapping[str, Any]) -> str:
    """Of every value of a shard and all that its metadata says; the checksums of Parquet leave its footer out."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps({k: v for k, v in facts.items() if k != "checksum"}, sort_keys=True).encode())
    for name in table.column_names:
        column = table[name].combine_chunks()
        digest.update(name.encode())
        if name in ("places", "values"):
            digest.update(np.diff(column.offsets.to_numpy()).tobytes() + column.flatten().to_numpy().tobytes())
        elif name in ("key", "program"):
            for value in column.to_pylist():
                digest.update(value if isinstance(value, bytes) else value.encode() + b"\0")
        else:
            digest.update(column.to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()


def _fingerprint(config: ProgramZooConfig) -> str:
    """Of all that decides what a shard holds; the number of programs does not."""
    facts = {name: value for name, value in config.to_json().items() if name not in ("recipe", "count")}
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()
