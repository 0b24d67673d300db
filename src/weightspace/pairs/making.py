"""One network of a zoo of pairs: its program, plan and correspondence drawn, trained, and measured."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from weightspace.pairs.correspondence import Correspondence, drawn_correspondence, layers_needed, operations
from weightspace.pairs.counterfactuals import Counterfactuals
from weightspace.pairs.network import NetworkPlan, transformer_of
from weightspace.pairs.programs import HAND_WRITTEN, check, drawn_program, hand_written
from weightspace.pairs.soundness import Soundness, alignment, soundness
from weightspace.pairs.training import Curriculum, Trained, trained
from weightspace.rasp.program import Program

HELD_OUT = 0.2
"""The share of the inputs that nothing is trained on."""


@dataclass(frozen=True, eq=False)
class Made:
    """A network that was trained, with everything that is known of it.

    Attributes:
        origin: `typed`, or the name of a program written by hand.
        seen, unseen: how it keeps to its correspondence on the inputs of training and on those held out.
    """

    plan: NetworkPlan
    origin: str
    correspondence: Correspondence
    trained: Trained
    seen: Soundness
    unseen: Soundness
    interchange: bool

    @property
    def dropped(self) -> str | None:
        """Why it does not count as sound; None if it does."""
        for where, found in (("the inputs of training", self.seen), ("inputs held out", self.unseen)):
            if not found.sound:
                return (
                    f"interchange accuracy {found.worst_interchange:.3f} and strictness {found.worst_strictness:.3f} "
                    f"at worst on {where}"
                )
        return None

    @property
    def record(self) -> dict[str, Any]:
        """Everything but weights and correspondence, JSON-serialisable."""
        program = self.correspondence.program
        return {
            "sound": self.dropped is None,
            "dropped": self.dropped,
            "loss": "interchange" if self.interchange else "behaviour",
            "origin": self.origin,
            "program": str(program),
            "S-ops": len(operations(program)),
            "layers needed": layers_needed(program, self.plan.heads),
            "answers": list(self.trained.answer.values),
            "plan": self.plan.to_record(),
            "steps": self.trained.steps,
            "seconds": round(self.trained.seconds, 2),
            "seen": self.seen.to_record(),
            "unseen": self.unseen.to_record(),
        }


@dataclass(frozen=True)
class Recipe:
    """What a zoo's networks are.

    Attributes:
        tiny: whether programs are for 4 tokens and 4 places and networks train in seconds; else for 5 and 5, and the
            first ones are written by hand.
        interchange: whether S-ops are swapped in training; else it learns behaviour alone.
    """

    tiny: bool = False
    interchange: bool = True

    def planned(self, seed: int, number: int) -> tuple[Program, str, NetworkPlan, Random]:
        """The program of a number in a zoo, where it comes from, its network's plan, and what the rest is drawn with.

        Every other network is trained on chains of swaps. A recipe that learns behaviour alone has the same networks.
        """
        random = Random(f"pairs {seed} {number}")
        named, origin = list(HAND_WRITTEN), "typed"
        if self.tiny:
            program = drawn_program(f"{seed} {number}", 4, 3)
        elif number < len(named):
            program, origin = hand_written(named[number]), named[number]
        else:
            program = drawn_program(f"{seed} {number}")
        drawn = NetworkPlan.tiny if self.tiny else NetworkPlan.drawn
        plan = drawn(random, zlib.crc32(f"{seed} {number}".encode()))
        return program, origin, replace(plan, chained=number % 2 == 1), random

    def made(self, seed: int, number: int) -> Made:
        """The network of a number in a zoo: a function of both alone, on one kind of processor."""
        program, origin, plan, random = self.planned(seed, number)
        return paired(program, plan, random, origin=origin, interchange=self.interchange)


def of_name(recipe: str) -> Recipe:
    """The recipe of a name, such as circuits-tiny-behaviour."""
    return Recipe(tiny="-tiny" in recipe, interchange=not recipe.endswith("-behaviour"))


def paired(
    program: Program, plan: NetworkPlan, random: Random, *, origin: str = "given", interchange: bool = True
) -> Made:
    """A network trained on a program, each S-op in a component that is drawn at random.

    Args:
        program: with a vocabulary and a longest input, of which length all inputs are.
    Raises:
        NetworkError: if the program does not fit the network, or cannot be trained on.
    """
    check(program)
    correspondence = drawn_correspondence(program, plan.layers, plan.heads, random)
    counterfactuals = Counterfactuals.of(program)
    generator = np.random.default_rng(plan.seed)
    order = generator.permutation(len(counterfactuals.codes))
    unseen, seen = np.split(order, [int(HELD_OUT * len(order))])
    answer = counterfactuals.classes(generator)
    curriculum = Curriculum(plan, correspondence, counterfactuals, answer, np.sort(seen), generator)
    found = trained(curriculum, interchange=interchange)
    transformer = transformer_of(plan, found.weights)
    inputs = counterfactuals.inputs
    measured = []
    for rows in (seen, unseen):
        aligned = alignment(transformer, correspondence, answer, [inputs[row] for row in np.sort(rows).tolist()])
        measured.append(soundness(aligned, correspondence, plan.slots, seed=plan.seed))
    return Made(plan, origin, correspondence, found, measured[0], measured[1], interchange)
