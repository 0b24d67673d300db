"""A finished zoo of programs looked over: whether it is sound, and what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from weightspace.errors import RaspError
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.language import fused
from weightspace.zoo.making import ZooFinding
from weightspace.zoo.programs.program_zoo import ProgramZoo
from weightspace.zoo.programs.splits import splits_of
from weightspace.zoo.store import MANIFEST, SPLITS, changed_files


def check_program_zoo(folder: str | Path, recompiled: int = 200) -> list[ZooFinding]:
    """Verify every checksum, look for programs that stand on both sides of a split, and compile some again.

    Args:
        recompiled: how many programs are compiled again and compared entry by entry.
    Returns:
        what was found; empty for a sound zoo.
    """
    zoo = ProgramZoo.open(folder)
    found = [
        ZooFinding(
            "damage", f"{name} is missing or has changed: delete it and run the same `weightspace zoo make` again"
        )
        for name in changed_files(zoo.folder)
    ]
    if found:
        return found
    keys = zoo.index["key"].to_numpy()
    if len(np.unique(keys)) < len(keys):
        found.append(ZooFinding("leak", f"{len(keys) - len(np.unique(keys))} programs stand in the index twice"))
    if not np.array_equal(np.array(SPLITS)[splits_of(keys)], zoo.index["split"].to_pylist()):
        found.append(ZooFinding("leak", "the splits are not those that the programs' keys give"))
    config, step = zoo.config, max(1, len(zoo) // max(1, recompiled))
    for entry in zoo.entries():
        if entry.number % step == 0:
            program = entry.program
            meant = fused(program) if config.distribution == "paper" else program
            try:
                same = np.array_equal(compile_program(meant, mode=config.mode).flat, entry.flat)
            except RaspError:
                same = False
            if not same:
                found.append(ZooFinding("damage", f"program {entry.number} does not compile to the weights beside it"))
    return found


def program_zoo_info(folder: str | Path) -> dict[str, Any]:
    """What a zoo of programs holds: counts, splits, drops by reason, sizes, bytes a program."""
    zoo = ProgramZoo.open(folder)
    parameters, lengths = (zoo.index[name].to_numpy() for name in ("parameters", "length"))
    splits = zoo.index["split"].to_pylist()
    size = sum((zoo.folder / name).stat().st_size for name in [*zoo.manifest["sha256"], MANIFEST])
    return {
        "folder": str(folder),
        "recipe": zoo.config.recipe,
        "distribution": zoo.config.distribution,
        "mode": zoo.config.mode,
        "seed": zoo.config.seed,
        "version": zoo.description["version"],
        "programs": len(zoo),
        "dropped": zoo.manifest["dropped"],
        "splits": {name: splits.count(name) for name in SPLITS},
        "operations": {str(n): int((lengths == n).sum()) for n in np.unique(lengths)},
        "parameters": {
            name: int(value)
            for name, value in zip(
                ("mean", "median", "90%", "max"),
                (parameters.mean(), *np.quantile(parameters, [0.5, 0.9, 1.0])),
                strict=True,
            )
        },
        "bytes": size,
        "bytes a program": round(size / len(zoo), 1),
    }
