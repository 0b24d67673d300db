"""From the words that a person types to a verb, and from what went wrong to one sentence and an exit status."""

from __future__ import annotations

import errno
import functools
import inspect
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from itertools import pairwise
from typing import Any, NoReturn

import tyro

from weightspace.cli import backdoors, decompile, heads, hyperparameters, inspection, metamodels, rasp, zoo
from weightspace.cli.output import fail, say
from weightspace.metamodels.recipes import METAMODEL_RECIPES
from weightspace.train.launch import Launch

# Nothing heavier up here, nor in the files of verbs: `weightspace --help` must answer at once. A verb imports what it
# calls.

VERBS: dict[str, tuple[Callable[..., int], str]] = {
    "demo": (metamodels.demo, "digits to a trained meta-model, a table and a report, in minutes"),
    "zoo make": (zoo.make, "make a population of networks or programs by a recipe, or what is missing of it"),
    "zoo info": (zoo.info, "what a zoo holds"),
    "zoo check": (zoo.check, "verify every checksum and look for leaks"),
    "zoo import": (zoo.import_, "networks that you have already, with labels, into a zoo"),
    "zoo push": (zoo.push, "publish a zoo on the Hugging Face hub, or in a folder"),
    "zoo pull": (zoo.pull, "fetch a published zoo, every checksum compared"),
    "train": (metamodels.train, "train a meta-model on a zoo"),
    "evaluate": (metamodels.evaluate, "score a trained meta-model on a zoo's held-out networks"),
    "compare": (metamodels.compare, "meta-model and baselines on one zoo: table, results.json, report.html"),
    "predict": (metamodels.predict, "ask a trained meta-model about networks in safetensors files"),
    "model push": (metamodels.model_push, "publish a trained model on the Hugging Face hub, or in a folder"),
    "model pull": (metamodels.model_pull, "fetch a published model, its checksum compared"),
    "report": (metamodels.report, "make the HTML report of a results.json"),
    "decompile": (decompile.decompile, "a transformer's weights to the RASP program in them, with a certificate"),
    "decompiler train": (decompile.train, "train a network that decompiles, on programs drawn on the fly"),
    "decompiler evaluate": (decompile.evaluate, "the figures of a decompiler's card, on held-out programs"),
    "decompiler readers": (decompile.readers, "readers of weights under one budget: graph, rows, flat chunks"),
    "decompiler ceiling": (decompile.ceiling, "the best exact match that anybody can reach on the paper's target"),
    "decompiler paper": (decompile.paper, "the paper's experiment: certificates, and its metric for programs found"),
    "decompiler listing": (decompile.listing, "train a network that writes the paper's listings from weights alone"),
    "decompiler ladder": (decompile.ladder, "every method on every rung: noisy, compressed, finetuned, trained"),
    "scan": (backdoors.scan, "is there a backdoor in these checkpoints? a verdict, how sure, and which neurons"),
    "inspect": (inspection.inspect, "what a checkpoint holds: kind, arrays, architecture, metadata, hash; no verdict"),
    "heads": (heads.heads, "what the attention heads of a language model do, read from their weights"),
    "heads label": (heads.label, "run a language model and score what each of its heads does"),
    "heads train": (heads.train, "train a reader of heads on a zoo of small language models"),
    "heads study": (heads.study, "the reader of heads against baselines and controls on a real model"),
    "hyperparameters compare": (hyperparameters.compare, "every method on the properties of a zoo's networks"),
    "hyperparameters curve": (hyperparameters.curve, "the methods by the number of networks they are trained on"),
    "backdoors compare": (backdoors.compare, "every detector of backdoors on one zoo, and the tables"),
    "backdoors transfer": (backdoors.transfer, "detectors after training on each attack alone, and on all but each"),
    "backdoors curve": (backdoors.curve, "detectors by the number of networks that they are trained on"),
    "backdoors scale": (backdoors.scale, "readers of weights as given and in canonical scale, asked about rewrites"),
    "backdoors widths": (backdoors.widths, "detectors trained on networks of one width, asked about another"),
    "backdoors families": (backdoors.families, "which kind of trigger a backdoor has"),
    "backdoors read": (backdoors.read, "networks of any architecture as one table of numbers and labels"),
    "backdoors anywhere": (backdoors.anywhere, "detectors of any architecture: axes left out, and outsiders"),
    "backdoors train": (backdoors.train, "train and calibrate a detector that `scan` can use"),
    "backdoors repair": (backdoors.repair, "which neurons carry backdoors, and ways to take them out, side by side"),
    "backdoors evaluate": (backdoors.evaluate, "the figures of a detector's card, on a zoo's test networks"),
    "rasp sample": (rasp.sample, "random programs of a published distribution, or what they look like"),
    "rasp show": (rasp.show, "a program's text, graph and compiled transformer, and pictures of them"),
    "rasp run": (rasp.run, "what a program answers, and what its compiled transformer does"),
    "rasp compile": (rasp.compile_, "a program to a transformer's weights"),
    "rasp scrub": (rasp.scrub, "whether weights compute a program as the compiler would have it, by interventions"),
    "rasp scrubs": (rasp.scrubs, "`rasp scrub` of many random programs, and the power of it by wrong hypotheses"),
    "rasp check": (rasp.check, "why a program cannot be compiled, or whether its transformer does what it means"),
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
        *("decompiler train", "decompiler readers", "decompiler ladder", "decompiler paper", "decompiler listing"),
        *("hyperparameters compare", "hyperparameters curve"),
        *(
            "backdoors compare",
            "backdoors transfer",
            "backdoors curve",
            "backdoors scale",
            "backdoors widths",
            "backdoors families",
        ),
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

        return say(f"weightspace {__version__}")
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in VERBS:
            return _run(VERBS[name][0], f"weightspace {name}", words[count:])
    if not words or words[0] in ("-h", "--help") or (words[0] in GROUPS and words[1:] in (["-h"], ["--help"])):
        return say(_usage())
    if words[0] in GROUPS:
        known = ", ".join(GROUPS[words[0]])
        return fail(f"weightspace {words[0]} needs one of {known}, not {' '.join(words[1:2]) or 'nothing'}")
    return fail(f"there is no verb {words[0]!r}: see weightspace --help")


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
        return fail(f"{why}: {kept}", code=130)
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RuntimeError as error:
        if "out of memory" not in str(error) or os.environ.get("WEIGHTSPACE_DEBUG"):
            raise
        return fail("the device ran out of memory: use a smaller --batch-size, --width or --stack")
    except (ValueError, OSError, ImportError, MemoryError) as error:
        if os.environ.get("WEIGHTSPACE_DEBUG"):
            raise
        return fail(_sentence(error) + KEPT * (name in RESUMED and _disk_full(error)))


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
