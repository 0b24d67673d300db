"""Verbs of meta-models: trained, scored, compared, asked, published and reported."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from weightspace.cli.options import SMALL
from weightspace.cli.output import say, say_json
from weightspace.metamodels.config import MetaModelConfig
from weightspace.train.launch import Launch


def demo(out: Path = Path("demo"), workers: int | None = None, json: bool = False) -> int:
    """A meta-model trained on digits, and a transformer decompiled, in minutes on two CPU cores and with no download.

    Args:
        out: folder for results.json, report.html, the zoo and the meta-model.
        workers: processes that train base networks; one a core unless given.
        json: print results.json instead of the table.
    """
    from weightspace.backdoors.summary import summary as verdicts
    from weightspace.decompiler.result import summary
    from weightspace.evaluation.results import format_table
    from weightspace.experiments.comparison import decompile_demo, scan_demo
    from weightspace.experiments.comparison import demo as run
    from weightspace.zoo.engine import ProcessEngine

    results = run(out, ProcessEngine(workers=workers))
    found = decompile_demo(out)
    scanned = scan_demo(out)
    if json:
        return say_json(results.to_json())
    files = ("report.html", "results.json", "unknown.safetensors", "decompiled.html", "scan.html")
    listed = "\n".join(str(out / file) for file in files)
    return say(
        f"{format_table(results)}\n\nDecompiled, a transformer of unknown code:\n\n{summary(found)}\n\n"
        f"Scanned, two checkpoints of which one has a backdoor:\n\n{verdicts(scanned)}\n\n{listed}"
    )


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


def evaluate(run: Positional[Path], zoo: Positional[Path], split: str = "test", json: bool = False) -> int:
    """Score a trained meta-model on networks of a zoo that it has not seen, with 95% intervals over networks.

    Args:
        run: folder of the meta-model.
        zoo: folder of the zoo.
        split: which of its networks: train, validation or test.
        json: print the rows as JSON.
    """
    from dataclasses import asdict

    from weightspace.evaluation.results import Results, format_table
    from weightspace.experiments.comparison import evaluate_metamodel

    rows = evaluate_metamodel(run, zoo, split)
    if json:
        return say_json([asdict(row) for row in rows])
    return say(format_table(Results(task=f"{run} on the {split} split of {zoo}", rows=tuple(rows))))


def compare(
    zoo: Positional[Path],
    out: Path,
    config: MetaModelConfig = SMALL,
    recipe: str = "small",
    targets: tuple[str, ...] = (),
    json: bool = False,
) -> int:
    """Fit the meta-model and every baseline on one zoo and one split, and score them side by side.

    Args:
        zoo: folder of the zoo.
        out: folder for results.json, report.html and the meta-model.
        config: every option of the meta-model and its training can be changed one by one.
        recipe: where the other options come from: small or paper.
        targets: what to ask; every choice of the zoo unless given.
        json: print results.json instead of the table.
    """
    from weightspace.evaluation.results import format_table
    from weightspace.experiments.comparison import compare_on_zoo

    del recipe  # it has chosen the defaults of config
    results = compare_on_zoo(zoo, out, config, targets or None)
    return say_json(results.to_json()) if json else say(f"{format_table(results)}\n{out / 'report.html'}")


def predict(run: Positional[Path], networks: Positional[tuple[Path, ...]], json: bool = False) -> int:
    """Ask a trained meta-model about networks in checkpoint files: safetensors, PyTorch's, ONNX, whatever their names.

    Args:
        run: folder of the meta-model.
        networks: the files.
        json: print all probabilities as JSON.
    """
    from weightspace.experiments.comparison import predict_files

    answers = predict_files(run, networks)
    if json:
        return say_json(answers)
    lines = []
    for answer in answers:
        best = {name: max(classes.items(), key=lambda item: item[1]) for name, classes in answer["targets"].items()}
        said = ", ".join(f"{n} {c} ({p:.0%})" for n, (c, p) in best.items())
        unlike = "unlike anything it was trained on; it would say " if (answer["distance"] or 0.0) > 1 else ""
        lines += [f"{answer['file']}: {unlike}{said}", *(f"  {note}" for note in answer["notes"])]
    return say("\n".join(lines))


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
    """
    from weightspace.experiments.publications import pull_model

    got = pull_model(source, out)
    return say_json(got.to_json()) if json else say(f"{out}, from {got.address}\n{got}")


def report(results: Positional[Path], out: Path | None = None) -> int:
    """Make the HTML report of a comparison again.

    Args:
        results: a results.json.
        out: the page; report.html beside it unless given.
    """
    from weightspace.evaluation.report import write_report
    from weightspace.evaluation.results import Results

    page = out or results.with_name("report.html")
    write_report(Results.load(results), page)
    return say(str(page))
