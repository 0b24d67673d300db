"""Verbs of RASP programs: drawn, shown, run, compiled and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from weightspace.cli.arguments import Named, Positional, Repeated
from weightspace.cli.output import say, say_json

Id = Annotated[str | None, Named("id")]
Inputs = Annotated[tuple[str, ...], Repeated(), Named("input")]
Mode = Literal["fixed", "tracr_compat"]


def sample(
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

    Examples:
        weightspace rasp sample --count 3
        weightspace rasp sample --distribution paper --statistics
    """
    from itertools import islice

    if count is not None and count < 1:
        raise ValueError(f"--count {count}: at least 1 program is needed")
    if statistics:
        from weightspace.rasp.statistics import format_statistics
        from weightspace.rasp.statistics import statistics as figures_of

        figures = figures_of(distribution, count or 1_000, seed, lengths or None)
        return say_json(figures) if json else say(format_statistics(figures))
    from weightspace.rasp.sampler import sample

    programs = enumerate(islice(sample(distribution, seed, lengths or None), count or 10))
    if json:
        return say_json([{"id": f"{distribution}-{seed}-{i}", **program.to_record()} for i, program in programs])
    for i, program in programs:
        say(("\n" if i else "") + f"# program {i}\n{program}")
    return 0


def show(
    file: Positional[Path],
    inputs: Annotated[str | None, Named("input")] = None,
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
        out: a .png or .svg file for the graph; with an input NAME-stream is drawn beside it.
        mode: fixed, or tracr_compat, which repeats Tracr's own errors.
        vocab: tokens instead of those that the program says, such as a,b,c or 0,1,2.
        max_seq_len: longest input instead of the one that the program says.
        record: which record of a list, by its id.
        json: print JSON.

    Examples:
        weightspace rasp show examples/hist.rasp
        weightspace rasp show examples/hist.rasp --input hello --out hist.png
    """
    from dataclasses import asdict

    from weightspace.rasp.compiler.assemble import compile_program
    from weightspace.rasp.compiler.directions import direction_names
    from weightspace.rasp.compiler.figure import save_figure
    from weightspace.rasp.compiler.graph import graph
    from weightspace.rasp.compiler.graph_picture import draw_graph
    from weightspace.rasp.compiler.stream_picture import draw_stream
    from weightspace.rasp.compiler.terminal import graph_text, trace_text, transformer_text
    from weightspace.rasp.interpreter import trace
    from weightspace.rasp.reading import read_input
    from weightspace.rasp.validate import NotCompilable

    program = _program(file, record, vocab, max_seq_len)
    tokens = None if inputs is None else read_input(inputs, program.vocab)
    shown: dict[str, Any] = {"text": str(program), "graph": [asdict(node) for node in graph(program)]}
    parts = [str(program), graph_text(program)]
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
        names = direction_names(program, transformer)
        parts.append(transformer_text(transformer, names))
        groups = [{"label": g.label, "variable": names.get(g.label), "names": g.names} for g in transformer.directions]
        shown["transformer"] = {**_sizes(transformer), "directions": groups}
    if tokens is not None:
        values = trace(program, tokens)
        shown["trace"] = values
        parts.append(trace_text(values))
        if transformer is not None:
            shown["answer"] = transformer.run([tokens])[0]
            parts[-1] += "\n" + _beside(values[program.name(program.output)], shown["answer"])
    if out is not None:
        written = [out]
        save_figure(draw_graph(program), written[0])
        if tokens is not None and transformer is not None:
            written.append(out.with_name(f"{out.stem}-stream{out.suffix}"))
            save_figure(draw_stream(transformer, tokens, names), written[1])
        shown["written"] = [str(path) for path in written]
        parts.append("\n".join(shown["written"]))
        if transformer is not None and tokens is None:
            parts[-1] += "\n(--input TOKENS draws the residual stream too)"
    return say_json(shown) if json else say("\n\n".join(parts))


def run(
    file: Positional[Path],
    inputs: Inputs = (),
    file_of_inputs: Annotated[Path | None, Named("inputs")] = None,
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
        file_of_inputs: a file with an object of JSON a line whose `input` is a list of tokens: prints what the program
            answers at each place, as `follow` where it gives sets of next tokens, else as `next`.
        compiled: ask the compiled transformer too.
        mode: fixed, or tracr_compat, which repeats Tracr's own errors.
        vocab: tokens instead of those that the program says, such as a,b,c or 0,1,2.
        max_seq_len: longest input instead of the one that the program says.
        record: which record of a list, by its id.
        json: print JSON.

    Examples:
        weightspace rasp run examples/hist.rasp --input hello
        weightspace rasp run examples/sort.rasp --input "3 1 2" --input "2 1" --json
    """
    from weightspace.rasp.compiler.agreement import agrees
    from weightspace.rasp.compiler.assemble import NotCompilable, compile_program
    from weightspace.rasp.interpreter import evaluate
    from weightspace.rasp.reading import read_input, token_text

    if file_of_inputs is not None:
        return _run_lines(file, file_of_inputs, record, json)
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
        return say_json(answers)
    parts = []
    for answer in answers:
        lines = [f"input        {token_text(answer['input'])}", f"interpreter  {token_text(answer['interpreter'])}"]
        if answer.get("transformer") is not None:
            lines.append(_beside(answer["interpreter"], answer["transformer"]))
        parts.append("\n".join(lines))
    if obstacle:
        parts.append(f"no transformer: it cannot be compiled: {obstacle}")
    return say("\n\n".join(parts))


def _run_lines(file: Path, given: Path, record: str | None, json: bool) -> int:
    """What a program answers on a file of inputs."""
    from json import dumps

    from weightspace.decompiler.trained.answering import listed
    from weightspace.decompiler.trained.inputs import read_rows
    from weightspace.rasp.choices import NextTokens

    program = _program(file, record, None, None)
    rows = read_rows(given)
    name = "follow" if isinstance(program.output, NextTokens) else "next"
    answers = [{"input": [*row], name: found} for row, found in zip(rows, listed(program, rows), strict=True)]
    if json:
        return say("[\n" + ",\n".join(dumps(answer) for answer in answers) + "\n]")
    shown = []
    for answer in answers:
        places = (",".join(found) if isinstance(found, list) else str(found) for found in answer[name])
        shown.append(f"input  {' '.join(answer['input'])}\n{name:<6} {' '.join(places)}")
    return say("\n\n".join(shown))


def compile_(
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

    Examples:
        weightspace rasp compile examples/sort.rasp --out sort.safetensors
        weightspace rasp compile examples/sort.rasp --mode tracr_compat --out sort.safetensors
    """
    from weightspace.rasp.compiler.assemble import compile_program
    from weightspace.rasp.compiler.directions import direction_names
    from weightspace.rasp.compiler.storage import save_transformer
    from weightspace.rasp.compiler.terminal import transformer_text

    program = _program(file, record, vocab, max_seq_len, whole=True)
    transformer = compile_program(program, mode=mode)
    save_transformer(transformer, out)
    if json:
        return say_json({"written": str(out), **_sizes(transformer)})
    return say(f"{out}: {transformer_text(transformer, direction_names(program, transformer))}")


def to_transformer_lens(
    file: Positional[Path],
    out: Path,
    mode: Mode = "fixed",
    vocab: str | None = None,
    max_seq_len: int | None = None,
    record: Id = None,
    json: bool = False,
) -> int:
    """Compile a program and write its weights by TransformerLens's names, for its hooks and tools.

    TransformerLens need not be installed. `ws.to_transformer_lens` of the Python package gives the model itself.

    Args:
        file: program text, a JSON record or a list of records; - is standard input.
        out: a safetensors file; its metadata hold the configuration, the tokens and the answers.
        mode: fixed, or tracr_compat, which repeats Tracr's own errors.
        vocab: tokens instead of those that the program says, such as a,b,c or 0,1,2.
        max_seq_len: longest input instead of the one that the program says.
        record: which record of a list, by its id.
        json: print the configuration as JSON.

    Examples:
        weightspace rasp to-transformer-lens examples/sort.rasp --out sort-lens.safetensors
        weightspace rasp to-transformer-lens examples/hist.rasp --vocab a,b,c --out hist-lens.safetensors
    """
    from weightspace.decompiler.lens import configuration, save_for_transformer_lens
    from weightspace.rasp.compiler.assemble import compile_program
    from weightspace.rasp.language import BOS

    transformer = compile_program(_program(file, record, vocab, max_seq_len, whole=True), mode=mode)
    save_for_transformer_lens(transformer, out)
    config = configuration(transformer)
    if json:
        return say_json({"written": str(out), "config": config, "tokens": list(transformer.token_values)})
    rows = "  ".join(f"{row} {token}" for row, token in enumerate(transformer.token_values))
    sizes = f"{config['n_layers']} layers of {config['n_heads']} heads, d_model {config['d_model']}"
    return say(f"{out}: {sizes}\ntokens: {rows}\nEach input begins with {BOS}.")


def check(
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

    Examples:
        weightspace rasp check examples/sort.rasp
        weightspace rasp check examples/hist.rasp --vocab a,b,c --max-seq-len 4
    """
    from dataclasses import asdict

    from weightspace.rasp.compiler.agreement import agreement, report
    from weightspace.rasp.compiler.assemble import NotCompilable, compile_program

    program = _program(file, record, vocab, max_seq_len, whole=True)
    try:
        transformer = compile_program(program, mode=mode)
    except NotCompilable as error:
        if json:
            say_json({"reasons": [asdict(reason) for reason in error.reasons], "agreement": None})
        else:
            say("it cannot be compiled:\n" + "\n".join(f"  {reason}" for reason in error.reasons))
        return 1
    found = agreement(program, transformer, seed)
    if json:
        say_json({"reasons": [], "agreement": {**asdict(found), "complete": found.complete}})
    else:
        say(f"it can be compiled: {len(transformer):,} parameters ({mode})\n{report(found, seed)}")
    return 1 if found.differing else 0


def scrub(
    file: Positional[Path],
    weights: Positional[Path],
    inputs: int = 128,
    pairs: int = 64,
    mutants: int = 0,
    seed: int = 0,
    hypothesis: Path | None = None,
    out: Path | None = None,
    vocab: str | None = None,
    max_seq_len: int | None = None,
    record: Id = None,
    json: bool = False,
) -> int:
    """Whether a transformer computes a program as the compiler would have it: variables swapped, the rest resampled.

    Where the compiler puts each variable is a hypothesis about the weights. It is accepted if every answer is the
    program's, also where a variable has the values of another input (interchange), and where everything that should
    not matter is resampled (causal scrubbing). Exit status 1 if it is not.

    Args:
        file: program text, a JSON record or a list of records; - is standard input.
        weights: a transformer of `rasp compile`, or others of Tracr's with --vocab.
        inputs: on which it is judged, drawn at random; all if there are no more.
        pairs: of inputs for each variable, of any and of such whose answer changes.
        mutants: wrong hypotheses that are judged too: what share of them is rejected is the power.
        seed: of inputs, pairs and mutants.
        hypothesis: a file of another hypothesis about the same program, which is judged instead.
        out: a file for the hypothesis, JSON.
        vocab: tokens instead of those that the program says, such as a,b,c or 0,1,2.
        max_seq_len: longest input instead of the one that the program says.
        record: which record of a list, by its id.
        json: print JSON.

    Examples:
        weightspace rasp scrub examples/sort.rasp sort.safetensors
        weightspace rasp scrub examples/sort.rasp sort.safetensors --mutants 20 --out hypothesis.json
    """
    from weightspace.circuits.hypothesis import Hypothesis
    from weightspace.decompiler.scrub import format_scrub, load_target
    from weightspace.decompiler.scrub import scrub as scrubbed
    from weightspace.rasp.reading import read_vocabulary

    program = _program(file, record, vocab, max_seq_len)
    target = load_target(weights, None if vocab is None else read_vocabulary(vocab))
    other = None if hypothesis is None else Hypothesis.from_json(hypothesis)
    found = scrubbed(program, target, inputs=inputs, pairs=pairs, mutants=mutants, seed=seed, hypothesis=other)
    if out is not None:
        found.hypothesis.to_json(out)
    if json:
        say_json(found.to_record())
    else:
        say(format_scrub(found))
    return 0 if found.judgement.accepted else 1


def scrubs(
    count: int = 1_000,
    mutants: int = 3,
    inputs: int = 128,
    pairs: int = 64,
    seed: int = 0,
    out: Path | None = None,
    json: bool = False,
) -> int:
    """`rasp scrub` of many random programs and of mutants of each: are true hypotheses accepted, and false ones not?

    Exit status 1 if a true one is refused.

    Args:
        count: programs of the typed distribution.
        mutants: wrong hypotheses of each, with another operation, another edge or another place in turn.
        inputs: on which each is judged.
        pairs: of inputs for each variable, of any and of such whose answer changes.
        seed: of programs, inputs, pairs and mutants.
        out: a file for the figures, JSON; written every 50 programs.
        json: print the figures as JSON.

    Examples:
        weightspace rasp scrubs --count 100
        weightspace rasp scrubs --count 1000 --mutants 3 --out scrubs.json
    """
    from weightspace.experiments.scrubbing import format_scrubs, scrub_many

    figures = scrub_many(count, mutants=mutants, inputs=inputs, pairs=pairs, seed=seed, out=out, show=True)
    if json:
        say_json(figures)
    else:
        say(format_scrubs(figures))
    return 1 if figures["refused"] else 0


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
    from weightspace.rasp.compiler.agreement import agrees
    from weightspace.rasp.reading import token_text

    verdict = "the same" if agrees(expected, given) else "THEY DIFFER"
    return f"transformer  {token_text(given)}   ({verdict})"
