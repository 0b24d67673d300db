"""Whether a compiled transformer computes a program as the compiler says: its true hypothesis judged, with power."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from weightspace.circuits.alignment import Alignment
from weightspace.circuits.hypothesis import Hypothesis
from weightspace.circuits.judging import Judgement, judge
from weightspace.circuits.power import PowerRow, Trial, format_power, power, trials
from weightspace.decompiler.compiled_hypothesis import aligned, true_hypothesis
from weightspace.decompiler.proof.certificate import certify_transformer, compiled_for, modes_of, reordered
from weightspace.errors import RaspError
from weightspace.rasp.batch import all_inputs
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.compiler.storage import load_bare, load_compiled
from weightspace.rasp.compiler.transformer import CompiledTransformer
from weightspace.rasp.functions import Value
from weightspace.rasp.program import Program

INPUTS = 128
PAIRS = 64
EVERY = 20_000
"""Up to so many inputs there may be for the program of a mutant to be compared on all of them."""


@dataclass(frozen=True, eq=False)
class Scrub:
    """The judgement of a program and a compiled transformer.

    Attributes:
        hypothesis: where the compiler puts each S-op.
        judgement: of this hypothesis.
        inputs: on which it was judged, of `space`.
        space: inputs that there are.
        pairs: of inputs for each S-op, at most.
        seed: with which they were drawn.
        trials: mutants that were judged.
        mode: how the program was compiled.
    """

    hypothesis: Hypothesis
    judgement: Judgement
    inputs: int
    space: int
    pairs: int
    seed: int
    trials: tuple[Trial, ...]
    mode: str

    @property
    def power(self) -> list[PowerRow]:
        """What share of the mutants was rejected."""
        return power(self.trials)

    def to_record(self) -> dict[str, Any]:
        """Everything but directions, JSON-serialisable."""
        places = {name: str(held) for name, held in self.hypothesis.components.items()}
        said = {"inputs": self.inputs, "of": self.space, "pairs": self.pairs, "seed": self.seed, "mode": self.mode}
        return {**self.judgement.to_record(), **said, "places": places, "power": [r.to_record() for r in self.power]}


def scrub(
    program: Program,
    target: BareTransformer | CompiledTransformer,
    *,
    inputs: int = INPUTS,
    pairs: int = PAIRS,
    mutants: int = 0,
    seed: int = 0,
    hypothesis: Hypothesis | None = None,
) -> Scrub:
    """Judge the hypothesis that a compiled transformer computes a program as the compiler would have it.

    Where each S-op stands the compiler says. The transformer may have other weights than the compiler gives (noise,
    training); but if its directions, units and heads stand in another order, its weights have to be the compiler's.

    Args:
        target: the transformer; its names of directions are used where it has them.
        inputs: on which it is judged, drawn at random, or all if there are no more.
        pairs: of these for each S-op, of any and of such whose answer changes.
        mutants: wrong hypotheses that are judged too.
        hypothesis: another one about the same program, which is judged instead of the compiler's.
    Raises:
        RaspError: if the program cannot be compiled for the transformer's tokens, or the transformer has another shape
            or order than the program's.
    """
    transformer = in_compiled_order(program, target)
    meant = replace(
        program.meant_for(transformer.vocab, transformer.max_seq_len), causal=transformer.configuration.causal
    )
    if min(inputs, pairs) < 2 or mutants < 0:
        raise RaspError(
            f"{inputs} inputs, {pairs} pairs and {mutants} mutants: at least 2 inputs and 2 pairs are needed"
        )
    if hypothesis is None:
        hypothesis = true_hypothesis(meant, transformer)
    elif _lines(hypothesis.program) != _lines(meant):
        raise RaspError("the hypothesis is about another program: give the file of the program that it is about")
    else:
        hypothesis = Hypothesis(meant, hypothesis.components)
    return judged(meant, transformer, hypothesis, inputs=inputs, pairs=pairs, mutants=mutants, seed=seed)


def _lines(program: Program) -> list[str]:
    """The statements of a program, without what it is meant for."""
    return str(program).splitlines()[-1 - len(program.statements) :]


def load_target(path: Path, vocab: Sequence[Value] | None = None) -> BareTransformer | CompiledTransformer:
    """A transformer of `rasp compile` with its names, or another of Tracr's by its weights alone.

    Raises:
        RaspError: if there is none in the file, or its tokens are not known.
    """
    try:
        return load_compiled(path)
    except RaspError:
        return load_bare(path, vocab=vocab)


def judged(
    program: Program,
    transformer: CompiledTransformer,
    hypothesis: Hypothesis,
    *,
    inputs: int = INPUTS,
    pairs: int = PAIRS,
    mutants: int = 0,
    seed: int = 0,
) -> Scrub:
    """Judge a hypothesis about a compiled transformer; arguments as for `scrub`."""
    alignment = aligned(program, transformer, _drawn(transformer, inputs, seed))
    judgement = judge(alignment, hypothesis, pairs=pairs, seed=seed)
    space = sum(len(transformer.vocab) ** length for length in range(1, transformer.max_seq_len + 1))
    found: list[Trial] = []
    if mutants:
        found = trials(
            alignment,
            hypothesis,
            count=mutants,
            pairs=pairs,
            seed=seed,
            reference=_reference(program, transformer, seed),
        )
    return Scrub(hypothesis, judgement, len(alignment), space, pairs, seed, tuple(found), transformer.mode)


def format_scrub(found: Scrub) -> str:
    """The judgement in text."""
    judgement = found.judgement
    width = max(len(name) for name in [*found.hypothesis.components, "variable"])
    lines = [f"{'variable':<{width}}  {'where':<26}  {'answers change as the program says':<36}  random directions"]
    for name, held in found.hypothesis.components.items():
        each = judgement.interchanges.get(name)
        shown = "the answer does not need it" if each is None else str(each.changed)
        if each is not None and not each.changed.n:
            shown = "no answer changes"
        random = "" if each is None or each.control is None else f"{each.control.share:.3f}"
        lines.append(f"{name:<{width}}  {held!s:<26}  {shown:<36}  {random}")
    lines += [
        "",
        f"answers as the program's                     {judgement.behaviour}",
        f"where all else is resampled                  {judgement.scrubbing.agreement if judgement.scrubbing else '-'}",
        f"judged on {found.inputs:,} of {found.space:,} inputs, {found.pairs} pairs a variable, seed {found.seed}",
        "accepted" if judgement.accepted else f"REJECTED: by {', '.join(judgement.faults)}",
    ]
    if found.trials:
        lines += ["", format_power(found.power)]
    return "\n".join(lines)


def _drawn(transformer: CompiledTransformer, count: int, seed: int) -> Sequence[Sequence[Value]]:
    """All inputs, or a sample of them in which all lengths are equally likely but for those that have too few."""
    vocab, longest = transformer.vocab, transformer.max_seq_len
    if sum(len(vocab) ** length for length in range(1, longest + 1)) <= count:
        return all_inputs(vocab, longest)
    random = Random(f"scrub {seed}")
    found: dict[tuple[Value, ...], None] = {}
    while len(found) < count:
        length = 1 + int(random.random() * longest)
        found[tuple(vocab[int(random.random() * len(vocab))] for _ in range(length))] = None
    return list(found)


def _reference(program: Program, transformer: CompiledTransformer, seed: int) -> Alignment:
    """The program on all inputs, or on many."""
    return aligned(program, transformer, _drawn(transformer, EVERY, seed))


def _sizes(transformer: CompiledTransformer) -> tuple[object, ...]:
    """What decides where every parameter stands; two layouts of these sizes are alike, whichever was kept."""
    layout = transformer.layout
    return layout.configuration, layout.width, layout.positions, layout.tokens


def in_compiled_order(program: Program, target: BareTransformer | CompiledTransformer) -> CompiledTransformer:
    """A transformer with its parameters in the order, and the names, that the compiler gives this program.

    Raises:
        RaspError: if there is no such order.
    """
    bare = BareTransformer.of(target) if isinstance(target, CompiledTransformer) else target
    tried = False
    for mode in modes_of(bare):
        candidate = compiled_for(program, bare, mode)
        if candidate is None:
            continue
        tried = True
        if isinstance(target, CompiledTransformer) and target.directions == candidate.directions:
            if _sizes(target) == _sizes(candidate):
                return target
            continue
        certificate = certify_transformer(candidate, bare, need_answer=False)
        if certificate is not None:
            flat = np.concatenate([np.ravel(bare.params[name]) for name, _, _ in candidate.layout.leaves])
            ordered = reordered(flat, candidate.layout, certificate.columns).astype(np.float32)
            places = np.flatnonzero(ordered)
            return replace(candidate, places=places, values=ordered[places])
    if not tried:
        raise RaspError(
            "the program cannot be compiled for the tokens and the longest input of these weights: see `weightspace "
            "rasp check`"
        )
    raise RaspError(
        "these weights are not the program's, in whatever order, so that nobody knows where its S-ops stand: compile "
        "it with `weightspace rasp compile`, or see `weightspace decompile` for what they compute"
    )
