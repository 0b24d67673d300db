"""From the words that a person types to a verb, and from what went wrong to one sentence and an exit status."""

from __future__ import annotations

import errno
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from weightspace.cli import (
    backdoors,
    decompile,
    environment,
    heads,
    hyperparameters,
    inspection,
    metamodels,
    pairs,
    provenance,
    rasp,
    repair,
    zoo,
)
from weightspace.cli.arguments import EVERYWHERE, Positional, arguments
from weightspace.cli.completion import Shell, script
from weightspace.cli.help import usage, verb_help
from weightspace.cli.output import fail, note, say
from weightspace.cli.settings_file import options_of
from weightspace.cli.words import filled, nearest, read, required
from weightspace.errors import printable
from weightspace.files.progress import QUIET, VERBOSE, loudness
from weightspace.metamodels.recipes import METAMODEL_RECIPES
from weightspace.train.launch import Launch

# Nothing heavier up here, nor in the files of verbs: `weightspace --help` must answer at once. A verb imports what it
# calls.


def completion(shell: Positional[Shell]) -> int:
    """Print a script that completes verbs, options and their choices in a shell.

    Args:
        shell: bash, zsh or fish.

    Examples:
        source <(weightspace completion bash)
        weightspace completion fish > ~/.config/fish/completions/weightspace.fish
    """
    return say(script(shell, VERBS))


VERBS: dict[str, tuple[Callable[..., int], str]] = {
    "demo": (metamodels.demo, "decompile, scan, ask, in seconds (--quick); then digits to a trained meta-model"),
    "zoo make": (zoo.make, "make a population of networks or programs by a recipe, or what is missing of it"),
    "zoo info": (zoo.info, "what a zoo holds"),
    "zoo check": (zoo.check, "verify every checksum and look for leaks"),
    "zoo import": (zoo.import_, "networks that you have already, with labels, into a zoo"),
    "zoo push": (zoo.push, "publish a zoo on the Hugging Face hub, or in a folder"),
    "zoo pull": (zoo.pull, "fetch a published zoo, every checksum compared"),
    "train": (metamodels.train, "train a meta-model on a zoo"),
    "evaluate": (metamodels.evaluate, "score a trained meta-model on a zoo's held-out networks"),
    "compare": (metamodels.compare, "meta-model and baselines on one zoo: table, results.json, report.html"),
    "predict": (metamodels.predict, "ask a trained meta-model about networks in checkpoint files"),
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
    "decompiler trained": (decompile.trained, "every trained transformer of a folder: programs, proofs, baselines"),
    "scan": (backdoors.scan, "is there a backdoor in these checkpoints? a verdict, how sure, and which neurons"),
    "repair": (repair.repair, "take a backdoor out of a checkpoint's network: a new file, and what was found"),
    "lineage": (provenance.lineage, "is this network derived from that one, or from which of a folder?"),
    "lineage study": (provenance.lineage_study, "of a zoo of families, how often matching finds the parent"),
    "provenance": (provenance.provenance, "what these networks were trained on, as far as a reader can tell"),
    "provenance train": (provenance.train, "train and calibrate a reader of what networks were trained on"),
    "provenance study": (provenance.study, "what networks were trained on, by every method: the tables"),
    "inspect": (inspection.inspect, "what a checkpoint holds: kind, arrays, architecture, metadata, hash; no verdict"),
    "heads": (heads.heads, "what the attention heads of a language model do, read from their weights"),
    "heads label": (heads.label, "run a language model and score what each of its heads does"),
    "heads train": (heads.train, "train a reader of heads on a zoo of small language models"),
    "heads study": (heads.study, "the reader of heads against baselines and controls on a real model"),
    "pairs judge": (pairs.judge, "networks with known circuits: true hypotheses accepted, wrong ones not"),
    "pairs tasks": (pairs.tasks, "which components are used, and what they compute: readers against baselines"),
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
    "backdoors repair": (backdoors.repair, "repairs of networks with a backdoor, side by side on a zoo"),
    "backdoors neurons": (backdoors.neurons, "which neurons carry backdoors, and what removing them does"),
    "backdoors evaluate": (backdoors.evaluate, "the figures of a detector's card, on a zoo's test networks"),
    "rasp sample": (rasp.sample, "random programs of a published distribution, or what they look like"),
    "rasp show": (rasp.show, "a program's text, graph and compiled transformer, and pictures of them"),
    "rasp run": (rasp.run, "what a program answers, and what its compiled transformer does"),
    "rasp compile": (rasp.compile_, "a program to a transformer's weights"),
    "rasp to-transformer-lens": (rasp.to_transformer_lens, "a program to weights by TransformerLens's names"),
    "rasp scrub": (rasp.scrub, "whether weights compute a program as the compiler would have it, by interventions"),
    "rasp scrubs": (rasp.scrubs, "`rasp scrub` of many random programs, and the power of it by wrong hypotheses"),
    "rasp check": (rasp.check, "why a program cannot be compiled, or whether its transformer does what it means"),
    "completion": (completion, "a script that completes verbs and options in bash, zsh or fish"),
    "env": (environment.env, "what a bug report needs: versions, machine, threads, devices, extras"),
}
GROUPS = {
    name.split()[0]: [other.split()[1] for other in VERBS if other.startswith(name.split()[0] + " ")]
    for name in VERBS
    if " " in name
}
"""The second words of the verbs of two words."""
MOVED = {"hyperparameters compare": "compare --methods all"}
"""Verbs that have another name now."""
RESUMED = {
    f"weightspace {verb}"
    for verb in (
        *("demo", "zoo make", "zoo import", "train", "compare"),
        *("zoo push", "zoo pull", "model push", "model pull"),
        *("decompiler train", "decompiler readers", "decompiler ladder", "decompiler trained"),
        *("decompiler paper", "decompiler listing"),
        "hyperparameters curve",
        *(
            "backdoors compare",
            "backdoors transfer",
            "backdoors curve",
            "backdoors scale",
            "backdoors widths",
            "backdoors families",
        ),
        *("backdoors train", "backdoors repair", "backdoors neurons"),
    )
}
"""Long work that keeps what is finished and goes on when it is called again."""
TOGETHER = {"weightspace train"}
"""What several processes that torchrun has started do together."""
KEPT = "; what was finished is kept"


def main(arguments: list[str] | None = None) -> int:
    """Run one verb, and give its exit status, of `help.STATUSES`. Bad input is one sentence on stderr."""
    words = sys.argv[1:] if arguments is None else arguments
    # Threads that spin while they wait make a busy machine many times slower; it must be said before torch is loaded
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if words[:1] == ["--version"]:
        from weightspace import __version__

        return say(f"weightspace {__version__}")
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in VERBS:
            return _run(VERBS[name][0], f"weightspace {name}", words[count:])
        if name in MOVED:
            return fail(f"weightspace {name} is called weightspace {MOVED[name]} now")
    asks = words[-1:] in ([], ["-h"], ["--help"], ["help"])
    if asks and len(words) < 2:
        return say(usage(VERBS))
    if words[0] in GROUPS:
        if asks and len(words) == 2:
            return say(usage(VERBS, words[0]))
        known = ", ".join(GROUPS[words[0]])
        given = words[1] if len(words) > 1 else "nothing"
        meant = nearest(given, GROUPS[words[0]])
        return fail(f"weightspace {words[0]} needs one of {known}, not {printable(given)}{meant}")
    return fail(f"there is no verb {printable(words[0])!r}{_meant(words) or ': see weightspace --help'}")


def _meant(words: list[str]) -> str:
    """The verb that is nearest to what was typed: to its two words, to the first, or to the last of a verb."""
    last = {name.split()[-1]: name for name in reversed(VERBS)}
    if words[0] in last:
        return f": did you mean {last[words[0]]!r}?"
    return nearest(" ".join(words[:2]), VERBS) or nearest(words[0], [*VERBS, *GROUPS, *last])


def _run(verb: Callable[..., int], name: str, words: list[str]) -> int:
    debug = bool(os.environ.get("WEIGHTSPACE_DEBUG"))
    try:
        options, everywhere = _parse(verb, name, words)
        if everywhere["help"]:
            below = "\n\n" + usage(VERBS, group) if (group := name.removeprefix("weightspace ")) in GROUPS else ""
            return say(verb_help(verb, name, arguments(verb)) + below)
        debug |= everywhere["verbose"]
        if Launch.of_environment().count > 1 and name not in TOGETHER:
            raise ValueError(f"{name} is done by one process: start it without torchrun")
        level = QUIET if everywhere["quiet"] else VERBOSE if everywhere["verbose"] else 1
        start = time.monotonic()
        with _terminable(), loudness(level):
            status = verb(**options)
        if everywhere["verbose"]:
            note(f"{name} took {time.monotonic() - start:.1f} s, exit status {status}")
        return status
    except KeyboardInterrupt:
        kept = "run the same command again to go on" if name in RESUMED else "nothing was kept"
        together = Launch.of_environment().count > 1
        why = "interrupted" + " (by torchrun, if another process failed: its own message says why)" * together
        return fail(f"{why}: {kept}", code=130)
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RuntimeError as error:
        if "out of memory" not in str(error) or debug:
            raise
        return fail("the device ran out of memory: use a smaller --batch-size, --width or --stack")
    except (ValueError, OSError, ImportError, MemoryError) as error:
        if os.environ.get("WEIGHTSPACE_DEBUG"):
            raise
        if debug:
            _trace(error)
        return fail(_sentence(error) + KEPT * (name in RESUMED and _disk_full(error)))


def _trace(error: Exception) -> None:
    """Where it went wrong, for -v."""
    import traceback

    for line in "".join(traceback.format_exception(error)).splitlines()[:-1]:
        note(line)


def _parse(verb: Callable[..., int], name: str, words: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of a verb, and those of every verb, from the words and the file that `--config` names.

    A meta-model's defaults are those of the recipe that `--recipe` names.

    Raises:
        ValueError: on what cannot be understood, as one sentence.
    """
    parameters = inspect.signature(verb).parameters
    defaults: dict[str, Any] = {}
    known = arguments(verb)
    values = read(words, known, name)
    everywhere = {one.name: values.get(one, one.default) for one in EVERYWHERE}
    own = next((argument for argument in known if argument.name == "verbose"), None)
    if own is not None:
        everywhere["verbose"] = values.get(own, False)
    if everywhere["help"]:
        return {}, everywhere
    if everywhere["config"] is not None:
        values = {**options_of(everywhere["config"], known, name), **values}
    if "recipe" in parameters and "config" in parameters:
        recipe = next((value for argument, value in values.items() if argument.name == "recipe"), "small")
        if recipe not in METAMODEL_RECIPES:
            meant = nearest(recipe, METAMODEL_RECIPES)
            raise ValueError(
                f"no meta-model recipe is named {recipe!r}: there are {', '.join(METAMODEL_RECIPES)}{meant}"
            )
        defaults["config"] = METAMODEL_RECIPES[recipe]()
    required(values, known, name)
    return filled(values, known, defaults), everywhere


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
    if isinstance(error, FileExistsError) and error.filename:
        return f"{error.filename} is a file, and a folder is needed there: choose another place"
    if isinstance(error, NotADirectoryError) and error.filename:
        return f"a part of {error.filename} is a file, and a folder is needed there: choose another place"
    if isinstance(error, PermissionError) and error.filename:
        why = (error.strerror or str(error)).lower()
        return f"{error.filename} cannot be read or written ({why}): choose another place"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {(error.strerror or str(error)).lower()}"
    if isinstance(error, MemoryError):
        return "there is not enough memory: use fewer workers or a smaller zoo"
    return " ".join(str(error).split()) or type(error).__name__


def _disk_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
