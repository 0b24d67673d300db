"""Behaviours are measured as they are said to be."""

from __future__ import annotations

import pytest
import torch

from tests.heads.small import PLAIN, looking_back, random_model
from weightspace.errors import NetworkError
from weightspace.heads.behaviour import BESIDE, HeadInputs, head_behaviour, loss_on, repeated_texts
from weightspace.heads.inputs import inputs_of, passages

TEXTS = repeated_texts(40, 3, 20, seed=1)[:, :24]
REPEATED = repeated_texts(40, 3, 20, seed=2)


def test_a_head_that_looks_one_back_is_a_previous_token_head_and_a_local_one() -> None:
    found = head_behaviour(looking_back(1, 0, 3), HeadInputs(TEXTS, REPEATED, None, "random"))
    torch.testing.assert_close(found.of("previous")[0], torch.tensor([1.0, 0.0, 0.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.of("current")[0], torch.tensor([0.0, 1.0, 0.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.of("local")[0], torch.tensor([1.0, 0.0, 1.0]), atol=1e-3, rtol=0)


def test_induction_is_found_at_any_distance_beside_the_same_token_and_duplicates_at_none() -> None:
    period = REPEATED.shape[1] // 2
    found = head_behaviour(
        looking_back(period, period - 1, period - 6, period + 2), HeadInputs(TEXTS, REPEATED, None, "random")
    )
    torch.testing.assert_close(found.of("duplicate")[0], torch.tensor([1.0, 0, 0, 0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.of("induction")[0], torch.tensor([0.0, 1, 1, 1]), atol=1e-3, rtol=0)
    assert found.beside[0, 1:].tolist() == [1, 6, -2]
    assert int(found.beside.abs().max()) <= BESIDE


def test_a_head_that_looks_at_the_first_place_is_a_sink() -> None:
    found = head_behaviour(looking_back(63), HeadInputs(TEXTS, REPEATED, None, "random"))
    assert float(found.of("sink")) == pytest.approx(1.0, abs=1e-3)


def test_punctuation_counts_attention_to_marks_alone() -> None:
    marks = torch.zeros(40, dtype=torch.bool)
    marks[7] = True
    texts = torch.randint(8, 40, (2, 30), generator=torch.Generator().manual_seed(0))
    texts[:, 1::2] = 7
    found = head_behaviour(looking_back(1), HeadInputs(texts, REPEATED, marks, "random"))
    assert float(found.of("punctuation")) == pytest.approx(0.5, abs=0.05)
    assert bool(head_behaviour(looking_back(1), HeadInputs(texts, REPEATED, None, "")).of("punctuation").isnan().all())


def test_a_head_that_writes_the_token_it_reads_copies() -> None:
    found = head_behaviour(looking_back(1), HeadInputs(TEXTS, REPEATED, None, "random"))
    assert float(found.of("copying")) > 3  # one logit of twenty is 1, the others 0
    random = head_behaviour(random_model(PLAIN), HeadInputs(TEXTS % 20, REPEATED % 20, None, "random"))
    assert float(random.of("copying").abs().max()) < 2.5


def test_loss_on_repeated_texts_rises_without_the_head_that_repeats_them() -> None:
    period = REPEATED.shape[1] // 2
    transformer = looking_back(period - 1, 5)
    whole = loss_on(transformer, REPEATED)
    assert loss_on(transformer, REPEATED, [(0, 0)]) > whole + 0.1
    assert loss_on(transformer, REPEATED, [(0, 1)]) < whole


def test_without_a_tokenizer_random_tokens_stand_in_and_it_is_said() -> None:
    inputs = inputs_of(random_model(PLAIN), None)
    assert "no tokenizer was found" in inputs.stated
    assert inputs.punctuation is None and int(inputs.texts.max()) < 20
    assert len(passages()) == 16


def test_texts_that_are_too_short_are_refused() -> None:
    with pytest.raises(NetworkError, match="too short: give more than 9"):
        head_behaviour(looking_back(1), HeadInputs(TEXTS[:, :9], REPEATED, None, ""))
