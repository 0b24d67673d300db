"""Making a zoo: plans to shards to a finished store, resumable at any moment; and checking it for leaks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from weightspace import __version__
from weightspace.errors import ZooError
from weightspace.files.atomic import file_hash
from weightspace.files.lock import writing
from weightspace.files.mirror import Mirror
from weightspace.files.progress import progress as progress_line
from weightspace.zoo.engine import Engine, Plans, ProcessEngine
from weightspace.zoo.plan import ZooConfig, plan
from weightspace.zoo.records import TrainedNetwork, TrainingPlan
from weightspace.zoo.store import (
    DESCRIPTION,
    INDEX,
    MANIFEST,
    Record,
    Shard,
    Zoo,
    damaged_networks,
    finish,
    read_description,
    remove_torn,
    shard_path,
    verify,
    write_description,
    write_shard,
)


def make_zoo(
    config: ZooConfig,
    folder: str | Path,
    engine: Engine | None = None,
    *,
    mirror: Mirror | None = None,
    show: bool = True,
) -> Zoo:
    """Make the zoo of `config` in `folder`, or what is still missing of it.

    A run that was killed at any moment and is started again ends in the same zoo, byte for byte: shards that are whole
    are kept, the others made anew, each network from its own seed.

    Args:
        engine: who trains; by default one process a core.
        mirror: where every finished shard is copied to, and where those that are missing here are fetched from.
        show: print the estimate and the progress on standard error.
    Raises:
        ZooError: if the folder holds something else or a zoo of another configuration, another run writes into it, it
            cannot be written to, or the mirror cannot be reached.
        OSError: if the disk is full; finished shards stay.
    """
    folder, engine = Path(folder), engine or ProcessEngine()
    plan(config, 0)  # whatever is wrong with the configuration shows before anything is written
    description = {"config": config.to_json(), "arithmetic": engine.arithmetic, "version": __version__}
    check_place(description, folder)
    if mirror is not None:
        _check_mirror(description, mirror)  # before even a note is left there
    try:
        engine.check()
        with writing(folder), nullcontext() if mirror is None else mirror.writing():
            _make(config, description, folder, engine, mirror, show)
    finally:
        engine.close()
    return Zoo.open(folder)


def _make(
    config: ZooConfig, description: Mapping[str, Any], folder: Path, engine: Engine, mirror: Mirror | None, show: bool
) -> None:
    """Make what is missing of a zoo that no other run writes into."""
    check_place(description, folder)  # again: another run may have come first
    there = set() if mirror is None else _check_mirror(description, mirror)
    if mirror is not None:
        mirror.clear()
    if not (folder / DESCRIPTION).exists():
        write_description(folder, description)
    remove_torn(folder)
    shards = -(-config.count // config.shard_size)
    missing = [number for number in range(shards) if not _is_whole(folder, number, config)]
    if mirror is not None:
        for number in missing:
            if _name(number) in there:
                mirror.fetch(_name(number), folder)
        missing = [number for number in missing if not _is_whole(folder, number, config)]
        if missing:
            mirror.remove(MANIFEST)
            if DESCRIPTION not in there:
                mirror.put(DESCRIPTION, folder)
    complete = False
    with suppress(ZooError):  # a damaged manifest is written again, as a missing one is
        complete = not missing and not verify(folder)
    if not complete:
        (folder / MANIFEST).unlink(missing_ok=True)
        plans = {n: [plan(config, i) for i in _numbers(config, n)] for n in missing}
        _train(plans, folder, engine, mirror, show)
        remove_torn(folder)  # workers outlive a run that was killed by a moment
        finish(folder, shards)
    if mirror is not None:
        mirror.put_missing([DESCRIPTION, *map(_name, range(shards)), INDEX], folder, MANIFEST)


def _check_mirror(description: Mapping[str, Any], mirror: Mirror) -> set[str]:
    """The files that a mirror holds.

    Raises:
        ZooError: if they are not those of a zoo of this description.
    """
    there = set(mirror.sizes())
    content = mirror.get(DESCRIPTION)
    if content is None and there:
        raise ZooError(f"{mirror.url} is not empty and holds no zoo: choose another URL, nothing there was touched")
    if content is not None:
        try:
            found = json.loads(content)
            found = {part: dict(found[part]) for part in ("config", "arithmetic")}
        except (ValueError, KeyError, TypeError):
            raise ZooError(f"{mirror.url}/{DESCRIPTION} is damaged: restore it or choose another URL") from None
        _check_same(found, json.loads(json.dumps(description)), mirror.url)
    return there


def _train(plans: Mapping[int, Plans], folder: Path, engine: Engine, mirror: Mirror | None, show: bool) -> None:
    """Train the plans of the missing shards, saying beforehand how long it may take, and how far it is."""
    total = sum(map(len, plans.values()))
    expected = engine.seconds(plans) if show and plans else 0.0
    with progress_line("training", total=total, unit="networks", enabled=show, expected=expected) as advance:
        engine.run(plans, partial(_write, folder, mirror), advance)


def _name(shard: int) -> str:
    return str(shard_path(Path(), shard))


def _numbers(config: ZooConfig, shard: int) -> range:
    return range(shard * config.shard_size, min(config.count, (shard + 1) * config.shard_size))


def check_place(description: Mapping[str, Any], folder: Path) -> None:
    """Whether a zoo of this description may be made in `folder`, or gone on with.

    Raises:
        ZooError: if it holds something else, or a zoo of another description.
    """
    wanted = json.loads(json.dumps(description))
    if (folder / DESCRIPTION).exists():
        _check_same(read_description(folder, wanted.get("kind", "networks")), wanted, str(folder))
        return
    if folder.exists() and not folder.is_dir():
        raise ZooError(f"{folder} is a file: choose a folder for the zoo")
    # a run that was killed or refused at its very start leaves no more than these
    ours = (".lock", f".{DESCRIPTION}.")
    if folder.exists() and any(not path.name.startswith(ours) for path in folder.iterdir()):
        raise ZooError(f"{folder} is not empty and holds no zoo: choose another folder, nothing in it was touched")


def _check_same(found: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    """Whether two descriptions are of the same zoo.

    Raises:
        ZooError: if they are not; it names what differs.
    """
    differing = []
    for part in ("config", "arithmetic"):
        differing += _differences(found.get(part, {}), wanted.get(part, {}))
    if differing:
        raise ZooError(
            f"{where} holds a zoo of another configuration, which differs in {', '.join(differing)}: choose another "
            "folder, or the options it was made with"
        )


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    names = sorted(found.keys() | wanted.keys())
    return [f"{n} ({found.get(n)!r}, not {wanted.get(n)!r})" for n in names if found.get(n) != wanted.get(n)]


def _is_whole(folder: Path, number: int, config: ZooConfig) -> bool:
    """Whether a shard is there with every weight and label intact, and of just these networks."""
    path = shard_path(folder, number)
    if not path.exists() or damaged_networks(path) != []:
        return False
    rows = Shard.open(path).rows
    wanted = [row for n in _numbers(config, number) for row in _planned(plan(config, n))]
    return len(rows) == len(wanted) and all(map(_fits, rows, json.loads(json.dumps(wanted))))


def _fits(row: dict[str, Any], planned: dict[str, Any]) -> bool:
    """Whether a row of a shard is that of a plan, and not of another zoo's."""
    return all(name in row and row[name] == value for name, value in planned.items())


def _write(folder: Path, mirror: Mirror | None, number: int, networks: Sequence[TrainedNetwork]) -> None:
    write_shard(folder, number, [record for network in networks for record in _records(network)])
    if mirror is not None:
        mirror.put(_name(number), folder)


def _records(trained: TrainedNetwork) -> Iterator[Record]:
    """The checkpoints of a trained network, each a row of the index and a row of a matrix.

    Nothing that varies from run to run may enter.
    """
    from weightspace.zoo.networks import spec_of

    spec = spec_of(trained.plan.architecture)
    for planned in _planned(trained.plan):
        epoch = planned["epoch"]
        last = epoch == trained.plan.epochs
        facts: dict[str, Any] = {**planned, "dropped": trained.dropped, **(trained.measures if last else {})}
        for name, curve in trained.curves.items():
            finite = [value if np.isfinite(value) else None for value in curve[:epoch]]  # JSON has no NaN
            facts[f"{name}_by_epoch"] = finite
            facts[name] = finite[-1] if finite else None
        yield Record(spec, trained.weights if last else trained.snapshots.get(epoch), facts)


def _planned(plan: TrainingPlan) -> list[dict[str, Any]]:
    """What is known of a network's rows, one a checkpoint, before it is trained."""
    row = {
        **plan.hyperparameters,
        "network": plan.network,
        "seed": plan.seed,
        "split": plan.split,
        "architecture": json.dumps(plan.architecture.to_json(), sort_keys=True),
    }
    return [{**row, "epoch": epoch} for epoch in (*plan.checkpoints, plan.epochs)]


# -- leaks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ZooFinding:
    """One thing that `check_zoo` found: damage, or a leak by which a method could score without reading weights."""

    kind: str
    text: str


def check_zoo(folder: str | Path, alpha: float = 1e-3) -> list[ZooFinding]:
    """Verify every checksum, and look for leaks.

    Looked for: labels that the names, shapes, dtypes or order of the arrays give away; labels that go with the split,
    or with the number, the seed or the place in a shard (thirds, halves, and remainders up to 16); the same network, by
    weights or by seed, on both sides of a split.

    Args:
        alpha: chance of any false alarm about labels (chi-square tests of independence, Bonferroni).
    Returns:
        what was found; empty for a sound zoo.
    """
    found = [ZooFinding("damage", text) for text in verify(folder)]
    zoo = Zoo.open(folder)
    try:
        numbers = zoo.column("network")
        if sorted(set(numbers)) != list(range(zoo.description["config"]["count"])):
            found.append(ZooFinding("damage", f"{folder} does not hold each of its networks: make the zoo again"))
        facts = {n: zoo.column(n) for n in ("network", "split", "checksum", "signature", "shard", "row", "seed")}
    except ZooError as error:
        return [*found, ZooFinding("damage", str(error))]
    kept = facts["row"] >= 0
    found += _twins({name: column[kept] for name, column in facts.items()})
    kept = zoo.rows()  # checkpoints of one network have its labels in common
    facts = {name: column[kept] for name, column in facts.items()}
    config = zoo.description["config"]
    asked = [name for name in config["space"] if name not in config["architectural"] and name in zoo.columns]
    columns = {name: np.array([str(value) for value in zoo.column(name)[kept]]) for name in asked}
    columns = {name: labels for name, labels in columns.items() if 1 < len(set(labels)) <= 50}
    clues = _clues(facts)
    for name, labels in columns.items():
        ranked = sorted((_association(labels, clue), what) for what, clue in clues)
        if ranked and ranked[0][0] < alpha / (len(clues) * len(columns)):
            p, what = ranked[0]
            text = f"label {name!r} can be told from the {what} (p = {p:.1e}): make it independent of it"
            found.append(ZooFinding("leak", text))
    return found


def _clues(facts: dict[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """What a method could see of a network without reading its weights, each in a few categories."""
    count = max(1, len(facts["network"]))
    clues = [
        ("names, shapes, dtypes or order of the arrays", facts["signature"]),
        ("split", facts["split"]),
        ("number of the network", np.arange(count) * 3 // count),
    ]
    for what, name in (("number of the network", "network"), ("seed", "seed"), ("shard", "shard"), ("place", "row")):
        values = facts[name].astype(np.int64)
        clues.append((f"{what} (its half)", values > np.median(values)))
        clues += [(f"{what} (remainder by {k})", values % k) for k in (2, 3, 4, 5, 8, 16)]
    return clues


def _twins(facts: dict[str, np.ndarray]) -> list[ZooFinding]:
    """Networks that stand on both sides of a split, as checkpoints, by their weights or by their seed."""
    found = []
    for what, key in (("number", "network"), ("weights", "checksum"), ("seed", "seed")):
        sides: dict[Any, set[str]] = {}
        for value, split in zip(facts[key], facts["split"], strict=True):
            sides.setdefault(value, set()).add(split)
        shared = [value for value, where in sides.items() if len(where) > 1]
        if shared:
            text = f"{len(shared)} networks stand on both sides of a split by their {what}, the first is {shared[0]}"
            found.append(ZooFinding("leak", text))
    return found


def _association(labels: np.ndarray, clue: np.ndarray) -> float:
    """P-value of independence between two categorical columns (chi-square; 1 if one of them is constant)."""
    from scipy.stats import chi2_contingency

    _, rows = np.unique(labels, return_inverse=True)
    _, columns = np.unique(clue.astype(str), return_inverse=True)
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)
    if min(table.shape) < 2:
        return 1.0
    test: Any = chi2_contingency(table)  # scipy has no types
    return float(test.pvalue)


def info(folder: str | Path) -> dict[str, Any]:
    """What a zoo holds: counts, splits, drops by reason, accuracy, sizes on disk, hash of its manifest."""
    zoo = Zoo.open(folder)
    every, kept = len(zoo.rows(checkpoints=True)), zoo.rows()
    lost = zoo.column("row") < 0
    _, firsts = np.unique(zoo.column("network")[lost], return_index=True)
    reasons = [str(r).split(":")[0] for r in zoo.column("dropped")[lost][firsts]]
    accuracy = zoo.column("test_accuracy")[kept].astype(float)
    accuracy = accuracy[np.isfinite(accuracy)]  # networks of no epochs have none
    splits = zoo.column("split")[kept]
    return {
        "folder": str(folder),
        "recipe": zoo.description["config"]["recipe"],
        "seed": zoo.description["config"]["seed"],
        "version": zoo.description["version"],
        "networks": len(kept),
        "checkpoints": every,
        "dropped": {reason: reasons.count(reason) for reason in sorted(set(reasons))},
        "splits": {name: int((splits == name).sum()) for name in ("train", "validation", "test")},
        "architectures": len(zoo.specs),
        "parameters": _sizes(zoo),
        "test_accuracy": {
            name: round(float(value), 4)
            for name, value in zip(("min", "median", "max"), np.quantile(accuracy, [0, 0.5, 1]), strict=True)
        }
        if len(accuracy)
        else {},
        "labels": {name: config_values(spec) for name, spec in zoo.description["config"]["space"].items()},
        "bytes": sum(path.stat().st_size for path in zoo.folder.rglob("*") if path.is_file()),
        "manifest_sha256": file_hash(zoo.folder / MANIFEST),
    }


def _sizes(zoo: Zoo) -> list[int] | dict[str, int]:
    """Weights of a network: the different sizes, or, of more than eight, the ends and the median over networks."""
    sizes = np.array([spec.size for spec in zoo.specs], np.int64)
    if len(set(sizes.tolist())) <= 8:
        return sorted(set(sizes.tolist()))
    each = sizes[zoo.spec_ids(zoo.rows())]
    return {"min": int(each.min()), "median": int(np.median(each)), "max": int(each.max())}


def config_values(distribution: dict[str, Any]) -> Any:
    """A distribution of a zoo's description in a form that reads well: the list of choices, or its kind and range."""
    match distribution["kind"]:
        case "Choice":
            return list(distribution["values"])
        case "Given":
            cases = "; ".join(f"{case} {config_values(inner)}" for case, inner in distribution["cases"].items())
            return f"given {distribution['on']}: {cases}"
        case "Subset":
            return f"{distribution['count']} of {distribution['of']}, in random order"
        case "Dirichlet":
            return f"{distribution['size']} shares, Dirichlet of concentration {distribution['concentration']}"
        case kind:
            return f"{kind} {distribution['low']} to {distribution['high']}"
