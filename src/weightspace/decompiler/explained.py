"""Whether weights on a rung hold a program's S-ops: each looked for by interchanges, and what is found scrubbed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from weightspace.circuits.alignment import Alignment
from weightspace.circuits.hypothesis import Hypothesis
from weightspace.circuits.interchanging import draw_pairs
from weightspace.circuits.locating import Located, locate_aligned, usual_places
from weightspace.circuits.readouts import CompiledAnswer
from weightspace.circuits.scrubbing import causal_scrubbing
from weightspace.decompiler.compiled_hypothesis import as_trained
from weightspace.decompiler.examples import distinct, input_codes, readout_of
from weightspace.decompiler.trained.inside import held_in
from weightspace.errors import NetworkError
from weightspace.rasp.batch import Batch
from weightspace.rasp.batch_interpreter import evaluate_batch
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.functions import Value
from weightspace.rasp.language import BOS, walk
from weightspace.rasp.program import Program
from weightspace.transformers.trained import TrainedTransformer

INPUTS, PAIRS = 256, 96


class Explained(NamedTuple):
    """How far a network holds a program's S-ops.

    Attributes:
        sops: of the program, without `tokens`, `indices` and those that are the same everywhere or whose
            swap changes no answer.
        located: of these, those whose interchange accuracy is at least .95 where a random subspace's is below .6.
        scrubbed: the share of inputs on which the answer stays the program's when the network is causally scrubbed with
            those that are located.
    """

    sops: int
    located: int
    scrubbed: float

    @property
    def whole(self) -> bool:
        """Whether every S-op is located, and scrubbing leaves the answers as they are."""
        return self.located == self.sops and self.scrubbed >= 0.95


def explained(bare: BareTransformer, program: Program, seed: int = 0) -> Explained:
    """Hold a program against a network by interventions.

    Directions are fitted and chosen on half of 256 inputs, judged on the other half; a numerical answer is the nearest
    of those that the program gives, swapped or not.

    Args:
        bare: with its readout, on the program's tokens.
        program: that is meant for these, and that answers as the readout says.
        seed: of inputs, pairs and random subspaces.
    Raises:
        NetworkError: if the program has an answer on too few of the inputs.
        RaspError: if it is not known where the answer of the network stands, or the program has no answer somewhere.
    """
    readout = readout_of(bare)
    every = [[bare.space[number] for number in row[1:]] for group in input_codes(bare, seed) for row in group]
    inputs = [every[place] for place in np.random.default_rng([seed, 6]).permutation(len(every))[:INPUTS]]
    output = program.name(program.output)
    alignment = Alignment(
        as_trained(bare),
        program,
        inputs,
        CompiledAnswer(output, readout),
        numbers={value: row for row, value in enumerate(bare.space) if value in bare.vocab},
        begin=bare.space.index(BOS),
        closed=True,
    )
    names = [name for name in alignment.varying if name not in ("tokens", "indices")]
    if readout.values is None:
        alignment.readout = CompiledAnswer(output, readout, _numbers(program, every, alignment, names, seed))
    found = locate_aligned(alignment, variables=names, pairs=PAIRS, seed=seed)
    asked = [one for one in found if one.interchange is not None and one.interchange.changed.n]
    located = [one for one in asked if held_in(one, alignment.transformer).located]
    scrubbed = causal_scrubbing(
        alignment, _hypothesis(program, located, alignment.transformer), seed=seed
    ).agreement.share
    return Explained(len(asked), len(located), scrubbed or 0.0)


def _hypothesis(program: Program, located: Sequence[Located], transformer: TrainedTransformer) -> Hypothesis:
    """The S-ops that are located, each no later in the pass than those that read it.

    An S-op of which only one thing is read is found behind its reader too, as it is the same there. Of two at the same
    place, as one may be the other by another name, the one that comes later in the program is taken.
    """
    order = {place: number for number, place in enumerate(usual_places(transformer))}
    nodes = dict(program.statements)
    found = Hypothesis(program, {})
    for one in reversed(located):
        if one.component is None:
            continue
        readers = [
            held
            for name, held in found.components.items()
            if any(node is nodes[one.variable] for node in walk(nodes[name]))
        ]
        if any(order[one.component.place] > order[held.place] for held in readers):
            continue
        with suppress(NetworkError):
            found = Hypothesis(program, {one.variable: one.component, **found.components})
    return found


def _numbers(
    program: Program, inputs: Sequence[Sequence[Value]], alignment: Alignment, names: Sequence[str], seed: int
) -> tuple[float, ...]:
    """What a program that answers with numbers answers as it is, and after swaps, in order."""
    given = [evaluate_batch(program, Batch.of(inputs, program.vocab)).numbers()]
    given += [draw_pairs(alignment, name, count=PAIRS, seed=seed + k).expected for name in names for k in (0, 1)]
    every = np.concatenate([numbers.ravel() for numbers in given])
    return tuple(distinct(every[~np.isnan(every)]).tolist())
