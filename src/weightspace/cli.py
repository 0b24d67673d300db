"""The verbs a person types: each parses its options, calls one function below, and prints what comes back."""

from __future__ import annotations

import errno
import functools
import inspect
import io
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, suppress
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import tyro
from tyro.conf import Positional, UseAppendAction

from weightspace.models.config import MetaModelConfig
from weightspace.recipes.metamodels import METAMODEL_RECIPES
from weightspace.train.launch import Launch

# Nothing heavier up here: `weightspace --help` must answer at once. Each verb imports what it calls.

SMALL = METAMODEL_RECIPES["small"]()

VERBS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "digits to a trained meta-model, a table and a report, in minutes"),
    "zoo make": ("zoo_make", "make a population of networks or programs by a recipe, or what is missing of it"),
    "zoo info": ("zoo_info", "what a zoo holds"),
    "zoo check": ("zoo_check", "verify every checksum and look for leaks"),
    "zoo import": ("zoo_import", "networks that you have already, with labels, into a zoo"),
    "zoo push": ("zoo_push", "publish a zoo on the Hugging Face hub, or in a folder"),
    "zoo pull": ("zoo_pull", "fetch a published zoo, every checksum compared"),
    "train": ("train", "train a meta-model on a zoo"),
    "evaluate": ("evaluate", "score a trained meta-model on a zoo's held-out networks"),
    "compare": ("compare", "meta-model and baselines on one zoo: table, results.json, report.html"),
    "predict": ("predict", "ask a trained meta-model about networks in safetensors files"),
    "model push": ("model_push", "publish a trained model on the Hugging Face hub, or in a folder"),
    "model pull": ("model_pull", "fetch a published model, its checksum compared"),
    "report": ("report", "make the HTML report of a results.json"),
    "decompile": ("decompile", "a transformer's weights to the RASP program in them, with a certificate"),
    "decompiler train": ("decompiler_train", "train a network that decompiles, on programs drawn on the fly"),
    "decompiler evaluate": ("decompiler_evaluate", "the figures of a decompiler's card, on held-out programs"),
    "decompiler readers": ("decompiler_readers", "readers of weights under one budget: graph, rows, flat chunks"),
    "decompiler ladder": ("decompiler_ladder", "every method on every rung: noisy, compressed, finetuned, trained"),
    "scan": ("scan", "is there a backdoor in these checkpoints? a verdict, how sure, and which neurons"),
    "hyperparameters compare": ("hyperparameters_compare", "every method on the properties of a zoo's networks"),
    "hyperparameters curve": ("hyperparameters_curve", "the methods by the number of networks they are trained on"),
    "backdoors compare": ("backdoors_compare", "every detector of backdoors on one zoo, and the tables"),
    "backdoors transfer": ("backdoors_transfer", "detectors after training on each attack alone, and on all but each"),
    "backdoors curve": ("backdoors_curve", "detectors by the number of networks that they are trained on"),
    "backdoors widths": ("backdoors_widths", "detectors trained on networks of one width, asked about another"),
    "backdoors families": ("backdoors_families", "which kind of trigger a backdoor has"),
    "backdoors train": ("backdoors_train", "train and calibrate a detector that `scan` can use"),
    "backdoors repair": ("backdoors_repair", "which neurons carry backdoors, and ways to take them out, side by side"),
    "backdoors evaluate": ("backdoors_evaluate", "the figures of a detector's card, on a zoo's test networks"),
    "rasp sample": ("rasp_sample", "random programs of a published distribution, or what they look like"),
    "rasp show": ("rasp_show", "a program's text, graph and compiled transformer, and pictures of them"),
    "rasp run": ("rasp_run", "what a program answers, and what its compiled transformer does"),
    "rasp compile": ("rasp_compile", "a program to a transformer's weights"),
    "rasp check": ("rasp_check", "why a program cannot be compiled, or whether its transformer does what it means"),
}
GROUPS = {
    name.split()[0]: [other.split()[1] for other in VERBS if other.startswith(name.split()[0] + " ")]
    for name in VERBS
    if " " in name
}
"""The second words of the verbs of two words."""
RESUMED = {
    f"weightspace {verb}"
    for verb in (
        *("demo", "zoo make", "zoo import", "train", "compare"),
        *("zoo push", "zoo pull", "model push", "model pull"),
        *("decompiler train", "decompiler readers", "decompiler ladder"),
        *("hyperparameters compare", "hyperparameters curve"),
        *("backdoors compare", "backdoors transfer", "backdoors curve", "backdoors widths", "backdoors families"),
        *("backdoors train", "backdoors repair"),
    )
}
"""Long work that keeps what is finished and goes on when it is called again."""
TOGETHER = {"weightspace train"}
"""What several processes that torchrun has started do together."""
KEPT = "; what was finished is kept"


def main(arguments: list[str] | None = None) -> int:
    """Run one verb. Returns 0, 1 where a check found something, or 2 on bad input, which is one sentence on stderr."""
    words = sys.argv[1:] if arguments is None else arguments
    # Threads that spin while they wait make a busy machine many times slower; it must be said before torch is loaded
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if words and words[0] == "--version":
        from weightspace import __version__

        return _say(f"weightspace {__version__}")
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in VERBS:
            return _run(globals()[VERBS[name][0]], f"weightspace {name}", words[count:])
    if not words or words[0] in ("-h", "--help") or (words[0] in GROUPS and words[1:] in (["-h"], ["--help"])):
        return _say(_usage())
    if words[0] in GROUPS:
        known = ", ".join(GROUPS[words[0]])
        return _fail(f"weightspace {words[0]} needs one of {known}, not {' '.join(words[1:2]) or 'nothing'}")
    return _fail(f"there is no verb {words[0]!r}: see weightspace --help")


def _usage() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in VERBS.items())
    return (
        "usage: weightspace VERB [options]\n\nMeta-models: neural networks that read the weights of other networks.\n\n"
        f"{verbs}\n\nweightspace VERB --help explains one verb; weightspace --version prints the version."
    )


def _run(verb: Callable[..., int], name: str, words: list[str]) -> int:
    try:
        options = _parse(verb, name, words)
        if Launch.of_environment().count > 1 and name not in TOGETHER:
            raise ValueError(f"{name} is done by one process: start it without torchrun")
        with _terminable():
            return verb(**options)
    except KeyboardInterrupt:
        kept = "run the same command again to go on" if name in RESUMED else "nothing was kept"
        together = Launch.of_environment().count > 1
        why = "interrupted" + " (by torchrun, if another process failed: its own message says why)" * together
        return _fail(f"{why}: {kept}", code=130)
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RuntimeError as error:
        if "out of memory" not in str(error) or os.environ.get("WEIGHTSPACE_DEBUG"):
            raise
        return _fail("the device ran out of memory: use a smaller --batch-size, --width or --stack")
    except (ValueError, OSError, ImportError, MemoryError) as error:
        if os.environ.get("WEIGHTSPACE_DEBUG"):
            raise
        return _fail(_sentence(error) + KEPT * (name in RESUMED and _disk_full(error)))


def _parse(verb: Callable[..., int], name: str, words: list[str]) -> dict[str, Any]:
    """The options of a verb. A meta-model's defaults are those of the recipe that `--recipe` names.

    Raises:
        ValueError: on words that tyro cannot read, with what it says as one sentence.
    """
    signature = inspect.signature(verb)
    if "recipe" in signature.parameters and "config" in signature.parameters:
        chosen = [value for word, value in pairwise(words) if word == "--recipe"]
        chosen += [word.removeprefix("--recipe=") for word in words if word.startswith("--recipe=")]
        for recipe in chosen[-1:]:
            if recipe not in METAMODEL_RECIPES:
                raise ValueError(f"no meta-model recipe is named {recipe!r}: there are {', '.join(METAMODEL_RECIPES)}")
            config = signature.parameters["config"].replace(default=METAMODEL_RECIPES[recipe]())
            changed = {**signature.parameters, "config": config}
            signature = signature.replace(parameters=list(changed.values()))

    @functools.wraps(verb)
    def collect(**options: Any) -> dict[str, Any]:
        return options

    collect.__signature__ = signature  # type: ignore[attr-defined]
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            return tyro.cli(collect, prog=name, args=words, config=(tyro.conf.OmitArgPrefixes,))
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise ValueError(_plain(complaint.getvalue(), name)) from None


def _plain(complaint: str, name: str) -> str:
    """What tyro has drawn into a box, as one sentence."""
    edges = r"(?m)^\s*[╭╰│+|]|[╮╯│+|]\s*$|[─-]{4,}"  # in a locale without Unicode boxes are of +, | and -
    text = " ".join(re.sub(edges, " ", complaint).split())
    text = re.sub(
        r"^(Parsing error|Required options|Unrecognized options|Invalid choice|Value error|Missing argument) ", "", text
    )
    wrong = re.match(
        r"Error parsing (-\S+): .*?('[^']*')\]?(?:\.| Argument) .*?helptext: \S+ (?:\{None\}\|)?(\S+) ", text
    )
    if wrong is None:
        return text
    kinds = {"INT": "a whole number", "FLOAT": "a number"}
    return f"{wrong[1]} takes {kinds.get(wrong[3], wrong[3])}, not {wrong[2]}: see {name} --help"


@contextmanager
def _terminable() -> Iterator[None]:
    """While it lasts SIGTERM ends the verb as Ctrl-C does, in order."""

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # no other thread may set a handler
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _sentence(error: Exception) -> str:
    if _disk_full(error):
        where = f" while writing {error.filename}" if isinstance(error, OSError) and error.filename else ""
        return f"the disk is full{where}: free some space and run the same command again"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {(error.strerror or str(error)).lower()}"
    if isinstance(error, MemoryError):
        return "there is not enough memory: use fewer workers or a smaller zoo"
    return " ".join(str(error).split()) or type(error).__name__


def _disk_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _say(text: str) -> int:
    if sys.stdout is not None:  # it is None where it was closed
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    return 0


def _json(value: Any) -> int:
    return _say(json.dumps(value, indent=1, allow_nan=False))


def _fail(sentence: str, code: int = 2) -> int:
    if sys.stderr is not None:
        sys.stderr.write(f"weightspace: {sentence}\n")
    return code


# -- the verbs ------------------------------------------------------------------------------------------------------


def demo(out: Path = Path("demo"), workers: int | None = None, json: bool = False) -> int:
    """A meta-model trained on digits, and a transformer decompiled, in minutes on two CPU cores and with no download.

    Args:
        out: folder for results.json, report.html, the zoo and the meta-model.
        workers: processes that train base networks; one a core unless given.
        json: print results.json instead of the table.
    """
    from weightspace.evaluation.results import format_table
    from weightspace.recipes.experiments import decompile_demo, scan_demo
    from weightspace.recipes.experiments import demo as run
    from weightspace.tasks.decompile import summary
    from weightspace.tasks.scan import summary as verdicts
    from weightspace.zoo.engine import ProcessEngine

    results = run(out, ProcessEngine(workers=workers))
    found = decompile_demo(out)
    scanned = scan_demo(out)
    if json:
        return _json(results.to_json())
    files = ("report.html", "results.json", "unknown.safetensors", "decompiled.html", "scan.html")
    listed = "\n".join(str(out / file) for file in files)
    return _say(
        f"{format_table(results)}\n\nDecompiled, a transformer of unknown code:\n\n{summary(found)}\n\n"
        f"Scanned, two checkpoints of which one has a backdoor:\n\n{verdicts(scanned)}\n\n{listed}"
    )


def zoo_make(
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
            eilertsen-fixed, backdoors-small or backdoors-wide; for a GPU cnn-s-paper, smallcnn-paper,
            eilertsen-varied-paper, eilertsen-fixed-paper or backdoors-paper; of programs rasp-typed or rasp-paper.
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
    """
    from weightspace.recipes.zoos import PROGRAM_RECIPES, program_recipe, zoo_recipe
    from weightspace.weights.remote import Mirror
    from weightspace.zoo.compiled import make_program_zoo
    from weightspace.zoo.engine import engine_of
    from weightspace.zoo.generate import make_zoo

    mirror = Mirror(out) if out is not None and ("://" in out or out.startswith("file:")) else None
    folder = Path("zoos") / mirror.name if mirror else Path(out) if out else Path("zoos") / recipe
    trained = {"--images": images, "--data": data, "--epochs": epochs, "--stack": stack}
    trained["--engine"] = engine if engine != "process" else None
    compiled = {"--mode": mode, "--lengths": lengths or None}
    programs = recipe in PROGRAM_RECIPES
    for option, value in (trained if programs else compiled).items():
        if value is not None:
            raise ValueError(
                f"{option} says nothing of a zoo of {'programs' if programs else 'networks'}: leave it out"
            )
    chosen = engine_of(engine, workers=workers, device=device, stack=stack, address=address, cpus=cpus, gpus=gpus)
    if programs and mirror:
        raise ValueError(f"a zoo of programs is made in a folder, and {out} is a URL: give a folder with --out")
    if programs:
        given = {"count": count, "seed": seed, "shard_size": shard_size, "mode": mode, "lengths": lengths}
        make_program_zoo(program_recipe(recipe, **given), folder, workers)
    else:
        where = str(data) if data is not None else None
        given = {"count": count, "seed": seed, "images": images, "epochs": epochs, "shard_size": shard_size}
        make_zoo(zoo_recipe(recipe, data=where, **given), folder, chosen, mirror=mirror)
    return zoo_info(folder, json)


def zoo_info(zoo: Positional[Path], json: bool = False) -> int:
    """What a zoo holds: counts, splits, accuracy, labels.

    Args:
        zoo: its folder.
        json: print JSON.
    """
    from weightspace.weights.store import read_description
    from weightspace.zoo.compiled import program_zoo_info
    from weightspace.zoo.generate import info

    facts = (program_zoo_info if read_description(zoo)["kind"] == "programs" else info)(zoo)
    if json:
        return _json(facts)
    lines = []
    for name, value in facts.items():
        pairs = value.items() if isinstance(value, dict) else [("", value)]
        lines += [f"{name if i == 0 else '':<17}{key}{': ' if key else ''}{x}" for i, (key, x) in enumerate(pairs)]
    return _say("\n".join(lines))


def zoo_check(zoo: Positional[Path], json: bool = False) -> int:
    """Verify every checksum of a zoo and look for leaks; exit status 1 if something was found.

    Args:
        zoo: its folder.
        json: print JSON.
    """
    from weightspace.weights.store import read_description
    from weightspace.zoo.compiled import check_program_zoo
    from weightspace.zoo.generate import check_zoo

    found = (check_program_zoo if read_description(zoo)["kind"] == "programs" else check_zoo)(zoo)
    if json:
        _json([{"kind": finding.kind, "text": finding.text} for finding in found])
    else:
        _say("\n".join(f"{finding.kind}: {finding.text}" for finding in found) or f"{zoo}: sound, no leaks found")
    return 1 if found else 0


def zoo_import(
    kind: Positional[str],
    sources: Positional[tuple[str, ...]],
    out: Path,
    labels: tuple[str, ...] = (),
    csv: Path | None = None,
    topology: str = "unknown",
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
            state-dicts (files and a CSV of labels) or huggingface; docs/importing.md has the forms.
        sources: the folder, or of huggingface one or several hf://OWNER/NAME@REVISION.
        out: folder of the zoo.
        labels: what to ask for; a network without one of them is skipped. Every column unless given.
        csv: labels of state-dicts (unless their folder holds one CSV file) and of huggingface.
        topology: how the arrays of state-dicts and huggingface are connected: unknown, chain or transformer.
        images: image set that the networks were trained on, if the source does not say it.
        epochs: which checkpoints; all unless given.
        count: most networks, drawn at random.
        seed: decides the order of the networks and their splits.
        shard_size: networks a shard; 0 chooses.
        json: print what was imported as JSON.
    """
    from weightspace.zoo.imported import import_zoo, summary

    given = {"labels": labels, "table": csv, "topology": topology, "images": images, "epochs": epochs}
    found = import_zoo(kind, sources, out, count=count, seed=seed, shard_size=shard_size, **given)
    return _json(found.to_json()) if json else _say(f"{summary(found)}\n{out}")


def zoo_push(
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
    """
    from weightspace.recipes.publications import push_zoo

    sent = push_zoo(zoo, to, license_name=license, private=private, replace=replace)
    return _json(sent.to_json()) if json else _say(f"{sent.address}\n{sent}")


def zoo_pull(source: Positional[str], out: Path, json: bool = False) -> int:
    """Fetch a published zoo, every checksum compared; a killed pull goes on when it is called again.

    Nothing in it is executed, and no folder that holds something else is written into.

    Args:
        source: OWNER/NAME or OWNER/NAME@REVISION on the hub; or a folder, as ./FOLDER, /FOLDER or file:FOLDER.
        out: folder of the zoo.
        json: print address and revision as JSON.
    """
    from weightspace.recipes.publications import pull_zoo

    got = pull_zoo(source, out)
    return _json(got.to_json()) if json else _say(f"{out}, from {got.address}\n{got}")


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
    from weightspace.recipes.experiments import train_metamodel

    del recipe  # it has chosen the defaults of config
    model = train_metamodel(zoo, out, config, targets or None)
    if Launch.of_environment().rank > 0:  # the first process speaks for all
        return 0
    if json:
        return _json(model.history.to_json())
    best = min(model.history.evaluations, key=lambda entry: entry["loss"])
    return _say(f"{out}: validation accuracy {best['accuracy']:.3f} at step {best['step']}, {model.parameters} weights")


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
    from weightspace.recipes.experiments import evaluate_metamodel

    rows = evaluate_metamodel(run, zoo, split)
    if json:
        return _json([asdict(row) for row in rows])
    return _say(format_table(Results(task=f"{run} on the {split} split of {zoo}", rows=tuple(rows))))


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
    from weightspace.recipes.experiments import compare_on_zoo

    del recipe  # it has chosen the defaults of config
    results = compare_on_zoo(zoo, out, config, targets or None)
    return _json(results.to_json()) if json else _say(f"{format_table(results)}\n{out / 'report.html'}")


def predict(run: Positional[Path], networks: Positional[tuple[Path, ...]], json: bool = False) -> int:
    """Ask a trained meta-model about networks in safetensors files, as `weightspace` saves them.

    Args:
        run: folder of the meta-model.
        networks: the files.
        json: print all probabilities as JSON.
    """
    from weightspace.recipes.experiments import predict_files

    answers = predict_files(run, networks)
    if json:
        return _json(answers)
    lines = []
    for answer in answers:
        best = {name: max(classes.items(), key=lambda item: item[1]) for name, classes in answer["targets"].items()}
        lines.append(f"{answer['file']}: " + ", ".join(f"{n} {c} ({p:.0%})" for n, (c, p) in best.items()))
    return _say("\n".join(lines))


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
    from weightspace.recipes.publications import push_model

    sent = push_model(model, to, license_name=license, private=private, replace=replace)
    return _json(sent.to_json()) if json else _say(f"{sent.address}\n{sent}")


def model_pull(source: Positional[str], out: Path, json: bool = False) -> int:
    """Fetch a published model, its checksum compared; a killed pull goes on when it is called again.

    Nothing in it is executed, and no folder that holds something else is written into.

    Args:
        source: OWNER/NAME or OWNER/NAME@REVISION on the hub; or a folder, as ./FOLDER, /FOLDER or file:FOLDER.
        out: folder of the model.
        json: print address and revision as JSON.
    """
    from weightspace.recipes.publications import pull_model

    got = pull_model(source, out)
    return _json(got.to_json()) if json else _say(f"{out}, from {got.address}\n{got}")


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
    return _say(str(page))


# -- decompilation ----------------------------------------------------------------------------------------------------

NOT_FOUND = 3
"""Exit status of `decompile` where no program was proved to be right within the budget."""


def decompile(
    file: Positional[Path],
    vocab: str | None = None,
    budget: str = "30s",
    heads: int | None = None,
    identifier: Annotated[str | None, tyro.conf.arg(name="id")] = None,
    causal: bool = False,
    out: Path | None = None,
    html: Path | None = None,
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"])] = False,
    json: bool = False,
) -> int:
    """Find the RASP program in a transformer's weights, and prove it by compiling it and comparing.

    Exit status 0 if it is proved, in its weights or in its answers; 3 if none was within the budget: the best guess is
    printed and written all the same.

    Args:
        file: safetensors, with or without weightspace's description, or an npz of Tracr's parameters under their names.
        vocab: the tokens without BOS and PAD, as a JSON list or a file that holds one, if the file does not say them.
        budget: time to search, such as 30s, 2m or 45 (seconds).
        heads: heads of each layer, if they cannot be read off the weights.
        identifier: which transformer, where an npz holds several as ID/PARAMETER.
        causal: each place sees only itself and what is before it; the weights do not say.
        out: a file for the program's text.
        html: a page that shows the program, its proof, and where each line stands in the weights.
        verbose: print the trace of the search too.
        json: print JSON.
    """
    from weightspace.rasp.files import load_bare

    seconds = _budget(budget)
    _check_destinations(file, {"--out": out, "--html": html})
    tokens = None if vocab is None else _vocab(vocab)
    bare = load_bare(file, vocab=tokens, num_heads=heads, causal=causal, identifier=identifier)
    from weightspace.models.search import decompile as search

    found = search(bare, budget=seconds)
    if json:  # printed before anything is written, so that a full disk does not take it away
        _json(found.to_json())
    else:
        from weightspace.tasks.decompile import summary

        lines = [summary(found), *(["", "the search:", *(f"  {line}" for line in found.trace)] if verbose else [])]
        _say("\n".join(lines))
    if out is not None and found.program is not None:
        from weightspace.weights.network import write_atomically

        write_atomically(out, f"{found.program}\n".encode())
    if html is not None:
        from weightspace.evaluation.decompilation import write_decompilation

        write_decompilation(found, bare, html, name=file.name if identifier is None else f"{file.name}: {identifier}")
    if out is not None and found.program is None:
        _fail(f"there is no program to write, so {out} was left as it was")
    for path in (out if found.program is not None else None, html):
        if path is not None and not json:
            _say(str(path))
    return 0 if found.found else NOT_FOUND


def decompiler_train(
    recipe: Positional[str],
    out: Path | None = None,
    steps: int | None = None,
    start: Path | None = None,
    workers: int = 1,
) -> int:
    """Train a decompiler; a killed run goes on when it is called again.

    Args:
        recipe: rasp-typed-small (for two cores), rasp-typed (for a GPU), rasp-paper-small or rasp-paper (the paper's
            experiment, with its figures).
        out: folder of checkpoints, logs and the network; runs/RECIPE unless given.
        steps: instead of the recipe's.
        start: a trained decompiler (decompiler.safetensors) to go on from, with a new learning-rate schedule.
        workers: processes that draw and compile programs; 0 for this one.
    """
    from weightspace.recipes.decompilers import train_decompiler

    folder = out or Path("runs") / recipe
    return _json(train_decompiler(recipe, folder, steps=steps, start=start, workers=workers))


def decompiler_evaluate(
    network: Path | None = None,
    count: int = 1_000,
    seed: int = 2024,
    lengths: tuple[int, ...] = (),
    shape: tuple[int, int] | None = None,
) -> int:
    """Decode one program for each held-out transformer, without search, and count how many are certified.

    Args:
        network: a trained decompiler; the one that comes with the package unless given.
        count: programs.
        seed: of the programs.
        lengths: of the programs in S-ops, inputs counted, instead of those published.
        shape: tokens and longest input that the programs are compiled for, instead of 5 and 5.
    """
    from weightspace.recipes.decompilers import evaluate_decompiler

    if shape is not None and not all(2 <= size <= 50 for size in shape):
        raise ValueError(f"--shape {shape[0]} {shape[1]}: give 2 to 50 tokens and a longest input of 2 to 50")
    return _json(evaluate_decompiler(network, count=count, seed=seed, lengths=lengths, shape=shape))


def decompiler_readers(
    readers: tuple[str, ...] = (),
    share: float = 1.0,
    count: int = 1_000,
    workers: int = 1,
    out: Path = Path("runs/readers"),
) -> int:
    """Train a decompiler with each reader of weights for the same time, and score them; a killed run goes on.

    Args:
        readers: "graph", "chunks, names shuffled", "chunks, the compiler's names", "rows, names shuffled"; all unless
            given.
        share: of the budget, which is some 25 minutes of one core for each.
        count: held-out programs on which they are scored.
        workers: processes that draw and compile programs; 0 for this one.
        out: folder of the trainings and readers.json.
    """
    from weightspace.recipes.readers import BUDGET, compare_readers, table

    unknown = [reader for reader in readers if reader not in BUDGET]
    if unknown:
        raise ValueError(f"no reader is named {unknown[0]!r}: there are {'; '.join(BUDGET)}")
    return _say(table(compare_readers(out, readers or tuple(BUDGET), share=share, programs=count, workers=workers)))


def decompiler_ladder(
    rungs: tuple[str, ...] = ("clean", "permuted", "rotated", "noisy-0.03", "compressed-0.9"),
    methods: tuple[str, ...] = (),
    count: int = 50,
    budget: str = "10s",
    lengths: tuple[int, ...] = (),
    seed: int = 2024,
    out: Path = Path("runs/ladder"),
) -> int:
    """Decompile the same held-out programs on every rung by every method; a killed run goes on.

    Args:
        rungs: clean, permuted, rotated, noisy-SHARE, compressed-SHARE, finetuned-SHARE, trained.
        methods: lifter, greedy, sampled, search, enumeration, activations, behaviour; all unless given.
        count: programs.
        budget: time for each method and program.
        lengths: of the programs in S-ops, inputs counted, instead of those published.
        seed: of programs, rungs and methods.
        out: folder of the weights and results.jsonl.
    """
    from typing import cast

    from weightspace.models.search import METHODS, Method
    from weightspace.recipes.ladder import LadderConfig, run_ladder, table

    if not rungs:
        raise ValueError("--rungs names no rung: give such as clean, permuted, noisy-0.03")
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise ValueError(f"no method is named {unknown[0]!r}: there are {', '.join(METHODS)}")
    chosen = cast(tuple[Method, ...], methods or METHODS)
    config = LadderConfig(count=count, rungs=rungs, methods=chosen, budget=_budget(budget), seed=seed, lengths=lengths)
    return _say(table(run_ladder(config, out)))


# -- hyperparameters --------------------------------------------------------------------------------------------------


def hyperparameters_compare(
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
    from weightspace.evaluation.properties import property_tables
    from weightspace.recipes.hyperparameters import METHODS, VARIANTS, ask
    from weightspace.weights.network import write_atomically
    from weightspace.weights.store import Zoo

    found = Zoo.open(zoo)
    options = {"variants": variants, "larger": larger, "checkpoints": checkpoints}
    name = "-".join([zoo.name, *(option for option, chosen in options.items() if chosen)])
    name += f"-{labelled:g}-labelled" if labelled < 1 else ""
    name += f"-{networks}-networks" if networks is not None else ""
    place = out or Path("runs/hyperparameters") / name
    said, training, test = ask(
        found,
        place,
        methods=_some(methods, VARIANTS if variants else METHODS, "method"),
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
    return _say(f"{text}\n\n{place / 'tables.md'}")


def hyperparameters_curve(
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
    from weightspace.evaluation.properties import curve_table
    from weightspace.recipes.hyperparameters import GROWING, learning_curve
    from weightspace.weights.store import Zoo

    place = out or Path("runs/hyperparameters") / f"{zoo.name}-curve"
    chosen = _some(methods, GROWING, "method")
    return _say(curve_table(learning_curve(Zoo.open(zoo), place, counts, methods=chosen, seeds=seeds)))


# -- backdoors --------------------------------------------------------------------------------------------------------


def scan(
    targets: Positional[tuple[str, ...]],
    fpr: float = 0.05,
    detector: Path | None = None,
    json: bool = False,
    sarif: Path | None = None,
    html: Path | None = None,
) -> int:
    """Say of checkpoints whether their weights look like those of networks with a backdoor.

    Reads safetensors, PyTorch state dicts (through its restricted unpickler alone) and ONNX initialisers; nothing in a
    file is executed. Exit status 0 clean, 1 suspicious, 2 wrong usage, 3 unreadable or refused, 4 out of the detector's
    scope; of several files that of the gravest: suspicious, then unreadable, then out of scope.

    Args:
        targets: files, folders (all checkpoints below them) or hf://OWNER/NAME@REVISION.
        fpr: share of clean networks that may be called suspicious.
        detector: a detector that `weightspace backdoors train` made; the one that comes with the package unless given.
        json: print JSON.
        sarif: a file for SARIF 2.1.0.
        html: a page for people.
    """
    from weightspace.models.detector import Detector
    from weightspace.recipes.scanner import scan as judge
    from weightspace.tasks.scan import summary

    sources = [Path(target) for target in targets if not target.startswith("hf://")]
    for source in sources or [Path()]:
        _check_destinations(source, {"--sarif": sarif, "--html": html})
    found = judge(targets, Detector.load(detector), false_alarms=fpr)
    with suppress(BrokenPipeError):  # printed before anything is written, so that a full disk does not take it away
        _json(found.to_json()) if json else _say(summary(found))
    if sarif is not None or html is not None:
        from weightspace.evaluation.scanning import write_sarif, write_scan

        for path, write in ((sarif, write_sarif), (html, write_scan)):
            if path is not None:
                write(found, path)
                if not json:
                    with suppress(BrokenPipeError):
                        _say(str(path))
    return found.exit_status


def backdoors_compare(
    zoo: Positional[Path],
    detectors: tuple[str, ...] = (),
    attacks: tuple[str, ...] = (),
    success: float = 0.5,
    networks: int | None = None,
    out: Path = Path("runs/backdoors"),
) -> int:
    """Fit every detector on a zoo's training split and print the tables of its test split; a killed run goes on.

    Args:
        zoo: made by `weightspace zoo make backdoors-small`.
        detectors: some of them, by the names that the tables call them; all unless given.
        attacks: those that are trained on; all unless given. All are tested.
        success: least success of an attack for its network to be trained on; 0 for all, as in the paper.
        networks: how many training networks are used; all unless given.
        out: folder of checkpoints, answers, and tables.md: every measure of every table; AUROC alone is printed.
    """
    from weightspace.evaluation.detection import TABLES, area_table, detection_rows, markdown, time_table
    from weightspace.recipes.backdoors import DETECTORS, detect
    from weightspace.weights.network import write_atomically
    from weightspace.weights.store import Zoo

    chosen = _some(detectors, DETECTORS, "detector")
    answers = detect(Zoo.open(zoo), out, detectors=chosen, attacks=attacks or None, success=success, networks=networks)
    rows = detection_rows(answers)
    full = {name: markdown(rows[name]) for name in TABLES if rows[name]} | {"time": time_table(answers)}
    short = {name: area_table(rows[name]) for name in TABLES[1:] if rows[name]}

    def text(tables: dict[str, str]) -> str:
        return "\n\n".join(f"{name}\n\n{table}" for name, table in tables.items())

    write_atomically(out / "tables.md", f"{text(full)}\n".encode())
    return _say(f"{text({**full, **short})}\n\n{out / 'tables.md'}")


def backdoors_transfer(
    zoo: Positional[Path],
    detectors: tuple[str, ...] = (),
    success: float = 0.5,
    out: Path = Path("runs/transfer"),
) -> int:
    """AUROC on working attacks after training on each attack alone, and on all but each; a killed run goes on.

    Args:
        zoo: made by `weightspace zoo make backdoors-small`.
        detectors: some of the quick ones; all of these unless given.
        success: least success of an attack for its network to be trained on.
        out: folder of checkpoints, answers, and figure3.svg: the ROC curves of the paper's panels.
    """
    from weightspace.evaluation.detection import held_out_table, transfer_table
    from weightspace.recipes.backdoors import QUICK, figure_3, transfer
    from weightspace.weights.network import write_atomically
    from weightspace.weights.store import Zoo

    chosen = _some(detectors, QUICK, "quick detector")
    alone, without = transfer(Zoo.open(zoo), out, detectors=chosen, success=success)
    tables = {"all attacks but one, tested on that one": held_out_table(without)}
    for position, name in enumerate(chosen):
        tables[f"one attack, {name}"] = transfer_table({attack: found[position] for attack, found in alone.items()})
    panels, picture = figure_3(alone)
    tables["the panels of Figure 3"] = panels
    if picture is not None:
        write_atomically(out / "figure3.svg", picture.encode())
    return _say("\n\n".join(f"{name}\n\n{table}" for name, table in tables.items()))


def backdoors_curve(
    zoo: Positional[Path],
    counts: tuple[int, ...] = (75, 150, 300, 600),
    detectors: tuple[str, ...] = (),
    success: float = 0.5,
    out: Path = Path("runs/curve"),
) -> int:
    """AUROC on working attacks after training on so many networks; a killed run goes on.

    Args:
        zoo: made by `weightspace zoo make backdoors-small`.
        counts: of training networks.
        detectors: some of the quick ones; all of these unless given.
        success: least success of an attack for its network to be trained on.
        out: folder of checkpoints and answers.
    """
    from weightspace.evaluation.detection import side_by_side
    from weightspace.recipes.backdoors import QUICK, learning_curve
    from weightspace.weights.store import Zoo

    found = learning_curve(
        Zoo.open(zoo), out, counts, detectors=_some(detectors, QUICK, "quick detector"), success=success
    )
    return _say(side_by_side({f"{count} networks": answers for count, answers in found.items()}))


def backdoors_widths(
    zoo: Positional[Path],
    wide: Positional[Path],
    detectors: tuple[str, ...] = (),
    success: float = 0.5,
    out: Path = Path("runs/widths"),
) -> int:
    """AUROC on working attacks in networks of the width that was trained on, and of another; a killed run goes on.

    Args:
        zoo: made by `weightspace zoo make backdoors-small`.
        wide: made by `weightspace zoo make backdoors-wide`; all of its networks are asked about.
        detectors: some of the quick ones; all of these unless given.
        success: least success of an attack for its network to be trained on.
        out: folder of checkpoints and answers.
    """
    from weightspace.evaluation.detection import side_by_side
    from weightspace.recipes.backdoors import WIDTHS, other_widths
    from weightspace.weights.store import Zoo

    chosen = _some(detectors, WIDTHS, "quick detector")
    return _say(side_by_side(other_widths(Zoo.open(zoo), Zoo.open(wide), out, detectors=chosen, success=success)))


def backdoors_families(zoo: Positional[Path], success: float = 0.5, out: Path = Path("runs/families")) -> int:
    """Which kind of trigger a backdoor has, where it works: accuracy of every method with its interval.

    Args:
        zoo: made by `weightspace zoo make backdoors-small`.
        success: least success of an attack for its network to be trained on.
        out: folder of checkpoints.
    """
    from weightspace.evaluation.results import Results, format_table
    from weightspace.recipes.backdoors import family_rows
    from weightspace.weights.store import Zoo

    rows = family_rows(Zoo.open(zoo), out, success=success)
    return _say(format_table(Results(task=f"kind of trigger in {zoo}", rows=tuple(rows))))


def _some(names: tuple[str, ...], known: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Those that are named, or all.

    Raises:
        ValueError: on an unknown name; the message lists all.
    """
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no {what} is named {unknown[0]!r}: there are {'; '.join(known)}")
    return {name: known[name] for name in names or known}


def backdoors_train(zoo: Positional[Path], steps: int | None = None, out: Path = Path("runs/detector")) -> int:
    """Train a detector on a zoo, calibrate it on networks kept apart, and score it on the test split.

    Args:
        zoo: made by `weightspace zoo make backdoors-small`.
        steps: instead of the recipe's.
        out: folder of checkpoints and detector.safetensors.
    """
    from weightspace.recipes.scanner import train_detector
    from weightspace.weights.store import Zoo

    return _json(train_detector(Zoo.open(zoo), out, steps=steps).card)


def backdoors_evaluate(zoo: Positional[Path], detector: Path | None = None, fpr: float = 0.05) -> int:
    """The figures of a detector's card, on a zoo's test networks.

    Args:
        zoo: of the networks that the detector was made for.
        detector: the one that comes with the package unless given.
        fpr: share of clean networks that may be called suspicious.
    """
    from weightspace.models.detector import Detector
    from weightspace.recipes.scanner import evaluate_detector
    from weightspace.weights.store import Zoo

    return _json(evaluate_detector(Detector.load(detector), Zoo.open(zoo), false_alarms=fpr))


def backdoors_repair(
    zoo: Positional[Path],
    images: str | None = None,
    data: str | None = None,
    detector: Path | None = None,
    count: int | None = None,
    out: Path = Path("runs/repair"),
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
    """
    from weightspace.models.detector import Detector
    from weightspace.recipes.repair import RepairConfig, locate_and_repair
    from weightspace.recipes.zoos import zoo_recipe
    from weightspace.weights.store import Zoo

    config = RepairConfig()
    if count is not None:
        config = RepairConfig(
            training=2 * count, validation=max(2, count // 2), test=count, pairs=2 * count, steps=min(600, 20 * count)
        )
    found = Zoo.open(zoo)
    made = found.description["config"]
    recipe = zoo_recipe(made["recipe"], images=images or made["images"], data=data)
    tables = locate_and_repair(found, recipe, Detector.load(detector), out, config)
    return _say("\n\n".join(f"{name}\n\n{table}" for name, table in tables.items()))


def _check_destinations(source: Path, destinations: dict[str, Path | None]) -> None:
    """Before anything long: that each file can be written, is not the one that is read, and is not named twice.

    Raises:
        ValueError: if not.
    """
    taken = {source.resolve(): "the file that is read"}
    for option, path in destinations.items():
        if path is None:
            continue
        where = path.resolve()
        if where in taken:
            raise ValueError(f"{option} {path} is {taken[where]} too: name another file")
        taken[where] = f"that of {option}"
        if path.is_dir():
            raise ValueError(f"{option} {path} is a folder: name a file in it")
        if path.exists() and not path.is_file():
            raise ValueError(f"{option} {path} is no regular file, so it is not replaced: choose another name")
        above = next(folder for folder in where.parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise ValueError(f"{option} {path} cannot be written: {above} is no folder that may be written to")


def _budget(text: str) -> float:
    """Seconds that a text such as `30s`, `2m` or `45` says.

    Raises:
        ValueError: if it says none, or none that is more than 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(s|m|h|)", text.strip())
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 0 < seconds < 1e7:
        raise ValueError(f"--budget {text!r} is no time: give such as 30s, 2m or 45 (seconds)")
    return seconds


def _vocab(text: str) -> list[Any]:
    """The tokens that `--vocab` says: a JSON list, or a file that holds one.

    Raises:
        ValueError: if there is no list of tokens.
    """
    from weightspace.rasp.reading import read_vocabulary

    given = text
    if not text.lstrip().startswith(("[", "{", '"')):
        if not Path(text).is_file():
            if text.endswith(".json"):
                raise ValueError(f"--vocab names the file {text}, which is not there")
            if not re.search(r"[\s,]", text.strip()):
                raise ValueError(f"--vocab {text} is no file and no list of tokens: give such as [0, 1, 2], or a,b,c")
            return list(read_vocabulary(text))
        given = Path(text).read_text(encoding="utf-8", errors="replace")
    try:
        found = json.loads(given)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'--vocab is no JSON list of tokens, such as [0, 1, 2] or ["a", "b"]: {error}') from None
    if not isinstance(found, list):
        raise ValueError(f"--vocab is a JSON {type(found).__name__}: give a list of tokens, such as [0, 1, 2]")
    return found


# -- the verbs of RASP ------------------------------------------------------------------------------------------------

Id = Annotated[str | None, tyro.conf.arg(name="id")]
Inputs = Annotated[UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="input")]
Mode = Literal["fixed", "tracr_compat"]


def rasp_sample(
    distribution: Literal["typed", "paper"] = "typed",
    count: int | None = None,
    seed: int = 0,
    lengths: tuple[int, ...] = (),
    statistics: bool = False,
    json: bool = False,
) -> int:
    """Random programs of a published distribution, as texts; the same seed gives the same programs.

    Args:
        distribution: paper (Langosco et al., appendix B.1) or typed (its successor of 2024).
        count: programs; 10, or 1,000 for statistics, unless given.
        seed: any whole number.
        lengths: which are wanted, equally likely: of typed in S-ops with the inputs, of paper in instructions.
        statistics: print what the programs look like, beside what is published, instead of the programs.
        json: print records, or figures, as JSON.
    """
    from itertools import islice

    if count is not None and count < 1:
        raise ValueError(f"--count {count}: at least 1 program is needed")
    if statistics:
        from weightspace.rasp.statistics import format_statistics
        from weightspace.rasp.statistics import statistics as figures_of

        figures = figures_of(distribution, count or 1_000, seed, lengths or None)
        return _json(figures) if json else _say(format_statistics(figures))
    from weightspace.rasp.sampler import sample

    programs = enumerate(islice(sample(distribution, seed, lengths or None), count or 10))
    if json:
        return _json([{"id": f"{distribution}-{seed}-{i}", **program.to_record()} for i, program in programs])
    for i, program in programs:
        _say(("\n" if i else "") + f"# program {i}\n{program}")
    return 0


def rasp_show(
    file: Positional[Path],
    inputs: Annotated[str | None, tyro.conf.arg(name="input")] = None,
    out: Path | None = None,
    mode: Mode = "fixed",
    vocab: str | None = None,
    max_seq_len: int | None = None,
    record: Id = None,
    json: bool = False,
) -> int:
    """A program as text and as a graph, its compiled transformer with named directions, and pictures of both.

    Args:
        file: program text, a JSON record or a list of records; - is standard input.
        inputs: tokens with blanks or commas between them, or a word: shows what every variable gives for it.
        out: a .png or .svg file; NAME-graph is drawn beside it, and with an input NAME-stream.
        mode: fixed, or tracr_compat, which repeats Tracr's own errors.
        vocab: tokens instead of those that the program says, such as a,b,c or 0,1,2.
        max_seq_len: longest input instead of the one that the program says.
        record: which record of a list, by its id.
        json: print JSON.
    """
    from dataclasses import asdict

    from weightspace.rasp import drawing
    from weightspace.rasp.compiler import NotCompilable, compile_program
    from weightspace.rasp.interpreter import trace
    from weightspace.rasp.reading import read_input

    program = _program(file, record, vocab, max_seq_len)
    tokens = None if inputs is None else read_input(inputs, program.vocab)
    shown: dict[str, Any] = {"text": str(program), "graph": [asdict(node) for node in drawing.graph(program)]}
    parts = [str(program), drawing.graph_text(program)]
    transformer, names = None, {}
    if program.vocab is None or program.max_seq_len is None:
        parts.append("not compiled: the program does not say what it is meant for; give --vocab and --max-seq-len")
    else:
        try:
            transformer = compile_program(program, mode=mode)
        except NotCompilable as error:
            shown["reasons"] = [asdict(reason) for reason in error.reasons]
            parts.append("it cannot be compiled:\n" + "\n".join(f"  {reason}" for reason in error.reasons))
    if transformer is not None:
        names = drawing.direction_names(program, transformer)
        parts.append(drawing.transformer_text(transformer, names))
        groups = [{"label": g.label, "variable": names.get(g.label), "names": g.names} for g in transformer.directions]
        shown["transformer"] = {**_sizes(transformer), "directions": groups}
    if tokens is not None:
        values = trace(program, tokens)
        shown["trace"] = values
        parts.append(drawing.trace_text(values))
        if transformer is not None:
            shown["answer"] = transformer.run([tokens])[0]
            parts[-1] += "\n" + _beside(values[program.name(program.output)], shown["answer"])
    if out is not None:
        written = [out.with_name(f"{out.stem}-graph{out.suffix}")]
        drawing.save_figure(drawing.draw_graph(program), written[0])
        if tokens is not None and transformer is not None:
            written.append(out.with_name(f"{out.stem}-stream{out.suffix}"))
            drawing.save_figure(drawing.draw_stream(transformer, tokens, names), written[1])
        shown["written"] = [str(path) for path in written]
        parts.append("\n".join(shown["written"]))
        if transformer is not None and tokens is None:
            parts[-1] += "\n(--input TOKENS draws the residual stream too)"
    return _json(shown) if json else _say("\n\n".join(parts))


def rasp_run(
    file: Positional[Path],
    inputs: Inputs = (),
    compiled: bool = True,
    mode: Mode = "fixed",
    vocab: str | None = None,
    max_seq_len: int | None = None,
    record: Id = None,
    json: bool = False,
) -> int:
    """What a program answers, and beside it what its compiled transformer does.

    Args:
        file: program text, a JSON record or a list of records; - is standard input.
        inputs: tokens with blanks or commas between them, or a word; may be given several times.
        compiled: ask the compiled transformer too.
        mode: fixed, or tracr_compat, which repeats Tracr's own errors.
        vocab: tokens instead of those that the program says, such as a,b,c or 0,1,2.
        max_seq_len: longest input instead of the one that the program says.
        record: which record of a list, by its id.
        json: print JSON.
    """
    from weightspace.rasp.agreement import agrees
    from weightspace.rasp.compiler import NotCompilable, compile_program
    from weightspace.rasp.interpreter import evaluate
    from weightspace.rasp.reading import read_input, token_text

    if not inputs:
        raise ValueError("what shall it run on? give --input TOKENS, such as --input 'h e l l o'")
    program = _program(file, record, vocab, max_seq_len, whole=compiled)
    sequences = [read_input(text, program.vocab) for text in inputs]
    answers = [{"input": tokens, "interpreter": evaluate(program, tokens)} for tokens in sequences]
    obstacle = ""
    if compiled:
        try:
            found = compile_program(program, mode=mode).run(sequences)
        except NotCompilable as error:
            obstacle = str(error)
            answers = [{**answer, "transformer": None, "obstacle": obstacle} for answer in answers]
        else:
            answers = [
                {**answer, "transformer": given, "equal": agrees(answer["interpreter"], given)}
                for answer, given in zip(answers, found, strict=True)
            ]
    if json:
        return _json(answers)
    parts = []
    for answer in answers:
        lines = [f"input        {token_text(answer['input'])}", f"interpreter  {token_text(answer['interpreter'])}"]
        if answer.get("transformer") is not None:
            lines.append(_beside(answer["interpreter"], answer["transformer"]))
        parts.append("\n".join(lines))
    if obstacle:
        parts.append(f"no transformer: it cannot be compiled: {obstacle}")
    return _say("\n\n".join(parts))


def rasp_compile(
    file: Positional[Path],
    out: Path,
    mode: Mode = "fixed",
    vocab: str | None = None,
    max_seq_len: int | None = None,
    record: Id = None,
    json: bool = False,
) -> int:
    """Compile a program to a transformer and write its weights as safetensors.

    Args:
        file: program text, a JSON record or a list of records; - is standard input.
        out: the file, such as model.safetensors.
        mode: fixed, or tracr_compat, which repeats Tracr's own errors.
        vocab: tokens instead of those that the program says, such as a,b,c or 0,1,2.
        max_seq_len: longest input instead of the one that the program says.
        record: which record of a list, by its id.
        json: print the sizes as JSON.
    """
    from weightspace.rasp.compiler import compile_program
    from weightspace.rasp.drawing import direction_names, transformer_text

    program = _program(file, record, vocab, max_seq_len, whole=True)
    transformer = compile_program(program, mode=mode)
    transformer.save(out)
    if json:
        return _json({"written": str(out), **_sizes(transformer)})
    return _say(f"{out}: {transformer_text(transformer, direction_names(program, transformer))}")


def rasp_check(
    file: Positional[Path],
    mode: Mode = "fixed",
    seed: int = 0,
    vocab: str | None = None,
    max_seq_len: int | None = None,
    record: Id = None,
    json: bool = False,
) -> int:
    """Every reason why a program cannot be compiled; if there is none, whether its transformer does what it means.

    Exit status 1 if something was found. The two are compared on every input, or on a sample if there are more than
    100,000.

    Args:
        file: program text, a JSON record or a list of records; - is standard input.
        mode: fixed, or tracr_compat, which repeats Tracr's own errors.
        seed: of the sample of inputs.
        vocab: tokens instead of those that the program says, such as a,b,c or 0,1,2.
        max_seq_len: longest input instead of the one that the program says.
        record: which record of a list, by its id.
        json: print JSON.
    """
    from dataclasses import asdict

    from weightspace.rasp.agreement import agreement, report
    from weightspace.rasp.compiler import NotCompilable, compile_program

    program = _program(file, record, vocab, max_seq_len, whole=True)
    try:
        transformer = compile_program(program, mode=mode)
    except NotCompilable as error:
        if json:
            _json({"reasons": [asdict(reason) for reason in error.reasons], "agreement": None})
        else:
            _say("it cannot be compiled:\n" + "\n".join(f"  {reason}" for reason in error.reasons))
        return 1
    found = agreement(program, transformer, seed)
    if json:
        _json({"reasons": [], "agreement": {**asdict(found), "complete": found.complete}})
    else:
        _say(f"it can be compiled: {len(transformer):,} parameters ({mode})\n{report(found, seed)}")
    return 1 if found.differing else 0


def _program(file: Path, record: str | None, vocab: str | None, max_seq_len: int | None, whole: bool = False) -> Any:
    """The program in a file, meant for what the options say.

    Args:
        whole: whether it must be known what it is meant for.
    Raises:
        ValueError: if there is none, or what it is meant for is missing or wrong.
    """
    from weightspace.rasp.reading import read_program, read_vocabulary
    from weightspace.rasp.validate import settings

    program = read_program(file, record)
    program = program.meant_for(None if vocab is None else read_vocabulary(vocab), max_seq_len)
    missing = [("--vocab a,b,c", program.vocab), ("--max-seq-len N", program.max_seq_len)]
    absent = [option for option, value in missing if value is None]
    if absent and whole:
        name = "standard input" if str(file) == "-" else file
        raise ValueError(f"{name}: the program does not say what it is meant for: give {' and '.join(absent)}")
    # what is missing does no harm here, and what is given must be right
    settings(program, (0,) if program.vocab is None else None, 1 if program.max_seq_len is None else None)
    return program


def _sizes(transformer: Any) -> dict[str, Any]:
    sizes = {**transformer.configuration._asdict(), "residual_width": transformer.layout.width}
    return {**sizes, "parameters": len(transformer), "mode": transformer.mode}


def _beside(expected: list[Any], given: list[Any]) -> str:
    from weightspace.rasp.agreement import agrees
    from weightspace.rasp.reading import token_text

    verdict = "the same" if agrees(expected, given) else "THEY DIFFER"
    return f"transformer  {token_text(given)}   ({verdict})"
