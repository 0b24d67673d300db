"""Verbs that ask every method for the hyperparameters of networks."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from weightspace.cli.options import some
from weightspace.cli.output import say


def compare(
    zoo: Positional[Path],
    methods: tuple[str, ...] = (),
    targets: tuple[str, ...] = (),
    networks: int | None = None,
    labelled: float = 1.0,
    larger: bool = False,
    seeds: int = 1,
    checkpoints: bool = False,
    variants: bool = False,
    out: Path | None = None,
) -> int:
    """Fit every method on a zoo's training split and print the tables of its test split; a killed run goes on.

    Args:
        zoo: made by `weightspace zoo make`, or imported.
        methods: some of them, by the names that the tables call them; all unless given.
        targets: what is asked; all hyperparameters that are choices, and all quantities, unless given.
        networks: how many training networks are used; all unless given.
        labelled: share of the training and validation networks whose labels are known, above 0 to 1.
        larger: train on networks with fewer weights than the median, and ask about the others.
        seeds: trainings of each method.
        variants: of the meta-model, one choice changed at a time, instead of the methods.
        checkpoints: train on and ask about every stored checkpoint, and ask for its epoch too.
        out: folder of answers, checkpoints and tables.md; in runs/hyperparameters, after the zoo and options, unless
            given.
    """
    from weightspace.evaluation.seeds import property_tables
    from weightspace.experiments.hyperparameters import METHODS, VARIANTS, ask
    from weightspace.files.atomic import write_atomically
    from weightspace.zoo.store import Zoo

    found = Zoo.open(zoo)
    options = {"variants": variants, "larger": larger, "checkpoints": checkpoints}
    name = "-".join([zoo.name, *(option for option, chosen in options.items() if chosen)])
    name += f"-{labelled:g}-labelled" if labelled < 1 else ""
    name += f"-{networks}-networks" if networks is not None else ""
    place = out or Path("runs/hyperparameters") / name
    said, training, test = ask(
        found,
        place,
        methods=some(methods, VARIANTS if variants else METHODS, "method"),
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
    return say(f"{text}\n\n{place / 'tables.md'}")


def curve(
    zoo: Positional[Path],
    counts: tuple[int, ...] = (60, 120, 240, 480),
    methods: tuple[str, ...] = (),
    seeds: int = 1,
    out: Path | None = None,
) -> int:
    """Mean accuracy over all hyperparameters after training on so many networks; a killed run goes on.

    Args:
        zoo: made by `weightspace zoo make`, or imported.
        counts: of training networks.
        methods: some of them, by the names that the tables call them; all unless given.
        seeds: trainings of each method.
        out: folder of answers and checkpoints; runs/hyperparameters/ZOO-curve unless given.
    """
    from weightspace.evaluation.seeds import curve_table
    from weightspace.experiments.hyperparameters import GROWING, learning_curve
    from weightspace.zoo.store import Zoo

    place = out or Path("runs/hyperparameters") / f"{zoo.name}-curve"
    chosen = some(methods, GROWING, "method")
    return say(curve_table(learning_curve(Zoo.open(zoo), place, counts, methods=chosen, seeds=seeds)))
