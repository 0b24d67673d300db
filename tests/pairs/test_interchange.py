"""Examples of interchange training, and its forward pass, against the interpreter and the public forward pass."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from random import Random

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional

from tests.pairs.planted import PLAN, aligned, planted, program
from weightspace.circuits.hypothesis import Component
from weightspace.pairs.answers import AnswerClasses
from weightspace.pairs.counterfactuals import Counterfactuals, rows_of
from weightspace.pairs.forward import _Attention, _Swapped, interchanged
from weightspace.pairs.network import NetworkPlan, first_weights, transformer_of
from weightspace.pairs.programs import hand_written
from weightspace.pairs.training import Curriculum
from weightspace.rasp.batch import BatchValues
from weightspace.rasp.interpreter import evaluate


def test_nothing_swapped_is_the_base_and_everything_swapped_the_source() -> None:
    found = Counterfactuals.of(hand_written("sort"))
    base, source = np.random.default_rng(0).integers(0, len(found.codes), (2, 50))
    where = np.zeros((50, len(found.names), 5), bool)
    inputs = found.inputs
    assert found.swapped(base, source, where).lists() == [evaluate(found.program, inputs[row]) for row in base]
    assert found.swapped(base, source, ~where).lists() == [evaluate(found.program, inputs[row]) for row in source]


def test_what_is_swapped_further_on_hides_what_is_swapped_before_it() -> None:
    found = Counterfactuals.of(hand_written("most_frequent"))
    base, source = np.random.default_rng(0).integers(0, len(found.codes), (2, 50))
    last = np.zeros((50, len(found.names), 5), bool)
    last[:, -1] = True
    first = np.zeros_like(last)
    first[:, 0, :2] = True
    assert found.swapped(base, source, last | first).lists() == found.swapped(base, source, last).lists()
    assert found.swapped(base, source, first).lists() != found.swapped(base, source, last).lists()


def test_one_s_op_swapped_is_what_circuits_says() -> None:
    made = planted()
    alignment = aligned(made)
    found = Counterfactuals.of(program())
    base, source = np.random.default_rng(0).integers(0, len(found.codes), (2, 60))
    where = np.zeros((60, 2, 4), bool)
    where[:, 0] = np.random.default_rng(1).random((60, 4)) < 0.5
    expected, defined = alignment.swapped_meaning("flag", base, source, where[:, 0])
    assert defined.all()
    answer = made.trained.answer
    assert np.array_equal(found.labels(answer, found.swapped(base, source, where)), expected)


def test_every_s_op_of_the_program_changes_answers_where_it_is_swapped() -> None:
    assert min(Counterfactuals.of(program()).influence(np.random.default_rng(0))) > 0.5


def test_answers_that_differ_by_rounding_alone_are_one_class() -> None:
    codes, lengths = np.array([[0, 1, -1]]), np.array([3])
    answer = AnswerClasses.of("v", [BatchValues(codes, (0.1 + 0.2, 0.3), lengths)])
    assert answer.values == (None, 0.3)
    assert answer.of_values({"v": BatchValues(codes, (0.3, 5.0), lengths)}).tolist() == [[1.0, -1.0, 0.0]]


def plans() -> list[NetworkPlan]:
    drawn = [NetworkPlan.drawn(Random(number), number) for number in range(40)]
    return [next(each for each in drawn if (each.norm, each.activation) == kind) for kind in KINDS]


KINDS = [("none", "relu"), ("LN", "gelu"), ("LN", "relu"), ("none", "gelu")]


@pytest.mark.parametrize("plan", plans(), ids=["-".join(kind) for kind in KINDS])
def test_the_fast_forward_pass_is_the_public_one_with_components_replaced(plan: NetworkPlan) -> None:
    torch.manual_seed(0)
    weights = first_weights(plan, 6, 6, 7)
    weights = {name: each + 0.05 * torch.randn(each.shape) for name, each in weights.items()}
    transformer = transformer_of(plan, weights)
    numbers = torch.randint(0, 6, (16, 6))
    swaps = torch.rand(len(plan.slots), 6, 8) < 0.4
    hot = functional.one_hot(numbers, 6).permute(2, 1, 0).float()
    found = interchanged(plan, weights, hot, swaps).permute(2, 1, 0)
    places = [slot.place for slot in plan.slots]
    sources = transformer.run(numbers[:8], read=places)
    put = {place: _putting(sources[place], swaps[number].t().unsqueeze(-1)) for number, place in enumerate(places)}
    bases = transformer.run(numbers[8:], replace=put)
    assert torch.allclose(found, torch.cat([sources.logits, bases.logits]), atol=1e-4)
    assert not torch.allclose(found[8:], transformer.run(numbers[8:]).logits, atol=1e-4)


def _putting(source: torch.Tensor, where: torch.Tensor):
    return lambda value: torch.where(where, source, value)


def test_gradients_of_attention_and_of_swaps_are_those_of_finite_differences() -> None:
    qkv = torch.randn(3, 2, 3, 4, 5, dtype=torch.double, requires_grad=True)
    assert gradcheck(_Attention.apply, qkv)
    value = torch.randn(2, 3, 4, 6, dtype=torch.double, requires_grad=True)
    where = torch.rand(2, 1, 4, 4) < 0.5
    for chained in (False, True):
        assert gradcheck(partial(_apply, where, chained), value)


def _apply(where: torch.Tensor, chained: bool, value: torch.Tensor) -> torch.Tensor:
    return _Swapped.apply(value, where, chained)


def test_a_component_that_is_swapped_alone_gives_what_circuits_gives() -> None:
    made, number = planted(), 2
    alignment = aligned(made)
    base, source = np.random.default_rng(3).integers(0, len(alignment), (2, 40))
    where = np.ones((40, 4), bool)
    swaps = torch.zeros(len(PLAN.slots), 5, 40, dtype=torch.bool)
    swaps[number, 1:] = True
    tokens = torch.cat([alignment.tokens[source], alignment.tokens[base]])
    hot = functional.one_hot(tokens, 5).permute(2, 1, 0).float()
    answers = interchanged(replace(PLAN), made.trained.weights, hot, swaps)[:, 1:, 40:].argmax(0).t().numpy()
    assert np.array_equal(answers, alignment.swapped_answers(Component(PLAN.slots[number].place), base, source, where))


def test_a_chain_of_swaps_is_a_swap_from_a_run_in_which_something_was_swapped() -> None:
    torch.manual_seed(1)
    plan = replace(PLAN, layers=3)
    weights = first_weights(plan, 5, 5, 3)
    hot = functional.one_hot(torch.randint(0, 5, (12, 5)), 5).permute(2, 1, 0).float()
    swaps = torch.rand(len(plan.slots), 5, 8) < 0.4
    chain = interchanged(plan, weights, hot, swaps, chained=True)
    first = interchanged(plan, weights, hot[..., :8], swaps[..., :4])
    assert torch.allclose(chain[..., :8], first, atol=1e-5)
    shared = interchanged(plan, weights, hot, swaps)
    assert torch.allclose(shared[..., :8], chain[..., :8], atol=1e-5)
    assert not torch.allclose(shared[..., 8:], chain[..., 8:], atol=1e-3)


def test_the_labels_of_a_chain_follow_the_chain() -> None:
    found, random = Counterfactuals.of(program()), np.random.default_rng(0)
    plan = replace(PLAN, chained=True)
    answer = found.classes(random)
    curriculum = Curriculum(plan, planted().correspondence, found, answer, np.arange(len(found.codes)), random)
    examples = curriculum.draw(2)
    few = plan.batch // 2
    swaps = examples.swaps[[2, 4]].numpy()  # the planted components of both S-ops
    assert [plan.slots[2], plan.slots[4]] == [planted().correspondence.slots[name] for name in found.names]
    tokens = examples.bases.argmax(0).t()[:, 1:].numpy()
    rows = tokens @ 4 ** np.arange(3, -1, -1)
    clean = examples.sources.argmax(0).t()[:, 1:].numpy() @ 4 ** np.arange(3, -1, -1)
    for batch in range(2):
        first, second = (slice(batch * plan.batch + n * few, batch * plan.batch + (n + 1) * few) for n in (0, 1))
        source = {name: rows_of(found.values[name], clean[batch * few : (batch + 1) * few]) for name in found.names}
        then = found.followed(rows[first], source, swaps[:, 1:, first].transpose(2, 0, 1))
        last = found.followed(rows[second], then, swaps[:, 1:, second].transpose(2, 0, 1))
        for part, values in ((first, then), (second, last)):
            assert np.array_equal(found.labels(answer, values["share"]), examples.expected[:, part].t().numpy())
