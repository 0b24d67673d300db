"""Verbs of meta-models: trained, scored, compared, asked, published and reported."""

from __future__ import annotations

from pathlib import Path

from weightspace.cli import hyperparameters
from weightspace.cli.arguments import Positional
from weightspace.cli.options import SMALL
from weightspace.cli.output import fail, say, say_json
from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.recipes import METAMODEL_RECIPES
from weightspace.train.launch import Launch


def demo(out: Path = Path("demo"), workers: int | None = None, quick: bool = False, json: bool = False) -> int:
    """Decompile, scan two checkpoints, read heads, ask how a network was trained; then a zoo and a meta-model.

    The first four need what ships alone and take seconds; --quick stops there. A zoo and a meta-model take minutes on
    two CPU cores. Nothing is downloaded. A killed run goes on when it is called again.

    Args:
        out: folder of index.html, which links every page, and of all that is made.
        workers: processes that train base networks; one a core unless given.
        quick: only what shipped files show.
        json: print JSON instead: results.json, or with --quick what the parts found.

    Examples:
        weightspace demo --quick
        weightspace demo --out first --workers 2
    """
    from weightspace.experiments.demo import INDEX, quick_demo, shown_results, write_index
    from weightspace.experiments.demo import demo as run
    from weightspace.zoo.engine import ProcessEngine

    parts = []
    for part in quick_demo(out):
        parts.append(part)
        if not json:
            say(f"{part.title}\n\n{part.text}\n")
    if not quick:
        parts.append(shown_results(run(out, ProcessEngine(workers=workers))))
        write_index(out, parts)
        if not json:
            say(f"{parts[-1].title}\n\n{parts[-1].text}\n")
    if json:
        return say_json({part.title: part.record for part in parts} if quick else parts[-1].record)
    return say(str(out / INDEX))


def train(
    zoo: Positional[Path],
    out: Path,
    config: MetaModelConfig = SMALL,
    recipe: str = "small",
    targets: tuple[str, ...] = (),
    json: bool = False,
) -> int:
    """Train a meta-model on a zoo's training split; a killed run goes on when it is called again.

    On several GPUs or hosts: torchrun --nproc-per-node 8 -m weightspace train ZOO --out RUN.

    Args:
        zoo: folder of the zoo.
        out: folder for the meta-model, its checkpoint and losses.csv.
        config: every option of the meta-model and its training can be changed one by one.
        recipe: where the other options come from: small or paper.
        targets: what it shall answer; every choice of the zoo unless given.
        json: print the training history as JSON.

    Examples:
        weightspace train zoos/digits-small --out runs/digits
        weightspace train zoos/digits-small --out runs/wide --width 128 --targets optimiser
    """
    from weightspace.experiments.comparison import train_metamodel

    del recipe  # it has chosen the defaults of config
    model = train_metamodel(zoo, out, config, targets or None)
    if Launch.of_environment().rank > 0:  # the first process speaks for all
        return 0
    if json:
        return say_json(model.history.to_json())
    best = min(model.history.evaluations, key=lambda entry: entry["loss"])
    return say(f"{out}: validation accuracy {best['accuracy']:.3f} at step {best['step']}, {model.parameters} weights")


def evaluate(
    run: Positional[Path], zoo: Positional[Path], split: str = "test", seed: int = 0, json: bool = False
) -> int:
    """Score a trained meta-model on networks of a zoo that it has not seen, with 95% intervals over networks.

    Args:
        run: folder of the meta-model.
        zoo: folder of the zoo.
        split: which of its networks: train, validation or test.
        seed: of the intervals, which are drawn.
        json: print the rows as JSON.

    Examples:
        weightspace evaluate runs/digits zoos/digits-small
        weightspace evaluate runs/digits zoos/digits-small --split validation --json
    """
    from dataclasses import asdict

    from weightspace.evaluation.results import Results, format_table
    from weightspace.experiments.comparison import evaluate_metamodel

    rows = evaluate_metamodel(run, zoo, split, seed=seed)
    if json:
        return say_json([asdict(row) for row in rows])
    return say(format_table(Results(task=f"{run} on the {split} split of {zoo}", rows=tuple(rows))))


def compare(
    zoo: Positional[Path],
    out: Path | None = None,
    methods: tuple[str, ...] = (),
    targets: tuple[str, ...] = (),
    networks: int | None = None,
    labelled: float = 1.0,
    larger: bool = False,
    seeds: int = 1,
    checkpoints: bool = False,
    config: MetaModelConfig = SMALL,
    recipe: str = "small",
    json: bool = False,
) -> int:
    """Fit the meta-model and every baseline on one zoo and one split, and score them side by side.

    Without --methods four predictors are compared, and a page is written. With it every method of the studies is, or
    those that are named, each with settings of its own: that takes hours. Options from --networks to --checkpoints need
    --methods; those of config are for the four. A killed run goes on when it is called again.

    Args:
        zoo: folder of the zoo.
        out: folder; without --methods of results.json, report.html and the meta-model, in runs/comparison/ZOO unless
            given; with it of answers, checkpoints and tables.md, in runs/hyperparameters, after the zoo and options.
        methods: all; or some by the names that the tables call them; or variants, of the meta-model, one choice changed
            at a time, all or those that are named behind.
        targets: what to ask; every choice of the zoo unless given, and with --methods every quantity.
        networks: how many training networks are used; all unless given.
        labelled: share of the training and validation networks whose labels are known, above 0 to 1.
        larger: train on networks with fewer weights than the median, and ask about the others.
        seeds: trainings of each method.
        checkpoints: train on and ask about every stored checkpoint, and ask for its epoch too.
        config: every option of the meta-model and its training can be changed one by one.
        recipe: where the options of config come from: small or paper.
        json: print results.json, or the rows of the tables, instead of the tables.

    Examples:
        weightspace compare zoos/digits-small --out runs/comparison
        weightspace compare zoos/digits-small --methods all --seeds 3
    """
    from weightspace.evaluation.results import format_table
    from weightspace.experiments.comparison import compare_on_zoo

    changed = config != METAMODEL_RECIPES[recipe]()
    study = {"networks": networks, "labelled": labelled, "larger": larger, "seeds": seeds, "checkpoints": checkpoints}
    if methods:
        if changed:
            raise ValueError("--methods has its own settings of the meta-model: leave out the options of config")
        return hyperparameters.study(zoo, out, methods, targets, json=json, **study)
    if study != {"networks": None, "labelled": 1.0, "larger": False, "seeds": 1, "checkpoints": False}:
        raise ValueError("--networks, --labelled, --larger, --seeds and --checkpoints need --methods, such as all")
    place = out or Path("runs/comparison") / zoo.name
    results = compare_on_zoo(zoo, place, config, targets or None)
    return say_json(results.to_json()) if json else say(f"{format_table(results)}\n{place / 'report.html'}")


def predict(run: Positional[Path], networks: Positional[tuple[Path, ...]], json: bool = False) -> int:
    """Ask a trained meta-model about networks in checkpoint files: safetensors, PyTorch's, ONNX, whatever their names.

    Of several files those that cannot be judged are told on stderr, and the exit status is 2; the others are judged.

    Args:
        run: folder of the meta-model.
        networks: the files.
        json: print all probabilities as JSON.

    Examples:
        weightspace predict runs/digits mine.safetensors
        weightspace predict runs/digits one.pt two.onnx --json
    """
    from weightspace.experiments.comparison import predict_files

    wrong: list[Exception] = []
    answers = predict_files(run, networks, wrong.append if len(networks) > 1 else None)
    for error in wrong:
        fail(" ".join(str(error).split()))
    if json:
        return max(say_json(answers), 2 * bool(wrong))
    lines = []
    for answer in answers:
        best = {name: max(classes.items(), key=lambda item: item[1]) for name, classes in answer["targets"].items()}
        said = ", ".join(f"{n} {c} ({p:.0%})" for n, (c, p) in best.items())
        unlike = "unlike anything it was trained on; it would say " if (answer["distance"] or 0.0) > 1 else ""
        lines += [f"{answer['file']}: {unlike}{said}", *(f"  {note}" for note in answer["notes"])]
    return max(say("\n".join(lines)) if lines else 0, 2 * bool(wrong))


def model_push(
    model: Positional[Path],
    to: Positional[str],
    license: str = "unknown",  # noqa: A002
    private: bool = False,
    replace: bool = False,
    json: bool = False,
) -> int:
    """Publish a meta-model, a detector or a decompiler with its card.

    Args:
        model: its folder or its file.
        to: OWNER/NAME on the hub, for which HF_TOKEN has to be set; or a folder, as ./FOLDER, /FOLDER or file:FOLDER.
        license: for the card, as the hub names it, such as cc-by-4.0.
        private: if the repository has to be made, for you alone.
        replace: let it take the place of something else that is there; on the hub that stays in the history.
        json: print address and revision as JSON.

    Examples:
        weightspace model push runs/digits OWNER/NAME --license cc-by-4.0
        weightspace model push runs/digits ./published
    """
    from weightspace.experiments.publications import push_model

    sent = push_model(model, to, license_name=license, private=private, replace=replace)
    return say_json(sent.to_json()) if json else say(f"{sent.address}\n{sent}")


def model_pull(source: Positional[str], out: Path, json: bool = False) -> int:
    """Fetch a published model, its checksum compared; a killed pull goes on when it is called again.

    Nothing in it is executed, and no folder that holds something else is written into.

    Args:
        source: OWNER/NAME or OWNER/NAME@REVISION on the hub; or a folder, as ./FOLDER, /FOLDER or file:FOLDER.
        out: folder of the model.
        json: print address and revision as JSON.

    Examples:
        weightspace model pull OWNER/NAME --out runs/theirs
        weightspace model pull OWNER/NAME@REVISION --out runs/theirs
    """
    from weightspace.experiments.publications import pull_model

    got = pull_model(source, out)
    return say_json(got.to_json()) if json else say(f"{out}, from {got.address}\n{got}")


def report(results: Positional[Path], out: Path | None = None, json: bool = False) -> int:
    """Make the HTML report of a comparison again.

    Args:
        results: a results.json.
        out: the page; report.html beside it unless given.
        json: print what was written as JSON.

    Examples:
        weightspace report runs/comparison/results.json
        weightspace report runs/comparison/results.json --out page.html
    """
    from weightspace.evaluation.report import write_report
    from weightspace.evaluation.results import Results

    page = out or results.with_name("report.html")
    write_report(Results.load(results), page)
    return say_json({"written": str(page)}) if json else say(str(page))
