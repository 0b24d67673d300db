"""Verbs of zoos: made, looked at, checked, imported and published."""

from __future__ import annotations

from pathlib import Path

from weightspace.cli.arguments import Positional
from weightspace.cli.output import say, say_json


def make(
    recipe: Positional[str],
    out: str | None = None,
    count: int | None = None,
    seed: int | None = None,
    images: str | None = None,
    data: Path | None = None,
    epochs: int | None = None,
    shard_size: int | None = None,
    engine: str = "process",
    workers: int | None = None,
    stack: int | None = None,
    device: str = "cuda",
    address: str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    mode: str | None = None,
    lengths: tuple[int, ...] = (),
    json: bool = False,
) -> int:
    """Make a population of trained networks or compiled programs; a killed run goes on when it is called again.

    Args:
        recipe: which population: digits-small, mnist-small, fashion-mnist-small, cnn-s, smallcnn, eilertsen-varied,
            eilertsen-fixed, backdoors-small, backdoors-wide, backdoors-varied or backdoors-diverse; asked what they
            were trained on and from which they come, subsets-small, subsets-varied, subsets-mlp, mixtures-small or
            lineage-small; for a GPU cnn-s-paper, smallcnn-paper, eilertsen-varied-paper, eilertsen-fixed-paper or
            backdoors-paper; of programs rasp-typed or rasp-paper; of small language models heads-small, which takes
            --out, --count and --seed; of transformers with known circuits circuits-small, circuits-tiny, and as
            controls that learn behaviour alone circuits-small-behaviour and circuits-tiny-behaviour, which take
            --workers too.
        out: folder of the zoo; zoos/RECIPE unless given. With a URL, such as s3://BUCKET/NAME, the zoo is made in
            zoos/NAME and each of its files copied there, and what is there already is fetched.
        count: number of networks, instead of the recipe's.
        seed: of the zoo.
        images: image set, instead of the recipe's; several, separated by commas, where a recipe draws it.
        data: folder in which the images are looked for first.
        epochs: passes over the training images, instead of the recipe's.
        shard_size: networks a shard, the unit that is made anew after a kill; the engine `stacked` wants thousands.
        engine: process (one single-threaded process a core), stacked (hundreds of networks at once on a GPU) or ray (a
            job a shard on the nodes of a cluster).
        workers: processes of the engine `process`, one a core unless given; of `ray` most jobs given out at a time.
        stack: most networks trained in one vectorised step; 1 on a CPU, 512 on a GPU.
        device: where the engine `stacked` trains.
        address: HOST:PORT of the cluster of the engine `ray`, auto for that of this machine, local for one of this
            machine alone; unless given RAY_ADDRESS, else auto, else local.
        cpus: cores that a job of the engine `ray` takes, for its memory: it computes on one; 1 unless given.
        gpus: GPUs that a job of the engine `ray` takes, perhaps a fraction; none unless given.
        mode: how programs are compiled: tracr_compat, as Tracr does, or fixed.
        lengths: lengths of programs that are wanted, equally likely, instead of those published: of rasp-typed S-ops
            with the inputs counted, 2 to 20; of rasp-paper instructions, 3 to 15.
        json: print what the zoo holds as JSON.

    Examples:
        weightspace zoo make digits-small --workers 2
        weightspace zoo make rasp-typed --count 10000 --out zoos/programs
    """
    from weightspace.pairs.card import RECIPES

    if recipe == "heads-small" or recipe in RECIPES:
        given: dict[str, object] = {
            "images": images,
            "data": data,
            "epochs": epochs,
            "shard-size": shard_size,
            "stack": stack,
            "mode": mode,
            "lengths": lengths or None,
        }
        if recipe != "heads-small":
            from weightspace.cli.pairs import make_pairs

            return make_pairs(recipe, out, count, seed, workers, given, json)
        return _make_heads(out, count, seed, {**given, "workers": workers}, json)
    from weightspace.zoo.orders import make_to_order

    means = {"workers": workers, "device": device, "stack": stack, "address": address, "cpus": cpus, "gpus": gpus}
    folder = make_to_order(
        recipe,
        out,
        shared={"count": count, "seed": seed, "shard_size": shard_size},
        trained={"images": images, "data": None if data is None else str(data), "epochs": epochs},
        compiled={"mode": mode, "lengths": lengths},
        engine=engine,
        means=means,
    )
    return info(folder, json)


def _make_heads(out: str | None, count: int | None, seed: int | None, given: dict[str, object], json: bool) -> int:
    """The zoo of small language models, one after the other."""
    from weightspace.heads.model_zoo import COUNT, make_model_zoo, model_zoo_info

    for option, value in given.items():
        if value is not None:
            raise ValueError(f"--{option} says nothing of a zoo of small language models: leave it out")
    if out is not None and "://" in out:
        raise ValueError(
            f"a zoo of small language models is made in a folder, and {out} is a URL: give a folder with --out"
        )
    folder = Path(out or "zoos/heads-small")
    make_model_zoo(folder, COUNT if count is None else count, seed or 0)
    facts = model_zoo_info(folder)
    return say_json(facts) if json else say("\n".join(f"{name}: {value}" for name, value in facts.items()))


def info(zoo: Positional[Path], json: bool = False) -> int:
    """What a zoo holds: counts, splits, accuracy, labels.

    Args:
        zoo: its folder.
        json: print JSON.

    Examples:
        weightspace zoo info zoos/digits-small
        weightspace zoo info zoos/digits-small --json
    """
    from weightspace.pairs.card import DESCRIPTION
    from weightspace.zoo.making import info
    from weightspace.zoo.programs.inspection import program_zoo_info
    from weightspace.zoo.store import read_description

    if (zoo / DESCRIPTION).is_file():
        from weightspace.cli.pairs import card

        return card(zoo, json)
    facts = (program_zoo_info if read_description(zoo)["kind"] == "programs" else info)(zoo)
    if json:
        return say_json(facts)
    lines = []
    for name, value in facts.items():
        pairs = value.items() if isinstance(value, dict) else [("", value)]
        lines += [f"{name if i == 0 else '':<17}{key}{': ' if key else ''}{x}" for i, (key, x) in enumerate(pairs)]
    return say("\n".join(lines))


def check(zoo: Positional[Path], json: bool = False) -> int:
    """Verify every checksum of a zoo and look for leaks; exit status 1 if something was found.

    Args:
        zoo: its folder.
        json: print JSON.

    Examples:
        weightspace zoo check zoos/digits-small
        weightspace zoo check zoos/digits-small --json
    """
    from weightspace.zoo.making import check_zoo
    from weightspace.zoo.programs.inspection import check_program_zoo
    from weightspace.zoo.store import read_description

    found = (check_program_zoo if read_description(zoo)["kind"] == "programs" else check_zoo)(zoo)
    if json:
        say_json([{"kind": finding.kind, "text": finding.text} for finding in found])
    else:
        say("\n".join(f"{finding.kind}: {finding.text}" for finding in found) or f"{zoo}: sound, no leaks found")
    return 1 if found else 0


def import_(
    kind: Positional[str],
    sources: Positional[tuple[str, ...]],
    out: Path,
    labels: tuple[str, ...] = (),
    csv: Path | None = None,
    topology: str = "unknown",
    part: str | None = None,
    layer: str | None = None,
    splits: Path | None = None,
    images: str | None = None,
    epochs: tuple[int, ...] = (),
    count: int | None = None,
    seed: int = 0,
    shard_size: int = 0,
    json: bool = False,
) -> int:
    """Import networks that somebody has trained already; a killed run goes on when it is called again.

    Nothing in a file is executed. What cannot be imported is counted, with the first example of each reason.

    Args:
        kind: modelzoos (Schürholt et al.), small-cnn-zoo (Unterthiner et al.), eilertsen (Eilertsen et al.),
            model-jungle (Horwitz et al.), state-dicts (files and a CSV of labels) or huggingface; docs/importing.md has
            the forms.
        sources: the folder, or of huggingface one or several hf://OWNER/NAME@REVISION.
        out: folder of the zoo.
        labels: what to ask for; a network without one of them is skipped. Every column unless given.
        csv: labels of state-dicts (unless their folder holds one CSV file) and of huggingface.
        topology: how the arrays of state-dicts and huggingface are connected: unknown, chain or transformer.
        part: of files with several networks, such as {"model": ..., "ema": ...}, the keys that lead to the one that is
            meant, with dots between them; . is the file itself.
        layer: of model-jungle the name of the one array that is taken of each model; all unless given.
        splits: of small-cnn-zoo a published order of its rows, such as cifar10_split.csv, whose splits are then used.
        images: image set that the networks were trained on, if the source does not say it.
        epochs: which checkpoints; all unless given.
        count: most networks, drawn at random.
        seed: decides the order of the networks and their splits.
        shard_size: networks a shard; 0 chooses.
        json: print what was imported as JSON.

    Examples:
        weightspace zoo import state-dicts checkpoints --csv labels.csv --out zoos/mine
        weightspace zoo import huggingface hf://OWNER/NAME@REVISION --out zoos/theirs
    """
    from weightspace.zoo.importers.imported import import_zoo, summary

    given = {"labels": labels, "table": csv, "topology": topology, "part": part, "images": images, "epochs": epochs}
    given |= {"layer": layer, "splits": splits}
    found = import_zoo(kind, sources, out, count=count, seed=seed, shard_size=shard_size, **given)
    return say_json(found.to_json()) if json else say(f"{summary(found)}\n{out}")


def push(
    zoo: Positional[Path],
    to: Positional[str],
    license: str = "unknown",  # noqa: A002
    private: bool = False,
    replace: bool = False,
    json: bool = False,
) -> int:
    """Publish a zoo with its card; a killed push goes on when it is called again.

    Args:
        zoo: its folder; it has to be complete and sound.
        to: OWNER/NAME on the hub, for which HF_TOKEN has to be set; or a folder, as ./FOLDER, /FOLDER or file:FOLDER.
        license: for the card, as the hub names it, such as cc-by-4.0.
        private: if the repository has to be made, for you alone.
        replace: let it take the place of something else that is there; on the hub that stays in the history.
        json: print address and revision as JSON.

    Examples:
        weightspace zoo push zoos/digits-small OWNER/NAME --license cc-by-4.0
        weightspace zoo push zoos/digits-small ./published
    """
    from weightspace.experiments.publications import push_zoo

    sent = push_zoo(zoo, to, license_name=license, private=private, replace=replace)
    return say_json(sent.to_json()) if json else say(f"{sent.address}\n{sent}")


def pull(source: Positional[str], out: Path, json: bool = False) -> int:
    """Fetch a published zoo, every checksum compared; a killed pull goes on when it is called again.

    Nothing in it is executed, and no folder that holds something else is written into.

    Args:
        source: OWNER/NAME or OWNER/NAME@REVISION on the hub; or a folder, as ./FOLDER, /FOLDER or file:FOLDER.
        out: folder of the zoo.
        json: print address and revision as JSON.

    Examples:
        weightspace zoo pull OWNER/NAME --out zoos/theirs
        weightspace zoo pull ./published --out zoos/copy
    """
    from weightspace.experiments.publications import pull_zoo

    got = pull_zoo(source, out)
    return say_json(got.to_json()) if json else say(f"{out}, from {got.address}\n{got}")
