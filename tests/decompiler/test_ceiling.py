"""The ceiling of the lossy target: its walk against the sampler, its posterior against plain counting."""

from collections import Counter
from random import Random

import numpy as np
import pytest

from weightspace.decompiler.paper.ceiling import different_records, listing_ceiling, summary, two_starts
from weightspace.decompiler.paper.sampler_record import draw_record, kinds_of, live, program_of
from weightspace.decompiler.paper.typed_ceiling import TypedWalk, typed_ceiling
from weightspace.decompiler.paper.walk import Walk, target_of, weights_key
from weightspace.errors import RaspError
from weightspace.rasp.language import Map, Select, SelectorWidth, SequenceMap, indices, tokens
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import attempts


def test_records_are_drawn_as_the_sampler_draws_programs():
    random, accepted = Random("paper 5"), 0
    for _, (expected) in zip(range(150), attempts("paper", 5), strict=False):
        record = draw_record(random)
        if isinstance(expected, str):
            assert record is None
        else:
            assert record is not None and str(program_of(record)) == str(expected)
            kept = live(record)
            assert kept is not None and len(kept) == len(expected)
            accepted += 1
    assert accepted > 30


def test_a_walk_never_leaves_its_weights_and_stays_possible():
    record = next(different_records(0))
    walk = Walk(record, Random(0))
    for _ in range(300):
        walk.step()
        kinds = kinds_of(walk.record)
        every = [walk.log_probability(walk.record, n, kinds) for n in range(len(walk.record.operations))]
        assert np.isfinite(every).all()
    program = program_of(walk.record)
    assert program is not None and weights_key(program) == walk.key
    assert walk.accepted > 10 and walk.record != record


def meant(output):
    return Program.of(output, vocab=(0, 1, 2, 3, 4), max_seq_len=4)


def test_weights_do_not_know_a_constant_and_do_know_operand_order():
    less, at_most = (meant(Map(source, tokens)) for source in ("2 < x", "3 <= x"))
    assert weights_key(less) == weights_key(at_most)
    keys, queries = Map("x + 1", tokens), tokens
    one, other = (meant(SelectorWidth(Select(*pair, "LT"))) for pair in ((keys, queries), (queries, keys)))
    assert weights_key(one) != weights_key(other)


def test_weights_know_what_is_computed_twice_and_not_what_is_mapped_twice():
    chain = meant(Map("not x", Map("not x", tokens)))
    assert weights_key(chain) == weights_key(meant(Map("1 <= x", tokens)))
    assert weights_key(chain, fuse=False) != weights_key(meant(Map("1 <= x", tokens)), fuse=False)
    width = SelectorWidth(Select(tokens, tokens, "EQ"))
    again = SelectorWidth(Select(tokens, tokens, "EQ"))
    once, twice = (meant(SequenceMap("x + y", *pair)) for pair in ((width, width), (width, again)))
    assert weights_key(once) != weights_key(twice)


def test_what_tracr_cannot_compile_or_is_too_large_has_no_key():
    program = meant(Map("2 < x", tokens))
    assert weights_key(program, 10_000) is not None and weights_key(program, 10) is None


def test_halves_are_counted_as_said():
    path = [b"a"] * 5 + [b"b"] * 5
    found = summary(path, b"a", 3)
    assert (found.largest, found.held_out, found.guessed, found.targets) == (0.5, 0.0, 0.0, 2)
    assert summary([b"a"] * 10, b"a", 3).held_out == 1


def test_ceilings_are_a_function_of_their_arguments_and_agree_where_there_is_one_answer():
    first, again = (listing_ceiling(2, 60, 3, "lost") for _ in range(2))
    assert first == again
    for one in first:
        for answer in (one.truth, one.made):
            assert answer is not None and 0 <= answer.right <= 1 and answer.whole in (0, 1) and answer.targets >= 1
    with pytest.raises(RaspError, match="at least"):
        listing_ceiling(0, 40, 3, "kept")


def test_a_chain_from_the_truth_and_one_from_a_record_made_for_the_weights_promise_alike():
    """Of short programs, which a chain soon knows."""
    found = [two_starts(next(different_records(seed, lengths=[3])), "kept", 800, seed) for seed in range(5)]
    both = [(one.truth.tokens, one.made.tokens) for one in found if one.made is not None]
    assert len(both) >= 4
    assert sum(abs(truth - made) < 0.1 for truth, made in both) >= len(both) - 1


@pytest.mark.slow
def test_the_walk_finds_the_posterior_that_counting_finds():
    """Short programs of one vocabulary and length, whose weights come again, so that targets can be counted.

    If walks draw from the posterior, the targets of fresh draws have on average the share on one walk that the targets
    of a walk from another start have. Walks that do not mix in time are allowed on one of the four weights.
    """
    random, counts, starts = Random("counting"), {}, {}
    for _ in range(12_000):
        record = draw_record(random, [3], (3, 3, True))
        program = None if record is None else program_of(record)
        key = None if program is None else weights_key(program)
        if record is None or program is None or key is None:
            continue
        if len(starts.setdefault(key, [])) < 2:
            starts[key].append(record)
        else:
            counts.setdefault(key, Counter())[target_of(program)] += 1

    def shares(record, seed):
        walk = Walk(record, Random(seed))
        for _ in range(1_500):
            walk.step()
        walked = Counter(walk.step() for _ in range(6_000))
        return {target: count / walked.total() for target, count in walked.items()}

    often = sorted(counts, key=lambda key: -counts[key].total())[2:6]  # the two commonest have hundreds of targets
    agree = 0
    for number, key in enumerate(often):
        first, second = (shares(record, 100 * number + place) for place, record in enumerate(starts[key]))
        total = counts[key].total()
        expected = sum(share * first.get(target, 0) for target, share in second.items())
        squares = sum(share * first.get(target, 0) ** 2 for target, share in second.items())
        found = sum(count * first.get(target, 0) for target, count in counts[key].items()) / total
        agree += abs(found - expected) <= 3 * ((squares - expected**2) / total) ** 0.5
    assert agree >= 3


def test_a_longer_walk_meets_more_targets():
    record = next(different_records(4))
    more, less = (two_starts(record, "lost", steps, 0).truth.targets for steps in (400, 50))
    assert more >= less


def test_a_typed_walk_keeps_weights_and_finds_the_other_order_of_what_is_commutative():
    program = Program.of(SequenceMap("x * y", tokens, indices), vocab=(0, 1, 2, 3, 4), max_seq_len=5)
    walk = TypedWalk(program, Random(0))
    met = {walk.step() for _ in range(60)}
    assert len(met) == 2 and weights_key(walk.program, fuse=False) == walk.key
    found = typed_ceiling(2, 30, 0, (4,))
    assert all(0 < one.largest <= 1 for one in found) and found == typed_ceiling(2, 30, 0, (4,))
