"""A tiny network that is trained on a program of two S-ops, once for all tests."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random

from weightspace.circuits.alignment import Alignment
from weightspace.pairs.correspondence import Correspondence
from weightspace.pairs.counterfactuals import Counterfactuals
from weightspace.pairs.making import Made, paired
from weightspace.pairs.network import NetworkPlan, transformer_of
from weightspace.pairs.soundness import alignment
from weightspace.rasp.program import Program

TEXT = """vocab = [0, 1, 2, 3]
max_seq_len = 4
flag: numerical = Map(x > 1, tokens)
all = Select(PRED_TRUE, tokens, tokens)
share: numerical = Aggregate(all, flag)
return share"""
PLAN = NetworkPlan(
    seed=0,
    layers=2,
    width=16,
    heads=2,
    head_size=4,
    hidden=16,
    norm="none",
    activation="relu",
    batch=32,
    steps=400,
)


def program() -> Program:
    return Program.parse(TEXT)


@cache
def planted(interchange: bool = True) -> Made:
    return paired(program(), PLAN, Random(0), interchange=interchange)


@cache
def another() -> Made:
    """A network of another program, with other components."""
    return paired(Program.parse(TEXT.replace("x > 1", "x == 2")), replace(PLAN, seed=1), Random(4))


def aligned(made: Made, correspondence: Correspondence | None = None) -> Alignment:
    """The network and a program on all inputs."""
    inputs = Counterfactuals.of(made.correspondence.program).inputs
    transformer = transformer_of(made.plan, made.trained.weights)
    return alignment(transformer, correspondence or made.correspondence, made.trained.answer, inputs)
