"""Verbs that ask where a network comes from: the network that it is derived from, and what it was trained on."""

from __future__ import annotations

from json import dumps
from pathlib import Path

from weightspace.cli.arguments import Positional
from weightspace.cli.output import fail, say, say_facts, say_json
from weightspace.errors import ScopeError


def lineage(
    network: Positional[Path],
    other: Positional[Path],
    alarms: float = 0.01,
    most: int = 5,
    cache: Path | None = None,
    seed: int = 0,
    json: bool = False,
) -> int:
    """Say whether two networks are related: one derived from the other, or both from a third. Weights alone are read.

    Filters are matched under any order and scale of neurons, so finetuning, pruning, quantising, reordering and
    rescaling do not hide it. Exit status 0 if they are related, 1 if no sign of it was found, 2 if they cannot be
    compared. Nothing in a file is executed.

    Args:
        network: a checkpoint of any kind that is read.
        other: another one; or a folder of checkpoints, or a zoo, of which the most alike is looked for.
        alarms: share of unrelated networks that may be called related.
        most: of a folder, how many of the most alike are told.
        cache: of a folder, where what is read of files is kept by their hashes, so that the next search is faster.
        seed: of the random networks that say how alike unrelated ones are.
        json: print JSON.

    Examples:
        weightspace lineage mine.safetensors theirs.pt
        weightspace lineage theirs.pt checkpoints --cache .lineage --json
    """
    from weightspace.provenance.lineage import lineage as compare
    from weightspace.provenance.lineage import lineage_among
    from weightspace.provenance.wording import lineage_text

    if other.is_dir():
        found = lineage_among(network, other, alarms=alarms, most=most, cache=cache, seed=seed)
    else:
        found = compare(network, other, alarms=alarms, seed=seed)
    say_json(found.to_json()) if json else say(lineage_text(found))
    return 0 if found.related else 1


def study(
    zoo: Positional[Path],
    methods: tuple[str, ...] = (),
    seeds: int = 3,
    count: int | None = None,
    shuffles: int = 0,
    out: Path | None = None,
    json: bool = False,
) -> int:
    """Ask a zoo's networks what they were trained on, by every method: readers of weights, probes, and baselines.

    Args:
        zoo: its folder, such as that of `weightspace zoo make subsets-small`.
        methods: names of methods; all unless given.
        seeds: fits of each method that has something random.
        count: training networks; all unless given.
        shuffles: fits with shuffled labels of the methods that learn a network, as a control; ten are wanted for it.
        out: a file for the figures as JSON.
        json: print JSON.

    Examples:
        weightspace provenance study zoos/subsets-small --seeds 3 --shuffles 10
        weightspace provenance study zoos/subsets-small --methods "Gram + logistic" "path templates" --count 100
    """
    from weightspace.cli.options import check_destinations
    from weightspace.files.atomic import write_atomically
    from weightspace.provenance.study import study as ask
    from weightspace.provenance.study import table
    from weightspace.zoo.store import Zoo

    check_destinations(zoo, {"--out": out})
    if seeds < 1 or shuffles < 0 or (count is not None and count < 1):
        raise ValueError("--seeds and --count are at least 1, --shuffles at least 0")
    found = ask(Zoo.open(zoo), methods, seeds=seeds, count=count, shuffles=shuffles)
    if out is not None:
        write_atomically(out, dumps(found.to_json(), indent=1).encode())
    return say_json(found.to_json()) if json else say(table(found))


def provenance(
    files: Positional[tuple[Path, ...]], reader: Path | None = None, html: Path | None = None, json: bool = False
) -> int:
    """Say what networks were trained on: which classes, how sure, and whether they are of a kind that is known.

    Nothing in a file is executed. Exit status 0; 4 if a network is unlike those that the reader was trained on, or of
    another architecture.

    Args:
        files: checkpoints of any kind that is read.
        reader: one that `weightspace provenance train` made; the one that comes with the package unless given.
        html: a page for people, with a picture for each output; of one file.
        json: print JSON: an object for each file.

    Examples:
        weightspace provenance model.safetensors --html provenance.html
        weightspace provenance one.pt two.safetensors --reader mine.safetensors --json
    """
    from weightspace import EXAMPLES
    from weightspace.cli.options import check_destinations
    from weightspace.provenance.answer import provenance as ask
    from weightspace.provenance.page import provenance_text, write_page
    from weightspace.provenance.reader import ProvenanceReader

    several = list(files)
    if not several:
        raise ValueError("nothing to ask about: name at least one file")
    if html is not None and len(several) > 1:
        raise ValueError("--html is a page about one network: name one file")
    check_destinations(several[0], {"--html": html})
    judge = ProvenanceReader.load(EXAMPLES / "provenance-reader.safetensors" if reader is None else reader)
    try:
        found = [ask(file, judge) for file in several]
    except ScopeError as error:
        return fail(str(error), code=4)
    say_json([one.to_json() for one in found]) if json else say("\n\n".join(map(provenance_text, found)))
    if html is not None:
        write_page(found[0], html)
    return 0 if all(one.typical for one in found) else 4


def train(zoo: Positional[Path], out: Path, fits: int = 3, foreign: tuple[Path, ...] = (), json: bool = False) -> int:
    """Train a reader of what networks were trained on, calibrate it, and score it on the zoo's test networks.

    Args:
        zoo: its folder, such as that of `weightspace zoo make subsets-small`.
        out: the reader's file.
        fits: readers that answer together.
        foreign: zoos of networks that were trained on other images; of each it is said how many are called unlike.
        json: print the figures as JSON.

    Examples:
        weightspace provenance train zoos/subsets-small --out reader.safetensors
        weightspace provenance train zoos/subsets-small --out reader.safetensors --fits 1 --foreign zoos/mnist --json
    """
    from weightspace.cli.options import check_destinations
    from weightspace.provenance.card import check_alike, figures, trained
    from weightspace.zoo.store import Zoo

    check_destinations(zoo, {"--out": out})
    if fits < 1:
        raise ValueError("--fits is at least 1")
    opened, others = Zoo.open(zoo), [Zoo.open(folder) for folder in foreign]
    check_alike(opened, others)
    return say_facts(figures(trained(opened, out, fits), opened, others), json)


def lineage_study(zoo: Positional[Path], seed: int = 0, json: bool = False) -> int:
    """Hold every child of a zoo of families against all of its parents: how often matching finds the right one.

    Args:
        zoo: its folder, such as that of `weightspace zoo make lineage-small`.
        seed: of the pairs of unrelated networks, and of surrogates.
        json: print JSON.

    Examples:
        weightspace lineage study zoos/lineage-small
        weightspace lineage study zoos/lineage-small --json
    """
    from weightspace.provenance.lineage_study import lineage_study as ask
    from weightspace.provenance.lineage_study import lineage_table
    from weightspace.zoo.store import Zoo

    found = ask(Zoo.open(zoo), seed)
    return say_json(found.to_json()) if json else say(lineage_table(found))
