"""Verbs that scan checkpoints for backdoors, and compare, train, score and repair."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from weightspace.cli.arguments import Positional
from weightspace.cli.options import check_destinations, some
from weightspace.cli.output import fail, say, say_facts, say_json, say_tables
from weightspace.errors import printable

if TYPE_CHECKING:
    from weightspace.backdoors.verdict import Verdict

FailOn = Literal["suspicious", "unreadable", "out-of-scope", "not-looked-at"]
_VERDICTS: dict[FailOn, Verdict] = {
    "suspicious": "suspicious",
    "unreadable": "unreadable",
    "out-of-scope": "out_of_scope",
    "not-looked-at": "not_looked_at",
}


def scan(
    targets: Positional[tuple[str, ...]],
    fpr: float = 0.05,
    detector: Path | None = None,
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    allow: Path | None = None,
    cache: Path | None = None,
    fail_on: tuple[FailOn, ...] = ("suspicious", "unreadable", "out-of-scope"),
    json: bool = False,
    sarif: Path | None = None,
    html: Path | None = None,
) -> int:
    """Say of checkpoints whether their weights look like those of networks with a backdoor.

    Nothing in a file is executed. What a file is its content says, whatever it is called; every file of a folder is
    judged, counted by its kind, or named with the reason. Exit status 0 clean, 1 suspicious, 2 wrong usage or a report
    that could not be written, 3 unreadable or refused, 4 out of the detector's scope; of several files that of the
    gravest: suspicious, then unreadable, then out of scope.

    Args:
        targets: files, folders (everything below them) or hf://OWNER/NAME@REVISION.
        fpr: share of clean networks that may be called suspicious.
        detector: one that `weightspace backdoors train` made, in place of that of its kind, for one architecture or
            for many, which comes with the package.
        include: of folders and repositories only what fits one of these globs, such as "*.pt" or "runs/*/last".
        exclude: what fits one of these globs is left out.
        allow: a file of SHA-256 hashes, one a line and comments after #, of files that are known and not judged.
        cache: a folder where results are kept by the hashes of file and detector; no verdict is changed by it.
        fail_on: verdicts that give an exit status other than 0; not-looked-at gives 5.
        json: print JSON.
        sarif: a file for SARIF 2.1.0.
        html: a page for people.

    Examples:
        weightspace scan model.safetensors
        weightspace scan checkpoints hf://OWNER/NAME@REVISION --sarif scan.sarif --html scan.html
    """
    from weightspace.backdoors.allow_list import read_allow_list
    from weightspace.backdoors.general_detector import detectors_for
    from weightspace.backdoors.page import write_sarif, write_scan
    from weightspace.backdoors.scan import scan as judge
    from weightspace.backdoors.summary import summary

    sources = [Path(target) for target in targets if not target.startswith("hf://")]
    for source in sources or [Path()]:
        check_destinations(source, {"--sarif": sarif, "--html": html})
    if cache is not None and cache.exists() and not cache.is_dir():
        raise ValueError(f"--cache {cache} is a file: name a folder")
    special, general = detectors_for(detector)
    found = judge(
        targets,
        special,
        general=general,
        false_alarms=fpr,
        include=include,
        exclude=exclude,
        allowed=frozenset() if allow is None else read_allow_list(allow),
        results=cache,
        failing=tuple(_VERDICTS[word] for word in fail_on),
    )
    with suppress(BrokenPipeError):  # printed before anything is written, so that a full disk does not take it away
        say_json(found.to_json()) if json else say(summary(found))
    unwritten = 0
    for path, write in ((sarif, write_sarif), (html, write_scan)):
        if path is None:
            continue
        try:
            write(found, path)
        except OSError as error:  # the others are written all the same
            why = (error.strerror or str(error)).lower()
            unwritten = fail(f"{path} could not be written ({why}): the verdicts are those that were printed")
            continue
        if not json:
            with suppress(BrokenPipeError):
                say(printable(str(path)))
    return found.exit_status or unwritten


def compare(
    zoo: Positional[Path],
    detectors: tuple[str, ...] = (),
    attacks: tuple[str, ...] = (),
    success: float = 0.5,
    networks: int | None = None,
    out: Path = Path("runs/backdoors"),
    json: bool = False,
) -> int:
    """Fit every detector on a zoo's training split and print the tables of its test split; a killed run goes on.

    Args:
        zoo: made by `weightspace zoo make backdoors-small`.
        detectors: some of them, by the names that the tables call them; all unless given.
        attacks: those that are trained on; all unless given. All are tested.
        success: least success of an attack for its network to be trained on; 0 for all, as in the paper.
        networks: how many training networks are used; all unless given.
        out: folder of checkpoints, answers, and tables.md: every measure of every table; AUROC alone is printed.
        json: print JSON.

    Examples:
        weightspace backdoors compare zoos/backdoors-small
        weightspace backdoors compare zoos/backdoors-small --networks 300 --out runs/few
    """
    from weightspace.backdoors.detection import TABLES, area_table, detection_rows, markdown, time_table
    from weightspace.experiments.backdoors import DETECTORS, detect
    from weightspace.files.atomic import write_atomically
    from weightspace.zoo.store import Zoo

    chosen = some(detectors, DETECTORS, "detector")
    answers = detect(Zoo.open(zoo), out, detectors=chosen, attacks=attacks or None, success=success, networks=networks)
    rows = detection_rows(answers)
    full = {name: markdown(rows[name]) for name in TABLES if rows[name]} | {"time": time_table(answers)}
    short = {name: area_table(rows[name]) for name in TABLES[1:] if rows[name]}

    def text(tables: dict[str, str]) -> str:
        return "\n\n".join(f"{name}\n\n{table}" for name, table in tables.items())

    write_atomically(out / "tables.md", f"{text(full)}\n".encode())
    if json:
        return say_json({name: [asdict(row) for row in some] for name, some in rows.items()})
    return say(f"{text({**full, **short})}\n\n{out / 'tables.md'}")


def transfer(
    zoo: Positional[Path],
    detectors: tuple[str, ...] = (),
    success: float = 0.5,
    out: Path = Path("runs/transfer"),
    json: bool = False,
) -> int:
    """AUROC on working attacks after training on each attack alone, and on all but each; a killed run goes on.

    Args:
        zoo: made by `weightspace zoo make backdoors-small`.
        detectors: some of the quick ones; all of these unless given.
        success: least success of an attack for its network to be trained on.
        out: folder of checkpoints, answers, and figure3.svg: the ROC curves of the paper's panels.
        json: print JSON.

    Examples:
        weightspace backdoors transfer zoos/backdoors-small
        weightspace backdoors transfer zoos/backdoors-small --success 0.9 --json
    """
    from weightspace.backdoors.detection import held_out_table, transfer_table
    from weightspace.experiments.backdoors import QUICK, figure_3, transfer
    from weightspace.files.atomic import write_atomically
    from weightspace.zoo.store import Zoo

    chosen = some(detectors, QUICK, "quick detector")
    alone, without = transfer(Zoo.open(zoo), out, detectors=chosen, success=success)
    tables = {"all attacks but one, tested on that one": held_out_table(without)}
    for position, name in enumerate(chosen):
        tables[f"one attack, {name}"] = transfer_table({attack: found[position] for attack, found in alone.items()})
    panels, picture = figure_3(alone)
    tables["the panels of Figure 3"] = panels
    if picture is not None:
        write_atomically(out / "figure3.svg", picture.encode())
    return say_tables(tables, json)


def curve(
    zoo: Positional[Path],
    counts: tuple[int, ...] = (75, 150, 300, 600),
    detectors: tuple[str, ...] = (),
    success: float = 0.5,
    out: Path = Path("runs/curve"),
    json: bool = False,
) -> int:
    """AUROC on working attacks after training on so many networks; a killed run goes on.

    Args:
        zoo: made by `weightspace zoo make backdoors-small`.
        counts: of training networks.
        detectors: some of the quick ones; all of these unless given.
        success: least success of an attack for its network to be trained on.
        out: folder of checkpoints and answers.
        json: print JSON.

    Examples:
        weightspace backdoors curve zoos/backdoors-small
        weightspace backdoors curve zoos/backdoors-small --counts 75 300
    """
    from weightspace.backdoors.detection import side_by_side
    from weightspace.experiments.backdoors import QUICK, learning_curve
    from weightspace.zoo.store import Zoo

    found = learning_curve(
        Zoo.open(zoo), out, counts, detectors=some(detectors, QUICK, "quick detector"), success=success
    )
    return say_tables({"AUROC": side_by_side({f"{count} networks": one for count, one in found.items()})}, json)


def widths(
    zoo: Positional[Path],
    wide: Positional[Path],
    detectors: tuple[str, ...] = (),
    success: float = 0.5,
    out: Path = Path("runs/widths"),
    json: bool = False,
) -> int:
    """AUROC on working attacks in networks of the width that was trained on, and of another; a killed run goes on.

    Args:
        zoo: made by `weightspace zoo make backdoors-small`.
        wide: made by `weightspace zoo make backdoors-wide`; all of its networks are asked about.
        detectors: some of the quick ones; all of these unless given.
        success: least success of an attack for its network to be trained on.
        out: folder of checkpoints and answers.
        json: print JSON.

    Examples:
        weightspace backdoors widths zoos/backdoors-small zoos/backdoors-wide
        weightspace backdoors widths zoos/backdoors-small zoos/backdoors-wide --json
    """
    from weightspace.backdoors.detection import side_by_side
    from weightspace.experiments.backdoors import WIDTHS, other_widths
    from weightspace.zoo.store import Zoo

    chosen = some(detectors, WIDTHS, "quick detector")
    found = other_widths(Zoo.open(zoo), Zoo.open(wide), out, detectors=chosen, success=success)
    return say_tables({"AUROC": side_by_side(found)}, json)


def scale(zoo: Positional[Path], out: Path = Path("runs/scale"), json: bool = False) -> int:
    """What reading weights in canonical scale does to answers, and a rewrite of scales to readers that do not.

    Args:
        zoo: of one architecture, made by `weightspace zoo make backdoors-varied`.
        out: folder of checkpoints and answers; a killed run goes on.
        json: print JSON.

    Examples:
        weightspace backdoors scale zoos/backdoors-varied
        weightspace backdoors scale zoos/backdoors-varied --out runs/scale --json
    """
    from weightspace.experiments.scale import scale_effect, scale_table
    from weightspace.zoo.store import Zoo

    rows = scale_effect(Zoo.open(zoo), out)
    return say_json([asdict(row) for row in rows]) if json else say(scale_table(rows))


def families(zoo: Positional[Path], success: float = 0.5, out: Path = Path("runs/families"), json: bool = False) -> int:
    """Which kind of trigger a backdoor has, where it works: accuracy of every method with its interval.

    Args:
        zoo: made by `weightspace zoo make backdoors-small`.
        success: least success of an attack for its network to be trained on.
        out: folder of checkpoints.
        json: print JSON.

    Examples:
        weightspace backdoors families zoos/backdoors-small
        weightspace backdoors families zoos/backdoors-small --success 0.9 --json
    """
    from weightspace.evaluation.results import Results, format_table
    from weightspace.experiments.backdoors import family_rows
    from weightspace.zoo.store import Zoo

    rows = family_rows(Zoo.open(zoo), out, success=success)
    if json:
        return say_json([asdict(row) for row in rows])
    return say(format_table(Results(task=f"kind of trigger in {zoo}", rows=tuple(rows))))


def train(
    zoo: Positional[Path], steps: int | None = None, out: Path = Path("runs/detector"), json: bool = False
) -> int:
    """Train a detector on a zoo, calibrate it on networks kept apart, and score it on the test split.

    Of one architecture, or, from a table of networks of many, a general one.

    Args:
        zoo: made by `weightspace zoo make backdoors-small`; or a table with neurons, an .npz that `weightspace
            backdoors read` made.
        steps: instead of the recipe's; of a zoo.
        out: folder of checkpoints and detector.safetensors.
        json: print JSON.

    Examples:
        weightspace backdoors train zoos/backdoors-small
        weightspace backdoors train runs/diverse.npz --out runs/general
    """
    from weightspace.backdoors.general_training import train_general
    from weightspace.backdoors.table import NetworkTable
    from weightspace.backdoors.training import train_detector
    from weightspace.zoo.store import Zoo

    if zoo.suffix == ".npz":
        if steps is not None:
            raise ValueError("--steps is of detectors for one architecture: leave it out")
        general = train_general(NetworkTable.load(zoo))
        out.mkdir(parents=True, exist_ok=True)
        general.save(out / "detector.safetensors")
        return say_facts(general.card, json)
    return say_facts(train_detector(Zoo.open(zoo), out, steps=steps).card, json)


def evaluate(zoo: Positional[Path], detector: Path | None = None, fpr: float = 0.05, json: bool = False) -> int:
    """The figures of a detector's card, on a zoo's test networks; and how far rewrites that compute the same move it.

    Of a general detector: how it does on the networks of a table.

    Args:
        zoo: of the networks that the detector was made for; for a general one a table with neurons, an .npz that
            `weightspace backdoors read` made.
        detector: the one of its kind that comes with the package unless given.
        fpr: share of clean networks that may be called suspicious.
        json: print JSON.

    Examples:
        weightspace backdoors evaluate zoos/backdoors-small
        weightspace backdoors evaluate zoos/mine --detector runs/detector/detector.safetensors
    """
    from weightspace.backdoors.detector import Detector
    from weightspace.backdoors.general_detector import GeneralDetector
    from weightspace.backdoors.general_training import evaluate_general
    from weightspace.backdoors.table import NetworkTable
    from weightspace.backdoors.training import evaluate_detector, rewriting_effect
    from weightspace.zoo.store import Zoo

    if zoo.suffix == ".npz":
        return say_facts(evaluate_general(GeneralDetector.load(detector), NetworkTable.load(zoo)), json)
    judge, networks = Detector.load(detector), Zoo.open(zoo)
    figures = evaluate_detector(judge, networks, false_alarms=fpr)
    return say_facts({**figures, "rewritten": rewriting_effect(judge, networks, false_alarms=fpr)}, json)


def repair(
    zoo: Positional[Path],
    images: tuple[int, ...] = (500,),
    methods: tuple[str, ...] = (),
    count: int = 40,
    clean: int = 10,
    split: Literal["test", "validation", "train"] = "test",
    grid: bool = False,
    minutes: float | None = None,
    data: str | None = None,
    out: Path = Path("runs/repair"),
    json: bool = False,
) -> int:
    """Repairs side by side on networks of a zoo whose attack works, and on clean ones; a killed run goes on.

    Each method is given clean images that no network was trained on, and is scored on others. The upper bound alone
    sees the trigger.

    Args:
        zoo: made by `weightspace zoo make backdoors-small` or backdoors-diverse.
        images: how many clean ones a repair is given; 0 for none, of ours and CLP.
        methods: some of them, by the names that the tables call them, or "naming alone", which shows where the limit of
            a name belongs; all but that unless given.
        count: networks whose attack works, of each attack in turn.
        clean: clean networks, among them.
        split: of the zoo; settings are chosen on validation networks.
        grid: the repairs of others, each with every setting that it is chosen among; for validation networks.
        minutes: after which it stops before the next network; the same command goes on.
        data: folder in which the images lie.
        out: folder of lines.jsonl, a line a network and method, and tables.md.
        json: print JSON.

    Examples:
        weightspace backdoors repair zoos/backdoors-small
        weightspace backdoors repair zoos/backdoors-small --images 0 100 2500 --methods ours --count 20
        weightspace backdoors repair zoos/backdoors-small --split validation --grid --count 8 --clean 3 --out runs/grid
    """
    from weightspace.experiments.repair import methods as known
    from weightspace.experiments.repair import study, tables
    from weightspace.files.atomic import write_atomically
    from weightspace.zoo.recipes import zoo_recipe
    from weightspace.zoo.store import Zoo

    if grid and (methods or split == "test"):
        raise ValueError("--grid tries every setting of every method: leave out --methods, and say --split validation")
    if any(amount < 0 for amount in images):
        raise ValueError(f"--images takes numbers from 0 on, not {min(images)}")
    chosen = () if grid else tuple(some(methods, known(), "method"))
    found = Zoo.open(zoo)
    made = found.description["config"]
    same = {name: made[name] for name in ("seed", "image_size", "image_channels", "image_count")}
    config = replace(zoo_recipe(made["recipe"], images=made["images"], data=data), **same)
    options = {"split": split, "count": count, "clean": clean, "images": images, "minutes": minutes}
    lines = study(found, config, out, names=chosen, grid=grid, **options)
    found_tables = tables(lines)
    text = "\n\n".join(f"{title}\n\n{table}" for title, table in found_tables.items())
    write_atomically(out / "tables.md", f"{text}\n".encode())
    return say_tables(found_tables, json) if json else say(f"{text}\n\n{out / 'tables.md'}")


def neurons(
    zoo: Positional[Path],
    images: str | None = None,
    data: str | None = None,
    detector: Path | None = None,
    count: int | None = None,
    out: Path = Path("runs/neurons"),
    json: bool = False,
) -> int:
    """Blame neurons and remove them, finetune, prune, or edit the weights: success and accuracy before and after.

    A killed run goes on. The images of the zoo are needed: on them neurons are removed and repairs are scored.

    Args:
        zoo: made by `weightspace zoo make backdoors-small`.
        images: the image set, if another than that of the zoo.
        data: folder in which the images lie.
        detector: of such networks; the one that comes with the package unless given.
        count: test networks, and as many more for training in proportion.
        out: folder of everything that is measured, and repair.json.
        json: print JSON.

    Examples:
        weightspace backdoors neurons zoos/backdoors-small
        weightspace backdoors neurons zoos/backdoors-small --count 20 --data images
    """
    from weightspace.backdoors.detector import Detector
    from weightspace.backdoors.removal import RepairConfig, locate_and_repair
    from weightspace.zoo.recipes import zoo_recipe
    from weightspace.zoo.store import Zoo

    config = RepairConfig()
    if count is not None:
        config = RepairConfig(
            training=2 * count, validation=max(2, count // 2), test=count, pairs=2 * count, steps=min(600, 20 * count)
        )
    found = Zoo.open(zoo)
    made = found.description["config"]
    recipe = zoo_recipe(made["recipe"], images=images or made["images"], data=data)
    tables = locate_and_repair(found, recipe, Detector.load(detector), out, config)
    return say_tables(tables, json)


def read(
    folders: Positional[tuple[Path, ...]],
    out: Path = Path("runs/networks.npz"),
    neurons: bool = False,
    json: bool = False,
) -> int:
    """Read the networks of folders, of any architecture, into one table of numbers and labels.

    Args:
        folders: zoos, finished or not, or networks that `examples/train_many_plain_cnns.py` trained.
        out: the table, an .npz of some 1.5 kB a network.
        neurons: keep the neurons of each network too, for methods that read these; five times as much.
        json: print JSON.

    Examples:
        weightspace backdoors read zoos/diverse
        weightspace backdoors read zoos/diverse --neurons --out runs/diverse.npz
    """
    from weightspace.backdoors.table import NetworkTable, read_plain, read_zoo
    from weightspace.zoo.store import DESCRIPTION

    table = NetworkTable.joined(
        [(read_zoo if (folder / DESCRIPTION).exists() else read_plain)(folder) for folder in folders]
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    table.save(out, sets=neurons)
    working, clean = int(table.backdoored.sum()), int(table.clean.sum())
    if json:
        return say_json({"written": str(out), "networks": len(table), "working": working, "clean": clean})
    return say(f"{out}: {len(table)} networks, {working} with a backdoor that works, {clean} clean")


def anywhere(
    table: Positional[Path],
    outside: Path | None = None,
    methods: tuple[str, ...] = (),
    axes: tuple[str, ...] = (),
    zoos: tuple[Path, ...] = (),
    out: Path = Path("runs/anywhere"),
    json: bool = False,
) -> int:
    """Detectors of backdoors in networks of any architecture: with values of the recipe left out, and on outsiders.

    Args:
        table: made by `weightspace backdoors read`.
        outside: a table of networks that none of the methods is trained on.
        methods: some of them, by the names that the tables call them; all that the table allows unless given.
        axes: of the recipe, of which each value in turn is left out of training; all that the table has unless given,
            "none" for none.
        zoos: that the table was read from; MNTD and ULP, which ask networks, join the methods.
        out: folder for tables.md.
        json: print JSON.

    Examples:
        weightspace backdoors anywhere runs/networks.npz
        weightspace backdoors anywhere runs/networks.npz --axes attack --json
        weightspace backdoors anywhere runs/networks.npz --zoos zoos/backdoors-diverse --methods MNTD ULP --axes none
    """
    from weightspace.backdoors.table import NetworkTable
    from weightspace.experiments.diverse import AXES, methods_of, tables
    from weightspace.files.atomic import write_atomically

    networks = NetworkTable.load(table)
    networks = networks.with_networks(zoos) if zoos else networks
    others = None if outside is None else NetworkTable.load(outside)
    chosen = some(methods, methods_of(networks), "method")
    asked = () if axes == ("none",) else axes or ("attack", *AXES)
    found = tables(networks, others, methods=chosen, axes=asked)
    text = "\n\n".join(f"{title}\n\n{made}" for title, made in found.items())
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "tables.md", f"{text}\n".encode())
    return say_tables(found, json) if json else say(f"{text}\n\n{out / 'tables.md'}")
