"""The paper's task: lines as targets, weights as chunks, scores; every figure against a plain count."""

from itertools import islice

import numpy as np
import pytest

from weightspace.decompiler.paper.listing import (
    END_ID,
    MATRICES,
    MOST_LAYERS,
    Chunking,
    chunks_of,
    counted,
    draw_listings,
    ended,
    length_of,
    listing_of,
    read_listings,
    score_listings,
    target_lines,
)
from weightspace.errors import TaskError
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.language import Map, Select, SelectorWidth, fused, tokens
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import sample
from weightspace.rasp.tokens import PAPER
from weightspace.zoo.programs.config import ProgramZooConfig
from weightspace.zoo.programs.making import make_program_zoo
from weightspace.zoo.programs.splits import split_of

PROGRAMS = list(islice(sample("paper", 3), 60))
WIDTH = Program.of(SelectorWidth(Select(tokens, tokens, "EQ")), vocab=(0, 1, 2), max_seq_len=4)


def compiled(program):
    return compile_program(program, mode="tracr_compat")


# -- targets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", PROGRAMS[:20])
def test_a_target_is_the_programs_lines_and_can_be_shown_as_such(program):
    lines = target_lines(program)
    assert lines.shape == (15, 5)
    assert length_of(lines[None])[0] == len(program)
    assert PAPER.lines(lines) == PAPER.lines(PAPER.encode(program))
    assert len(program) == 15 or lines[len(program), 0] == END_ID


def test_the_target_of_fifteen_lines_has_no_end():
    (program,) = islice(sample("paper", 1, [15]), 1)
    while len(program) < 15:
        program = next(p for p in sample("paper", 2, [15]) if len(p) == 15)
    lines = target_lines(program)
    assert END_ID not in lines[:, 0] and length_of(lines[None])[0] == 15 and counted(lines).sum() == 75


def test_five_tokens_a_line_and_the_end_are_asked_for():
    for program in PROGRAMS[:20]:
        if len(program) < 15:
            assert counted(target_lines(program)).sum() == 5 * len(program) + 1


# -- chunks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 128])
def test_chunks_put_together_are_the_matrices(size):
    transformer = compiled(WIDTH)
    chunks = chunks_of(transformer.layout, transformer.places, transformer.values, Chunking(size=size))
    dense, seen = chunks.dense(size), 0
    for name, array in transformer.params.items():
        if array.ndim == 1:
            assert not array.any()
            continue
        parts = name.split("/")
        layer = 0 if parts[0] != "transformer" else int(parts[1].removeprefix("layer_")) + 1
        kind = MATRICES.index(parts[0] if layer == 0 else parts[3])
        own = (chunks.kinds == kind) & (chunks.layers == layer)
        assert list(chunks.places[own]) == list(range(own.sum()))
        flat = dense[own].ravel()
        assert np.array_equal(flat[: array.size], array.ravel()) and not flat[array.size :].any()
        seen += own.sum()
    assert seen == len(chunks)


def test_leaving_out_chunks_of_zeros_leaves_out_nothing_else():
    transformer = compiled(WIDTH)
    facts = (transformer.layout, transformer.places, transformer.values)
    every, some = (chunks_of(*facts, Chunking(size=16, zeros=zeros)) for zeros in (True, False))
    kept = every.dense(16).any(1)
    assert 0 < kept.sum() < kept.size
    assert np.array_equal(every.dense(16)[kept], some.dense(16))
    for name in ("kinds", "layers", "places"):
        assert np.array_equal(getattr(every, name)[kept], getattr(some, name))
    assert some.layers.max() < MOST_LAYERS


def test_weights_of_too_many_chunks_are_refused_with_their_number():
    transformer = compiled(WIDTH)
    with pytest.raises(TaskError, match="at most 3 are read"):
        chunks_of(transformer.layout, transformer.places, transformer.values, Chunking(size=8, most=3))


def test_a_bias_that_is_not_zero_is_refused():
    transformer = compiled(WIDTH)
    place = next(offset for _, shape, offset in transformer.layout.leaves if len(shape) == 1)
    with pytest.raises(TaskError, match="bias"):
        chunks_of(transformer.layout, np.array([place]), np.ones(1), Chunking())


@pytest.mark.parametrize("options", [{"size": 4}, {"most": 0}])
def test_a_chunking_out_of_range_is_refused(options):
    with pytest.raises(TaskError, match="choose"):
        Chunking(**options)


# -- where examples come from ------------------------------------------------------------------------------------------


def test_draws_are_a_function_of_their_arguments_and_fall_on_their_side():
    options = {"split": "test", "seed": 5, "chunking": Chunking(), "lengths": [3, 4]}
    first, again, other = (
        draw_listings(5, **options),
        draw_listings(5, **options),
        draw_listings(5, number=1, **options),
    )
    assert [one.key for one in first] == [one.key for one in again] != [one.key for one in other]
    assert {split_of(one.key) for one in first} == {"test"}
    assert len({one.key for one in first}) == 5


def test_a_map_of_a_map_is_two_lines_but_the_weights_of_one():
    program = Program.of(Map("not x", Map("3 < x", tokens)), vocab=(0, 1, 2, 4, 5), max_seq_len=3)
    listing = listing_of(program, Chunking(), 49_999)
    assert listing is not None and listing.length == 2
    assert np.array_equal(listing.chunks.values, compiled(fused(program)).values)


def test_a_zoo_gives_the_same_listings_as_its_programs_themselves(tmp_path):
    config = ProgramZooConfig(
        recipe="rasp-paper", distribution="paper", count=12, lengths=(3,), most_parameters=9_999, shard_size=24
    )
    zoo = make_program_zoo(config, tmp_path / "zoo", workers=0, show=False)
    listings = read_listings(zoo, "train", Chunking(zeros=False))
    entries = list(zoo.entries("train"))
    assert len(listings) == len(entries)
    for one, entry in zip(listings, entries, strict=True):
        again = listing_of(entry.program, Chunking(zeros=False), 49_999)
        assert again is not None and again.key == one.key
        assert np.array_equal(again.lines, one.lines) and np.array_equal(again.chunks.dense(128), one.chunks.dense(128))
    with pytest.raises(TaskError, match="make a larger one"):
        read_listings(zoo, "train", Chunking(), 1_000)


def test_a_zoo_of_typed_programs_is_refused(tmp_path):
    config = ProgramZooConfig(recipe="rasp-typed", distribution="typed", count=3, shard_size=20)
    zoo = make_program_zoo(config, tmp_path / "zoo", workers=0, show=False)
    with pytest.raises(TaskError, match="rasp-paper"):
        read_listings(zoo, "train", Chunking())


# -- scores ------------------------------------------------------------------------------------------------------------


def test_the_truth_scores_one_and_nothing_scores_less():
    truth = np.stack([target_lines(program) for program in PROGRAMS])
    perfect = score_listings(truth, truth)
    for name in ("tokens", "padded", "instructions", "exact"):
        assert (getattr(perfect, name) == 1).all()
    nothing = score_listings(np.zeros_like(truth), truth)
    assert (nothing.tokens == 0).all() and (nothing.exact == 0).all()
    assert nothing.padded.mean() > 0.2  # which is why it is a flattering figure


def test_scores_equal_a_plain_count():
    truth = np.stack([target_lines(program) for program in PROGRAMS])
    generator = np.random.default_rng(0)
    guess = np.where(generator.random(truth.shape) < 0.3, generator.integers(0, 5, truth.shape), truth)
    scores = score_listings(guess, truth)
    for row, (own, true, program) in enumerate(zip(ended(guess), truth, PROGRAMS, strict=True)):
        n = len(program)
        right = sum(own[i, f] == true[i, f] for i in range(n) for f in range(5))
        asked = 5 * n
        if n < 15:
            right, asked = right + (own[n, 0] == END_ID), asked + 1
        assert scores.tokens[row] == pytest.approx(right / asked)
        assert scores.instructions[row] == pytest.approx(sum((own[i] == true[i]).all() for i in range(n)) / n)
        assert scores.exact[row] == (right == asked)
    assert scores.at_least(0.7).mean() == (scores.tokens >= 0.7).mean()
    assert scores.at_least(1.0).mean() == scores.exact.mean()


def test_a_program_that_does_not_end_or_ends_early_is_not_exact():
    program = next(p for p in PROGRAMS if 4 < len(p) < 14)
    truth = target_lines(program)
    endless, early = truth.copy(), truth.copy()
    endless[len(program)] = truth[0]
    early[2, 0] = END_ID
    scores = score_listings(np.stack([endless, early]), np.stack([truth, truth]))
    assert list(scores.exact) == [0, 0] and scores.instructions[0] == 1 and scores.instructions[1] == 2 / len(program)


def test_what_stands_behind_an_end_is_padding():
    program = next(p for p in PROGRAMS if len(p) < 12)
    truth = target_lines(program)
    babble = truth.copy()
    babble[len(program), 1:] = 7
    babble[len(program) + 1 :] = 3
    assert score_listings(babble[None], truth[None]).exact[0] == 1
    assert np.array_equal(ended(babble[None])[0], truth)


def test_scores_of_other_shapes_are_refused():
    with pytest.raises(TaskError, match="give"):
        score_listings(np.zeros((1, 15, 5)), np.zeros((2, 15, 5)))
