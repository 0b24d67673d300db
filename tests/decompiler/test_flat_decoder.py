"""The paper's decompiler: its mask, its loss, its decoding; what it can learn and what it cannot."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from weightspace.decompiler.paper.flat_config import FlatConfig
from weightspace.decompiler.paper.flat_decoder import FlatBatch, FlatDecoder, instruction_loss
from weightspace.decompiler.paper.listing import CLASSES, Chunking, Listing, draw_listings, score_listings
from weightspace.decompiler.paper.listings import from_listings, on_the_fly
from weightspace.errors import NetworkError, TaskError
from weightspace.train.config import TrainingConfig

CHUNKING = Chunking(zeros=False)
SMALL = FlatConfig(
    chunking=CHUNKING,
    width=48,
    depth=2,
    heads=2,
    encoding=16,
    training=TrainingConfig(
        steps=6, batch_size=8, learning_rate=5e-3, evaluate_every=3, checkpoint_every=2, device="cpu", warmup=0.1
    ),
)


def drawn(count, split="train", **options):
    return draw_listings(
        count, split=split, seed=0, chunking=CHUNKING, most_parameters=9_999, lengths=[3, 4], **options
    )


@pytest.fixture(scope="module")
def listings():
    return drawn(24)


@pytest.fixture
def decoder():
    """Untrained, but with heads that are not zero."""
    decoder = FlatDecoder(SMALL)
    generator = torch.Generator().manual_seed(1)
    for head in decoder.network.heads:
        assert isinstance(head, torch.nn.Linear)
        torch.nn.init.normal_(head.weight, std=1.0, generator=generator)
    decoder.network.eval()
    return decoder


def logits_of(decoder, listings):
    with torch.no_grad():
        return decoder.network(FlatBatch.of_listings(listings, 128))


def test_an_answer_does_not_depend_on_what_else_is_in_the_batch(decoder, listings):
    ordered = sorted(listings, key=lambda one: len(one.chunks))
    together = logits_of(decoder, ordered)
    for place in (0, 11, 23):
        alone = logits_of(decoder, [ordered[place]])
        for own, every in zip(alone, together, strict=True):
            assert torch.allclose(own[0], every[place], atol=1e-4)


def test_a_line_depends_on_the_lines_before_it_and_not_on_those_after(decoder, listings):
    batch = FlatBatch.of_listings(listings[:4], 128)
    changed = batch.lines.clone()
    changed[:, 2] = 1
    with torch.no_grad():
        before = decoder.network(batch)
        after = decoder.network(replace(batch, lines=changed))
    for own, other in zip(before, after, strict=True):
        assert torch.equal(own[:, :3], other[:, :3])
        assert not torch.allclose(own[:, 3:], other[:, 3:], atol=1e-3)


def test_every_weight_matters(decoder, listings):
    one = max(listings, key=lambda one: len(one.chunks))
    base = logits_of(decoder, [one])[0]
    for place in (0, len(one.chunks.values) // 2, len(one.chunks.values) - 1):
        values = one.chunks.values.copy()
        values[place] += 3
        other = logits_of(decoder, [Listing(one.lines, replace(one.chunks, values=values), one.key)])[0]
        assert not torch.allclose(base, other, atol=1e-5)


def test_the_loss_is_the_cross_entropy_summed_over_fields_and_averaged_over_lines(listings):
    lines = torch.from_numpy(np.stack([one.lines for one in listings]))
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(len(lines), 15, classes, generator=generator) for classes in CLASSES]
    total, count = 0.0, 0
    for program, rows in enumerate(lines.tolist()):
        for line, fields in enumerate(rows):
            if fields[0] == 0:
                continue
            count += 1
            for values, field in zip(logits, fields, strict=True):
                if field:
                    total -= float(values[program, line].log_softmax(0)[field])
    assert float(instruction_loss(logits, lines)) == pytest.approx(total / count, rel=1e-5)


def test_decoding_with_kept_keys_and_values_equals_decoding_anew_line_by_line(decoder, listings):
    batch = FlatBatch.of_listings(listings[:10], 128)
    with torch.no_grad():
        kept = decoder.network.write(batch)
        written = torch.zeros_like(batch.lines)
        for line in range(15):
            logits = decoder.network(replace(batch, lines=written))
            written[:, line] = torch.stack([values[:, line].argmax(-1) for values in logits], -1)
    assert torch.equal(kept, written)
    assert len({tuple(program.flatten().tolist()) for program in kept}) > 1


@pytest.fixture(scope="module")
def learned(listings):
    training = TrainingConfig(steps=250, batch_size=8, learning_rate=1e-2, betas=(0.9, 0.98), device="cpu")
    config, some = replace(SMALL, width=32, training=training), listings[:8]
    return FlatDecoder(config).fit(from_listings(some, config), some), some


def test_a_few_programs_are_learned_by_heart(learned):
    decoder, some = learned
    truth = np.stack([one.lines for one in some])
    assert score_listings(decoder.decode([one.chunks for one in some]), truth).exact.mean() == 1
    assert score_listings(decoder.forced(some), truth).exact.mean() == 1


def test_other_weights_give_other_programs(learned):
    """The negative control: with the weights of the next program, no better than another program of the set."""
    decoder, some = learned
    truth = np.stack([one.lines for one in some])
    shuffled = [one.chunks for one in (*some[1:], some[0])]
    found = score_listings(decoder.decode(shuffled), truth).tokens.mean()
    prior = score_listings(np.roll(truth, -1, axis=0), truth).tokens.mean()
    assert found == pytest.approx(prior)


def test_a_saved_decoder_writes_the_same_programs(learned, tmp_path):
    decoder, some = learned
    path = decoder.save(tmp_path, {"zoo": "none"})
    loaded = FlatDecoder.load(tmp_path)
    chunks = [one.chunks for one in some]
    assert np.array_equal(loaded.decode(chunks), decoder.decode(chunks))
    assert loaded.config == replace(decoder.config, training=replace(decoder.config.training, device="auto"))
    assert loaded.facts == {"zoo": "none"} and loaded.history.steps == 250
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(NetworkError):
        FlatDecoder.load(path)


def test_a_resumed_run_equals_one_that_was_not_interrupted(listings, tmp_path):
    whole = FlatDecoder(SMALL).fit(from_listings(listings, SMALL), listings[:4], tmp_path / "whole")

    class Killed(Exception):
        pass

    batches = from_listings(listings, SMALL)

    def until_four(step):
        if step == 4:
            raise Killed
        return batches(step)

    with pytest.raises(Killed):
        FlatDecoder(SMALL).fit(until_four, listings[:4], tmp_path / "part")
    resumed = FlatDecoder(SMALL).fit(from_listings(listings, SMALL), listings[:4], tmp_path / "part")
    assert resumed.history.training_loss == whole.history.training_loss
    for own, other in zip(resumed.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(own, other)
    with pytest.raises(TaskError, match="other programs or settings"):
        FlatDecoder(SMALL).fit(batches, listings[:5], tmp_path / "part")


def test_batches_are_a_function_of_the_step_and_an_epoch_has_each_example_once(listings):
    config = replace(SMALL, training=replace(SMALL.training, batch_size=3))
    batches = from_listings(listings, config)
    ahead = batches(37)
    seen = [one.key for step in range(8) for one in batches(step)]
    assert sorted(seen[:24]) != seen[:24]
    assert [one.key for one in batches(37)] == [one.key for one in ahead]
    group = [one.key for step in range(16) for one in batches(step)]
    assert sorted(group) == sorted([one.key for one in listings] * 2)


@pytest.mark.slow
def test_programs_on_the_fly_are_the_same_however_many_processes_make_them():
    config = replace(SMALL, training=replace(SMALL.training, batch_size=1))
    with on_the_fly(config, 0) as here, on_the_fly(config, 1) as there:
        assert [one.key for one in here(17)] == [one.key for one in there(17)]


def test_weights_that_cannot_be_read_are_refused(decoder, listings):
    one = listings[0].chunks
    with pytest.raises(TaskError, match="not finite"):
        decoder.decode([replace(one, values=np.full_like(one.values, np.nan))])
    with pytest.raises(TaskError, match="0 chunks"):
        decoder.decode([replace(one, kinds=one.kinds[:0])])
    assert decoder.decode([]).shape == (0, 15, 5)


@pytest.mark.parametrize("options", [{"depth": 0}, {"width": 50, "heads": 4}, {"encoding": 128}, {"dropout": 1.0}])
def test_a_shape_out_of_range_is_refused(options):
    with pytest.raises(ValueError, match="choose"):
        FlatConfig(**options)
