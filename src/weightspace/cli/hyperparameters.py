"""Studies that ask every method for the hyperparameters of networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from weightspace.cli.arguments import Positional
from weightspace.cli.options import some
from weightspace.cli.output import say, say_json, say_tables


def curve(
    zoo: Positional[Path],
    counts: tuple[int, ...] = (60, 120, 240, 480),
    methods: tuple[str, ...] = (),
    seeds: int = 1,
    out: Path | None = None,
    json: bool = False,
) -> int:
    """Mean accuracy over all hyperparameters after training on so many networks; a killed run goes on.

    Args:
        zoo: made by `weightspace zoo make`, or imported.
        counts: of training networks.
        methods: some of them, by the names that the tables call them; all unless given.
        seeds: trainings of each method.
        out: folder of answers and checkpoints; runs/hyperparameters/ZOO-curve unless given.
        json: print JSON: a row for each count, method and target.

    Examples:
        weightspace hyperparameters curve zoos/digits-small
        weightspace hyperparameters curve zoos/digits-small --counts 60 240 --seeds 3
    """
    from weightspace.evaluation.seeds import curve_table
    from weightspace.experiments.hyperparameters import GROWING, learning_curve
    from weightspace.zoo.store import Zoo

    place = out or Path("runs/hyperparameters") / f"{zoo.name}-curve"
    chosen = some(methods, GROWING, "method")
    found = learning_curve(Zoo.open(zoo), place, counts, methods=chosen, seeds=seeds)
    if json:
        return say_json([{"training_networks": count, **asdict(row)} for count, rows in found.items() for row in rows])
    return say(curve_table(found))


def study(
    zoo: Path,
    out: Path | None,
    methods: Sequence[str],
    targets: Sequence[str],
    *,
    networks: int | None,
    labelled: float,
    larger: bool,
    seeds: int,
    checkpoints: bool,
    json: bool,
) -> int:
    """What `compare --methods` does: fits them all over seeds and prints the tables; tables.md has them too."""
    from weightspace.evaluation.seeds import property_tables
    from weightspace.experiments.hyperparameters import METHODS, VARIANTS, ask
    from weightspace.files.atomic import write_atomically
    from weightspace.zoo.store import Zoo

    found = Zoo.open(zoo)
    family, *named = methods if methods[0] in ("all", "variants") else ("all", *methods)
    options = {"variants": family == "variants", "larger": larger, "checkpoints": checkpoints}
    name = "-".join([zoo.name, *(option for option, chosen in options.items() if chosen)])
    name += f"-{labelled:g}-labelled" if labelled < 1 else ""
    name += f"-{networks}-networks" if networks is not None else ""
    place = out or Path("runs/hyperparameters") / name
    said, training, test = ask(
        found,
        place,
        methods=some(tuple(named), VARIANTS if family == "variants" else METHODS, "method"),
        targets=targets or None,
        networks=networks,
        labelled=labelled,
        larger=larger,
        seeds=seeds,
        checkpoints=checkpoints,
    )
    tables = property_tables(said, training, test)
    text = "\n\n".join(f"{title}\n\n{table}" for title, table in tables.items())
    write_atomically(place / "tables.md", f"{text}\n".encode())
    say_tables(tables, json)
    return 0 if json else say(f"\n{place / 'tables.md'}")
