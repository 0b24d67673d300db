"""Verbs that turn weights into programs, and measure what does."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from weightspace.cli.arguments import Named, Positional
from weightspace.cli.options import check_destinations, seconds_of, vocabulary
from weightspace.cli.output import fail, say, say_facts, say_json

NOT_FOUND = 3
"""Exit status of `decompile` where no program was proved to be right within the budget."""


def decompile(
    file: Positional[Path],
    vocab: str | None = None,
    budget: str = "30s",
    heads: int | None = None,
    identifier: Annotated[str | None, Named("id")] = None,
    causal: bool = False,
    bos: str | None = None,
    pad: str | None = None,
    inputs: Path | None = None,
    task: Literal["sets", "answers"] | None = None,
    offset: int = 0,
    out: Path | None = None,
    html: Path | None = None,
    seed: int = 0,
    verbose: bool = False,
    json: bool = False,
) -> int:
    """Find the RASP program in a transformer's weights, compiled or trained, and show how far it is the one.

    Exit status 0 if it is proved, in its weights or in its answers (of a trained one on every input up to a length, or
    on at least 90% of inputs drawn); 3 if none was within the budget: the best guess is printed and written all the
    same.

    Args:
        file: of a compiled one safetensors, with or without weightspace's description, or an npz or another checkpoint
            of Tracr's parameters under their names; of a trained one a folder with config.json and weights, or a file.
        vocab: the tokens, as a JSON list or a file that holds one, if the file does not say them; of a compiled one
            without BOS and PAD.
        budget: time to search, such as 30s, 2m or 45 (seconds); of a trained one the time for the proof and for looking
            inside.
        heads: heads of each layer, if they cannot be read off the weights.
        identifier: which transformer, where a file holds several as ID/PARAMETER.
        causal: each place sees only itself and what is before it; the weights do not say.
        bos: what BOS is called, if the weights leave open which row of the token embedding it is.
        pad: the same of PAD.
        inputs: of a trained one, lines of JSON with input and follow (sets of next tokens) or next (answers);
            inputs.jsonl in its folder unless given.
        task: what a trained one is asked where there are no inputs: sets of next tokens, or answers after <sep>.
        offset: position of the first place of a trained one's inputs.
        out: a file for the program's text.
        html: a page that shows the program, its proof, and where each line stands in the weights.
        seed: of whatever the search draws.
        verbose: print the trace of the search too.
        json: print JSON.

    Examples:
        weightspace decompile sort.safetensors --html sort.html
        weightspace decompile unknown.safetensors --vocab "[1, 2, 3, 4, 5]" -v
        weightspace decompile trained_gpt2/bce_tomita4 --inputs inputs.jsonl --json
    """
    from weightspace.rasp.compiler.storage import load_bare

    seconds = seconds_of(budget)
    check_destinations(file, {"--out": out, "--html": html})
    tokens = None if vocab is None else vocabulary(vocab)
    from weightspace.transformers.origin import is_trained_file

    if is_trained_file(file):
        return _trained(file, tokens, seconds, inputs, task, offset, out, html, verbose, json)
    if inputs is not None or task is not None or offset:
        return fail(
            "--inputs, --task and --offset are for trained transformers, and this one is compiled: leave them out"
        )
    bare = load_bare(file, vocab=tokens, num_heads=heads, causal=causal, identifier=identifier, bos=bos, pad=pad)
    from weightspace.decompiler.decompile import decompile as search

    found = search(bare, budget=seconds, seed=seed)
    if json:  # printed before anything is written, so that a full disk does not take it away
        say_json(found.to_json())
    else:
        from weightspace.decompiler.result import summary

        lines = [summary(found), *(["", "the search:", *(f"  {line}" for line in found.trace)] if verbose else [])]
        say("\n".join(lines))
    if out is not None and found.program is not None:
        from weightspace.files.atomic import write_atomically

        write_atomically(out, f"{found.program}\n".encode())
    if html is not None:
        from weightspace.decompiler.page import write_decompilation

        write_decompilation(found, bare, html, name=file.name if identifier is None else f"{file.name}: {identifier}")
    if out is not None and found.program is None:
        fail(f"there is no program to write, so {out} was left as it was")
    for path in (out if found.program is not None else None, html):
        if path is not None and not json:
            say(str(path))
    return 0 if found.found else NOT_FOUND


def _trained(
    file: Path,
    tokens: list[Any] | None,
    seconds: float,
    inputs: Path | None,
    task: Literal["sets", "answers"] | None,
    offset: int,
    out: Path | None,
    html: Path | None,
    verbose: bool,
    json: bool,
) -> int:
    """`decompile` of a trained transformer."""
    from weightspace.decompiler.trained.entry import decompile_file
    from weightspace.decompiler.trained.result import summary

    if html is not None:
        return fail("--html shows compiled transformers only: leave it out for a trained one")
    vocab = None if tokens is None else [str(token) for token in tokens]
    found = decompile_file(file, vocab=vocab, inputs=inputs, kind=task, offset=offset, seconds=seconds)
    if json:
        say_json(found.to_json())
    else:
        timing = [f"  {name}: {spent:.1f} s" for name, spent in found.timing.items()] if verbose else []
        say("\n".join([summary(found), *timing]))
    if out is not None and found.text is not None:
        from weightspace.files.atomic import write_atomically

        write_atomically(out, f"{found.text}\n".encode())
        if not json:
            say(str(out))
    return 0 if found.status in ("equal_on_all", "matches") else NOT_FOUND


def train(
    recipe: Positional[str],
    out: Path | None = None,
    steps: int | None = None,
    start: Path | None = None,
    workers: int = 1,
    json: bool = False,
) -> int:
    """Train a decompiler; a killed run goes on when it is called again.

    Args:
        recipe: rasp-typed-small (for two cores), rasp-typed (for a GPU), rasp-paper-small or rasp-paper (the paper's
            experiment, with its figures).
        out: folder of checkpoints, logs and the network; runs/RECIPE unless given.
        steps: instead of the recipe's.
        start: a trained decompiler (decompiler.safetensors) to go on from, with a new learning-rate schedule.
        workers: processes that draw and compile programs; 0 for this one.
        json: print the figures as JSON.

    Examples:
        weightspace decompiler train rasp-typed-small
        weightspace decompiler train rasp-typed --workers 8 --out runs/mine
    """
    from weightspace.experiments.decompilers import train_decompiler

    folder = out or Path("runs") / recipe
    return say_facts(train_decompiler(recipe, folder, steps=steps, start=start, workers=workers), json)


def evaluate(
    network: Path | None = None,
    count: int = 1_000,
    seed: int = 2024,
    lengths: tuple[int, ...] = (),
    shape: tuple[int, int] | None = None,
    json: bool = False,
) -> int:
    """Decode one program for each held-out transformer, without search, and count how many are certified.

    Args:
        network: a trained decompiler; the one that comes with the package unless given.
        count: programs.
        seed: of the programs.
        lengths: of the programs in S-ops, inputs counted, instead of those published.
        shape: tokens and longest input that the programs are compiled for, instead of 5 and 5.
        json: print JSON.

    Examples:
        weightspace decompiler evaluate --count 100
        weightspace decompiler evaluate --network runs/mine/decompiler.safetensors --json
    """
    from weightspace.experiments.decompilers import evaluate_decompiler

    if shape is not None and not all(2 <= size <= 50 for size in shape):
        raise ValueError(f"--shape {shape[0]} {shape[1]}: give 2 to 50 tokens and a longest input of 2 to 50")
    return say_facts(evaluate_decompiler(network, count=count, seed=seed, lengths=lengths, shape=shape), json)


def readers(
    readers: tuple[str, ...] = (),
    share: float = 1.0,
    count: int = 1_000,
    workers: int = 1,
    out: Path = Path("runs/readers"),
    json: bool = False,
) -> int:
    """Train a decompiler with each reader of weights for the same time, and score them; a killed run goes on.

    Args:
        readers: "graph", "chunks, names shuffled", "chunks, the compiler's names", "rows, names shuffled"; all unless
            given.
        share: of the budget, which is some 25 minutes of one core for each.
        count: held-out programs on which they are scored.
        workers: processes that draw and compile programs; 0 for this one.
        out: folder of the trainings and readers.json.
        json: print JSON.

    Examples:
        weightspace decompiler readers --share 0.1
        weightspace decompiler readers --readers graph --count 200
    """
    from weightspace.experiments.readers import BUDGET, compare_readers, table

    unknown = [reader for reader in readers if reader not in BUDGET]
    if unknown:
        raise ValueError(f"no reader is named {unknown[0]!r}: there are {'; '.join(BUDGET)}")
    rows = compare_readers(out, readers or tuple(BUDGET), share=share, programs=count, workers=workers)
    return say_json([asdict(row) for row in rows]) if json else say(table(rows))


def ladder(
    rungs: tuple[str, ...] = ("clean", "permuted", "rotated", "noisy-0.03", "compressed-0.9"),
    methods: tuple[str, ...] = (),
    count: int = 50,
    budget: str = "10s",
    lengths: tuple[int, ...] = (),
    interventions: bool = False,
    seed: int = 2024,
    out: Path = Path("runs/ladder"),
    json: bool = False,
) -> int:
    """Decompile the same held-out programs on every rung by every method; a killed run goes on.

    Args:
        rungs: clean, permuted, rotated, noisy-SHARE, compressed-SHARE, finetuned-SHARE, trained.
        methods: lifter, greedy, sampled, search, enumeration, activations, behaviour; all unless given.
        count: programs.
        budget: time for each method and program.
        lengths: of the programs in S-ops, inputs counted, instead of those published.
        interventions: look for the S-ops of what is found, and of the true program, by interchanges, and scrub.
        seed: of programs, rungs and methods.
        out: folder of the weights and results.jsonl.
        json: print JSON: an object for each program, rung and method.

    Examples:
        weightspace decompiler ladder --count 20
        weightspace decompiler ladder --rungs clean noisy-0.03 --methods lifter search
        weightspace decompiler ladder --rungs finetuned-0.9 --count 200 --budget 4s --interventions
    """
    from typing import cast

    from weightspace.decompiler.decompile import METHODS, Method
    from weightspace.experiments.ladder import LadderConfig, run_ladder, table

    if not rungs:
        raise ValueError("--rungs names no rung: give such as clean, permuted, noisy-0.03")
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise ValueError(f"no method is named {unknown[0]!r}: there are {', '.join(METHODS)}")
    chosen = cast(tuple[Method, ...], methods or METHODS)
    config = LadderConfig(
        count=count,
        rungs=rungs,
        methods=chosen,
        budget=seconds_of(budget),
        seed=seed,
        lengths=lengths,
        interventions=interventions,
    )
    rows = run_ladder(config, out)
    return say_json([asdict(row) for row in rows]) if json else say(table(rows))


def trained(
    folder: Positional[Path],
    models: tuple[str, ...] = (),
    out: Path = Path("runs/trained"),
    budget: str = "10s",
    controls: bool = True,
    json: bool = False,
) -> int:
    """Decompile every trained transformer of a folder, beside what is simpler; a killed run goes on.

    Exit status 1 if a network that computes nothing of the kind is called equal.

    Args:
        folder: with a folder for each model: config.json, model.safetensors, inputs.jsonl.
        models: names or parts of names; all unless given.
        out: folder of results.jsonl and programs.md.
        budget: time for each enumeration, and four times that for looking inside.
        controls: ask untrained networks and such with shuffled heads too.
        json: print a record for each model.

    Examples:
        weightspace decompiler trained trained_gpt2 --out runs/trained
        weightspace decompiler trained trained_gpt2 --models tomita --no-controls
    """
    from weightspace.experiments.trained import PROGRAMS, checked, programs, run_trained, table
    from weightspace.files.atomic import write_atomically

    rows = run_trained(folder, out, models=models, seconds=seconds_of(budget), controls=controls)
    write_atomically(out / PROGRAMS, f"{programs(rows)}\n".encode())
    say_json([dict(row) for row in rows]) if json else say(table(rows))
    try:
        checked(rows)
    except ValueError as error:
        return fail(str(error), 1)
    return 0


def ceiling(
    target: Positional[Literal["listing", "typed"]] = "listing",
    programs: int = 60,
    steps: int = 16_000,
    seed: int = 1,
    json: bool = False,
) -> int:
    """The best that anybody can reach on the paper's target, or exact match on the typed tokens: mean and one error.

    Many programs have the same weights, so even the likeliest is often not the one that was drawn. A chain walks, for
    each program, over the programs with its weights: for the paper's target from the program that was drawn, which
    errs upwards, and from one that was made for the weights, which errs downwards.

    Args:
        target: the paper's listing, or typed tokens.
        programs: how many, held out by their seed.
        steps: of each chain.
        seed: of programs and chains.
        json: print JSON.

    Examples:
        weightspace decompiler ceiling
        weightspace decompiler ceiling typed --programs 101 --steps 32000
    """
    from dataclasses import asdict
    from statistics import fmean, stdev

    from weightspace.decompiler.paper.ceiling import listing_ceiling
    from weightspace.decompiler.paper.imprint import Order
    from weightspace.decompiler.paper.typed_ceiling import typed_ceiling
    from weightspace.experiments.paper_decompiling import ORDERS, ceiling_table

    if programs < 2:
        raise ValueError(f"an error needs at least 2 programs, not {programs}")
    if target == "listing":
        both: dict[Order, Any] = {order: listing_ceiling(programs, steps, seed, order) for order in ORDERS}
        if json:
            return say_json({order: [asdict(one) for one in answers] for order, answers in both.items()})
        return say(ceiling_table(both))
    held = [found.held_out for found in typed_ceiling(programs, steps, seed)]
    error = stdev(held) / programs**0.5
    found = {"target": target, "programs": programs, "steps": steps, "exact": fmean(held), "error": error}
    return say_facts(found, json)


def paper(
    count: int = 1_000,
    seed: int = 1,
    budget: str = "30s",
    alone: int = 100,
    alone_budget: str = "5s",
    printed: int = 1_000,
    steps: int = 4_000,
    chains: int = 3,
    workers: int = 1,
    networks: tuple[Path, ...] = (),
    out: Path = Path("runs/paper"),
    json: bool = False,
) -> int:
    """Decompile held-out programs of the paper's distribution, and print the paper's figures; a killed run goes on.

    Args:
        count: programs, of fewer than 50,000 parameters each.
        seed: of the programs and of how their weights are permuted.
        budget: time for each program.
        alone: on how many programs, the first, each method is asked alone too.
        alone_budget: time for each program and method other than the lifter, asked alone.
        printed: how many programs, the first, are printed in the paper's tokens.
        steps: of each chain by which a program that was found is printed in the paper's tokens.
        chains: for each program.
        workers: processes; 0 for this one.
        networks: folders of networks that `decompiler listing` has trained, asked for the same programs.
        out: folder of results.jsonl.
        json: print what came of each program as JSON.

    Examples:
        weightspace decompiler paper --count 20
        weightspace decompiler paper --printed 300 --networks runs/listing-graph
    """
    from weightspace.experiments import paper_decompiling as experiment

    config = experiment.PaperConfig(
        count=count,
        seed=seed,
        budget=seconds_of(budget),
        alone=alone,
        alone_budget=seconds_of(alone_budget),
        printed=printed,
        steps=steps,
        chains=chains,
    )
    rows = experiment.run_paper(config, out, workers=workers)
    if json:
        return say_json([row.to_json() for row in rows])
    say(f"{experiment.certificate_table(rows)}\n\n{experiment.promised_table(rows)}\n")
    columns = experiment.columns_of(rows)
    if networks:
        from weightspace.experiments.listing_networks import answers_of

        columns |= answers_of(networks, config.count, config.seed)
    return say(experiment.listing_table(columns)) if columns else 0


def listing(
    reader: Positional[Literal["graph", "chunks"]] = "graph",
    minutes: float = 35.0,
    data: Path = Path("runs/paper-programs"),
    shards: int = 48,
    first: int | None = None,
    growth: int = 50,
    steps: int | None = None,
    workers: int = 0,
    count: int = 1_000,
    out: Path | None = None,
    json: bool = False,
) -> int:
    """Train a network that writes the paper's listings from weights alone; a killed run goes on.

    Args:
        reader: messages along the graph of the weights, or an encoder over flat chunks of them.
        minutes: of training on one core; how many steps they are is measured at the start, and kept.
        data: folder of drawn programs, which readers may share; what is missing is drawn first.
        shards: how many files of 1,024 programs it is trained on.
        first: begin with so many files, and read one more after every `growth` steps; all from the beginning unless
            given.
        growth: see `first`.
        steps: instead of minutes.
        workers: processes that draw programs; 0 for this one.
        count: held-out programs on which it is scored at the end.
        out: folder of checkpoints, logs and the network; runs/listing-READER unless given.
        json: print JSON.

    Examples:
        weightspace decompiler listing graph --minutes 35
        weightspace decompiler listing chunks --minutes 35
    """
    from weightspace.experiments.listing_networks import train_listing

    folder = out or Path("runs") / f"listing-{reader}"
    options = {
        "minutes": minutes,
        "shards": shards,
        "first": first,
        "growth": growth,
        "steps": steps,
        "workers": workers,
        "programs": count,
    }
    return say_facts(train_listing(reader, folder, data, **options), json)
