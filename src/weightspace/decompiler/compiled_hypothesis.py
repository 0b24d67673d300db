"""The true hypothesis about a compiled transformer, which comes from the compiler: which directions hold which S-op."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from weightspace.circuits.alignment import Alignment
from weightspace.circuits.hypothesis import Component, Hypothesis
from weightspace.circuits.readouts import CompiledAnswer
from weightspace.decompiler.lens import weights
from weightspace.decompiler.proof.certificate import Columns
from weightspace.decompiler.proof.ownership import Share, shares
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.compiler.transformer import CompiledTransformer
from weightspace.rasp.functions import Value
from weightspace.rasp.language import BOS, Selector
from weightspace.rasp.program import Program
from weightspace.transformers.loading import load_trained
from weightspace.transformers.places import Place
from weightspace.transformers.trained import TrainedTransformer


def as_trained(transformer: CompiledTransformer | BareTransformer) -> TrainedTransformer:
    """A compiled transformer with the named places of a trained one; its logits are the directions of its output."""
    bare = isinstance(transformer, BareTransformer)
    causal = transformer.causal if bare else transformer.configuration.causal
    direction = "causal" if causal else "bidirectional"
    config = {"act_fn": "relu", "normalization_type": None, "attention_dir": direction}
    return load_trained(weights(transformer), config=config)


def true_hypothesis(program: Program, transformer: CompiledTransformer, columns: Columns | None = None) -> Hypothesis:
    """Where the compiler puts each S-op: its directions of the stream, behind the half-layer that writes them.

    Args:
        transformer: compiled from this program.
        columns: a certificate's permutation: then places are those in the certified weights, else in `transformer`.
    """
    selectors = {name for name, node in program.statements if isinstance(node, Selector)} | {"one"}
    width = transformer.layout.width
    components = {}
    for share in shares(program, transformer, columns):
        if share.variable in selectors or not share.directions:
            continue
        place = _written(share)
        if place is not None:
            components[share.variable] = Component(place, torch.eye(width)[:, list(share.directions)])
    return Hypothesis(program, components)


def _written(share: Share) -> Place | None:
    """The first place at which an S-op stands whole in the stream; None if nothing ever writes it."""
    if share.variable in ("tokens", "indices"):
        return Place("resid_pre", 0)
    if share.units:
        return Place("resid_post", max(layer for layer, _ in share.units))
    if share.heads:
        return Place("resid_mid", max(layer for layer, _ in share.heads))
    return None


def aligned(program: Program, transformer: CompiledTransformer, inputs: Sequence[Sequence[Value]]) -> Alignment:
    """A program and a compiled transformer, of this or another program, on the same inputs.

    Args:
        program: whose output is compared with the transformer's.
    """
    rows = {value: row for row, value in enumerate(transformer.token_values)}
    return Alignment(
        as_trained(transformer),
        program,
        inputs,
        CompiledAnswer(program.name(program.output), transformer.output),
        numbers={value: rows[value] for value in transformer.vocab},
        begin=rows[BOS],
        closed=True,
    )
