"""The index of a zoo of programs as its shards come in, without the programs that have come before."""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np

from weightspace.files.atomic import write_atomically
from weightspace.zoo.programs.config import ProgramZooConfig
from weightspace.zoo.programs.shards import Summary, shard_file
from weightspace.zoo.programs.splits import splits_of
from weightspace.zoo.store import INDEX, SPLITS, write_manifest


class Gathered:
    """The programs that have come so far, without duplicates."""

    def __init__(self, config: ProgramZooConfig) -> None:
        self.config = config
        self.seen = np.empty(0, dtype=np.uint64)
        self.columns: list[dict[str, np.ndarray]] = []
        self.reasons: Counter[str] = Counter()
        self.count = self.shards = 0
        self.known = 0.0
        """Share of the last shard that stood in an earlier one."""

    @property
    def full(self) -> bool:
        return self.count == self.config.count

    def take(self, summary: Summary) -> int:
        """Add a shard, the next in order; returns how many of its programs are new."""
        keys = summary.keys
        place = np.searchsorted(self.seen, keys)
        known = np.zeros(len(keys), dtype=bool)
        inside = place < len(self.seen)
        known[inside] = self.seen[place[inside]] == keys[inside]
        self.known = float(known.mean()) if len(known) else 0.0
        new = np.flatnonzero(~known)[: self.config.count - self.count]
        order = np.argsort(keys[new])
        self.seen = np.insert(self.seen, place[new][order], keys[new][order])
        self.columns.append(
            {
                "shard": np.full(len(new), self.shards, dtype=np.int32),
                "row": new.astype(np.int32),
                "key": keys[new],
                "length": summary.lengths[new],
                "parameters": summary.parameters[new],
            }
        )
        self.reasons.update(summary.reasons)
        self.reasons["the same program stands in an earlier shard"] += int(known.sum())
        self.count += len(new)
        self.shards += 1
        return len(new)

    def finish(self, folder: Path) -> None:
        """Write the index and the manifest."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {name: np.concatenate([part[name] for part in self.columns]) for name in self.columns[0]}
        split = pa.DictionaryArray.from_arrays(pa.array(splits_of(columns["key"])), pa.array(SPLITS))
        table = pa.table({"network": np.arange(self.count), **columns, "split": split})
        buffer = BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        write_atomically(folder / INDEX, buffer.getvalue())
        dropped = {reason: number for reason, number in sorted(self.reasons.items()) if number}
        facts = {"networks": self.count, "shards": self.shards, "dropped": dropped}
        write_manifest(folder, [shard_file(folder, number) for number in range(self.shards)], facts)
