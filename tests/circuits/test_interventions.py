"""What is put at a place is what was said: zeros, means, other inputs, the best constants, or an interchange."""

from __future__ import annotations

import pytest
import torch

import weightspace as ws
from tests.circuits.planted import CLEAN, CORRUPTED, gpt2
from tests.transformers.shared_models import shared_models
from weightspace.circuits.interventions import interchange, mean, optimal, resample, zero
from weightspace.transformers.places import Place

Z, STREAM = Place("z", 1, 0), Place("resid_post", 0)


def test_zeros_and_means_stand_where_they_were_put() -> None:
    transformer = gpt2()
    plain = transformer.run(CLEAN, read=[Z])
    assert not transformer.run(CLEAN, replace=zero([Z]), read=[Z])[Z].any()
    put = transformer.run(CLEAN, replace=mean(transformer, CLEAN, [Z]), read=[Z])[Z]
    torch.testing.assert_close(put, plain[Z].mean((0, 1)).expand_as(put))
    put = transformer.run(CLEAN, replace=mean(transformer, CLEAN, [Z], by_place=True), read=[Z])[Z]
    torch.testing.assert_close(put, plain[Z].mean(0).expand_as(put))


def test_a_mean_leaves_out_what_fills_up_shorter_inputs() -> None:
    transformer = gpt2()
    rows = [[0, 3], [6, 2, 4, 0]]
    alone = torch.cat([transformer.run([row], read=[Z])[Z][0] for row in rows])
    by = mean(transformer, rows, [Z])[Z]
    assert isinstance(by, torch.Tensor)
    torch.testing.assert_close(by[0, 0], alone.mean(0), atol=1e-5, rtol=1e-5)


def test_resampled_values_come_from_single_inputs_and_the_seed_decides() -> None:
    transformer = gpt2()
    places = [Z, STREAM]
    one, two, other = (resample(transformer, CORRUPTED, places, 20, seed) for seed in (0, 0, 1))
    reference = transformer.run(CORRUPTED, read=places)
    matches = [
        {
            number
            for number in range(3)
            if all(torch.equal(_tensor(one[place])[row], reference[place][number]) for place in places)
        }
        for row in range(20)
    ]
    assert all(len(each) == 1 for each in matches) and len(set.union(*matches)) == 3
    assert torch.equal(_tensor(one[Z]), _tensor(two[Z])) and not torch.equal(_tensor(one[Z]), _tensor(other[Z]))


def _tensor(by: object) -> torch.Tensor:
    assert isinstance(by, torch.Tensor)
    return by


def test_the_best_constants_are_better_than_means() -> None:
    transformer = gpt2()
    expected = transformer.run(CLEAN).logits

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return (logits - expected).square().mean((1, 2))

    places = [Place("result", 1, 0), Place("mlp_out", 1)]
    with_means, with_best = (
        float(loss(transformer.run(CLEAN, replace=by).logits).mean())
        for by in (mean(transformer, CLEAN, places), optimal(transformer, CLEAN, places, loss, steps=20))
    )
    assert with_best < 0.95 * with_means
    assert with_means < float(loss(transformer.run(CLEAN, replace=zero(places)).logits).mean())


def test_an_interchange_with_itself_changes_nothing_and_of_the_whole_stream_gives_the_other_answers() -> None:
    transformer = gpt2()
    plain, other = (transformer.run(tokens).logits for tokens in (CLEAN, CORRUPTED))
    torch.testing.assert_close(interchange(transformer, CLEAN, CLEAN, [STREAM, Z]).logits, plain)
    torch.testing.assert_close(interchange(transformer, CLEAN, CORRUPTED, [STREAM]).logits, other)
    early = interchange(transformer, CLEAN, CORRUPTED, [STREAM], at=[3]).logits
    torch.testing.assert_close(early[:, :3], plain[:, :3])  # places before are causal
    assert not torch.allclose(early[:, 3], plain[:, 3], atol=1e-3)


def test_an_interchange_along_directions_leaves_what_is_orthogonal() -> None:
    transformer = gpt2()
    directions = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    base, source = (transformer.run(tokens, read=[STREAM])[STREAM] for tokens in (CLEAN, CORRUPTED))
    run = interchange(transformer, CLEAN, CORRUPTED, [STREAM], directions={STREAM: directions}, read=[STREAM])
    torch.testing.assert_close(run[STREAM] @ directions, source @ directions, atol=1e-5, rtol=1e-5)
    orthogonal = torch.linalg.qr(directions, mode="complete").Q[:, 2:]
    torch.testing.assert_close(run[STREAM] @ orthogonal, base @ orthogonal, atol=1e-5, rtol=1e-5)
    whole = interchange(transformer, CLEAN, CORRUPTED, [STREAM], directions={STREAM: torch.eye(8)}).logits
    torch.testing.assert_close(whole, transformer.run(CORRUPTED).logits, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_done_is_one_sentence() -> None:
    transformer = gpt2()
    with pytest.raises(ws.WeightspaceError, match="pairs of equal length"):
        interchange(transformer, CLEAN, CORRUPTED[:, :2], [STREAM])
    with pytest.raises(ws.WeightspaceError, match="do not fit values of width 8"):
        interchange(transformer, CLEAN, CORRUPTED, [STREAM], directions={STREAM: torch.eye(3)})
    with pytest.raises(ws.WeightspaceError, match="axes are queries and keys"):
        mean(transformer, CLEAN, [Place("pattern", 0)])


def test_a_trained_network_keeps_a_majority_along_one_direction() -> None:
    folder = shared_models() / "bin_majority-@1l1h16d3lr01drop"
    transformer = ws.load_transformer(folder, vocab=["0", "1", "<bos>", "<sep>", "<eos>", "<pad>"])
    assert isinstance(transformer, ws.TrainedTransformer)
    rng = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 2, (400, 21), generator=rng)
    begin, end = torch.full((400, 1), 2), torch.full((400, 1), 3)
    inputs, more_ones = torch.cat([begin, bits, end], 1), (2 * bits - 1).sum(1).float()
    place = Place("resid_mid", 0)
    run = transformer.run(inputs, read=[place])
    answers = run.logits[:, -1].argmax(-1)
    assert torch.equal(answers == 1, more_ones > 0)
    # the direction along which the stream moves with the difference of the counts
    counted = (run[place][:, -1] * (more_ones - more_ones.mean())[:, None]).mean(0)
    base, source = inputs[:200], inputs[200:]
    differ = answers[:200] != answers[200:]

    def follows(direction: torch.Tensor) -> float:
        """The share of pairs with different answers in which the answer becomes that of the source."""
        swapped = interchange(transformer, base, source, [place], at=[22], directions={place: direction[:, None]})
        return float((swapped.logits[:, -1].argmax(-1) == answers[200:])[differ].float().mean())

    assert int(differ.sum()) > 50
    assert follows(counted) == 1
    assert follows(torch.randn(16, generator=rng)) < 0.6
