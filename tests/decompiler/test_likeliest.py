"""Programs found, printed as the paper's sampler most probably drew them: what weights show, records, the answer."""

from random import Random

# pyright: basic, reportOptionalIterable=false, reportOptionalMemberAccess=false, reportArgumentType=false, reportCallIssue=false
import numpy as np
import pytest

from weightspace.decompiler.distortion import permuted
from weightspace.decompiler.lifting.lift import lift
from weightspace.decompiler.paper.ceiling import different_records
from weightspace.decompiler.paper.imprint import imprint_key, imprint_of
from weightspace.decompiler.paper.likeliest import chosen, likeliest_listing, nearest_lines, numbering_of
from weightspace.decompiler.paper.listing import score_listings, target_lines
from weightspace.decompiler.paper.matching import Matcher, matcher_of
from weightspace.decompiler.paper.reconstruction import reconstructed, without_values
from weightspace.decompiler.paper.sampler_record import (
    DrawnOperation,
    SamplerRecord,
    draw_record,
    drawn_operations,
    kinds_of,
    live,
    number_of,
    program_of,
)
from weightspace.decompiler.paper.settled import settled
from weightspace.decompiler.paper.walk import Walk, target_of
from weightspace.decompiler.proof.verify import certify
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.language import Aggregate, Map, Select, SelectorWidth, SequenceMap, fused, indices, tokens
from weightspace.rasp.program import Program


def meant(output):
    return Program.of(output, vocab=(0, 1, 2, 3, 4), max_seq_len=4)


@pytest.fixture(scope="module")
def records():
    found = different_records(11, lengths=[4, 5, 6])
    return [next(found) for _ in range(6)]


def is_unmet(sight):
    """Whether an S-op has values that it never takes, of which lost order leaves nothing."""
    return sight.table is not None and len(np.unique(sight.table)) < sight.size


def weights_of_record(record):
    return BareTransformer.of(compile_program(fused(program_of(record)), mode="tracr_compat"))


def test_a_program_read_off_permuted_weights_shows_what_the_true_one_does(records):
    for seed, record in enumerate(records):
        found = lift(permuted(weights_of_record(record), seed)).program
        imprint = imprint_of(found, "lost")
        assert imprint is not None
        true = imprint_of(fused(program_of(record)), "lost")
        assert [sight.size for sight in imprint.sights] and len(imprint.sights) == len(true.sights)
        if not any(is_unmet(sight) for sight in true.sights):
            assert imprint.key == true.key


def test_the_order_of_directions_tells_a_difference_from_a_sum():
    less, more = meant(Map("9 - x", tokens)), meant(Map("9 + x", tokens))
    assert imprint_key(less, "lost") == imprint_key(more, "lost")
    assert imprint_key(less, "kept") != imprint_key(more, "kept")


def test_the_order_of_directions_is_read_off_a_certificate(records):
    for record in records:
        weights = weights_of_record(record)
        found = lift(weights).program
        certificate = certify(found, weights, mode="tracr_compat")
        imprint = imprint_of(found, "kept", numbering_of(found, certificate.columns))
        assert imprint is not None and imprint.key == imprint_key(program_of(record), "kept")


def test_a_selector_of_nothing_leaves_no_trace_of_its_operands_but_themselves():
    first, second = Map("9 - x", tokens), Map("9 - x", indices)
    both = SequenceMap("x + y", first, second)

    def program(predicate, keys, queries):
        return meant(SequenceMap("x * y", SelectorWidth(Select(keys, queries, predicate)), both))

    for predicate, same in (("FALSE", True), ("LT", False)):
        one, other = (program(predicate, *pair) for pair in ((first, first), (tokens, first)))
        assert (imprint_key(one, "lost") == imprint_key(other, "lost")) == same


def test_a_sequence_map_of_one_s_op_with_itself_looks_like_a_map():
    twice = meant(SequenceMap("x and y", tokens, tokens))
    assert imprint_key(twice, "kept") == imprint_key(meant(Map("3 * x", tokens)), "kept")
    chain = meant(Map("3 + x", SequenceMap("x and y", tokens, tokens)))
    assert imprint_key(chain, "kept") != imprint_key(meant(Map("3 + x", Map("3 * x", tokens))), "kept")


def test_values_that_a_sequence_map_of_one_s_op_with_itself_never_takes_are_directions_of_their_own():
    twice = meant(SequenceMap("x + y", tokens, tokens))  # 0, 2, 4, 6 and 8, and directions for 1, 3, 5 and 7
    for order in ("lost", "kept"):
        assert imprint_key(twice, order) != imprint_key(meant(Map("3 * x", tokens)), order)
        (*_, sight) = imprint_of(twice, order).sights
        assert sight.size == 9 and len(np.unique(sight.table)) == 5
    shown = imprint_of(twice, "kept").sights[-1].table
    assert shown.tolist() == [0, 2, 4, 6, 8]


def test_the_quick_comparison_says_what_the_keys_say(records):
    asked = {True: 0, False: 0}
    for record in records:
        program = program_of(record)
        for order in ("lost", "kept"):
            imprint = imprint_of(fused(program), order)
            matcher = Matcher(imprint, record.vocab, record.places)

            def alike(other, kept, matcher=matcher, imprint=imprint, order=order):
                same = imprint_key(program_of(other), order) == imprint.key
                assert matcher(other, kept) == same
                asked[same] += 1
                return same

            walk = Walk(record, Random(1), alike=alike, moves=True)
            for _ in range(60):
                walk.step()
    assert asked[True] > 50 and asked[False] > 50


def test_a_record_is_made_for_weights_without_a_look_at_the_program_that_was_drawn(records):
    made = 0
    for seed, record in enumerate(records):
        found = lift(permuted(weights_of_record(record), seed)).program
        imprint = imprint_of(found, "lost")
        again = reconstructed(found, imprint, Random(seed))
        if again is not None:
            made += 1
            kinds = kinds_of(again)
            walk = Walk(again, Random(0), alike=lambda *_: True)
            every = [walk.log_probability(again, n, kinds) for n in range(len(again.operations))]
            assert np.isfinite(every).all() and len(again.operations) == drawn_operations(again.wanted)
            weights = without_values(weights_of_record(record))
            assert certify(fused(program_of(again)), weights, mode="tracr_compat") is not None
    assert made >= 5


@pytest.mark.slow
@pytest.mark.parametrize("order", [None, "lost", "kept"])
def test_moves_leave_the_distribution_of_records_as_it_is(order):
    """Walks from the sampler's own draws must go on looking like them: over all records, or those of their weights."""

    def seen(record):
        names = [operation.name for operation in record.operations]
        kept = [record.operations[number_of(place)] for place in live(record)]
        twice = sum(one.name == "SequenceMap" and one.reads[0] == one.reads[1] for one in kept)
        added = sum(one.name == "Map" and one.detail == "LAM_ADD" for one in kept)
        return [record.wanted, len(kept), names.count("Map"), names.count("Select"), twice, added]

    random, before, after = Random(8), [], []
    while len(before) < 150:
        record = draw_record(random, None, (4, 4, True))
        if record is None or (order is not None and imprint_key(program_of(record), order) is None):
            continue
        alike = (lambda *_: True) if order is None else matcher_of(record, order)
        walk = Walk(record, Random(len(before)), alike=alike, moves=True)
        for _ in range(40 if order is None else 120):
            walk.step()
        assert walk.accepted and live(walk.record) == walk.kept
        before.append(seen(record))
        after.append(seen(walk.record))
    difference = np.array(after, float) - np.array(before, float)
    assert (difference != 0).any(0).all()
    error = difference.std(0) / len(before) ** 0.5
    assert (np.abs(difference.mean(0)) < 4 * error).all()


def test_lambdas_of_one_table_are_known():
    record = SamplerRecord(3, (0, 1, 2, 3), 4, "numeric", (DrawnOperation("Map", (0,), "LAM_ADD", 3),) * 6)
    sums = Map("3 + x", tokens)
    imprint = imprint_of(meant(sums), "lost")
    matcher = Matcher(imprint, (0, 1, 2, 3), 4)
    scope = matcher.scope(record, (1,))
    alike = matcher.lambdas(scope[0].given, False, record.vocab)[scope[1].table]
    assert ("LAM_SUB", 7) in alike and ("LAM_MUL", 3) in alike and ("LAM_OR", 3) not in alike
    for order, same in (("lost", True), ("kept", False)):
        matcher = Matcher(imprint_of(meant(sums), order), (0, 1, 2, 3), 4)
        scope = matcher.scope(record, (1,))
        assert (("LAM_SUB", 7) in matcher.lambdas(scope[0].given, False, record.vocab)[scope[1].table]) == same


def test_a_walk_that_knows_the_tables_takes_other_lambdas_and_keeps_the_weights(records):
    changed = 0
    for record in records:
        walk = Walk(record, Random(3), alike=matcher_of(record, "lost"), moves=True)
        for _ in range(40):
            number = number_of(walk.kept[0])
            before = walk.record.operations[number]
            walk._another_lambda(number)
            changed += walk.record.operations[number] != before
        assert imprint_key(program_of(walk.record), "lost") == imprint_key(program_of(record), "lost")
    assert changed > 10


def test_the_answer_is_one_of_the_programs_with_these_weights(records):
    weights = permuted(weights_of_record(records[0]), 3)
    found = lift(weights).program
    first, again = (likeliest_listing(found, "lost", steps=60, chains=1, seed=2) for _ in range(2))
    assert first.chains == 1 and first.targets >= 1 and 0 < first.tokens <= 1 and 0 <= first.exact <= 1
    assert (first.lines == again.lines).all()
    truth = target_lines(program_of(records[0]))
    assert score_listings(first.lines[None], truth[None]).tokens[0] > 0.4


def test_what_the_compiler_has_fused_into_too_few_lines_is_written_as_a_chain():
    for vocab in ((0, 1, 2, 3, 4), ("a", "b", "c")):
        program = Program.of(Map("x == 'b'" if "b" in vocab else "x == 2", tokens), vocab=vocab, max_seq_len=4)
        for order in ("lost", "kept"):
            imprint = imprint_of(program, order)
            record = reconstructed(program, imprint, Random(0))
            assert record is not None and len(live(record)) >= 3
            assert imprint_key(program_of(record), order) == imprint.key


def test_no_answer_is_better_than_what_is_met_most():
    short = meant(Map("3 < x", tokens)), meant(Map("3 <= x", tokens))
    targets = [target_of(program) for program in short]
    lines, expected, exact = chosen(targets, np.array([1.0, 3.0]))
    assert (lines == target_lines(short[1])).all() and exact == 0.75
    assert expected == pytest.approx(0.75 + 0.25 * 5 / 6)


def test_where_no_record_is_found_the_lines_of_the_program_itself_are_written():
    odd = meant(Aggregate(Select(Map("x % 3 * 2", tokens), tokens, "LT"), indices))
    lines = nearest_lines(odd)
    assert (lines[:, 0] > 0).sum() == 4  # three lines and the end


def test_settled_targets_have_the_weights_of_those_drawn(records):
    changed = 0
    for record in records:
        other = settled(record)
        assert imprint_key(program_of(other), "kept") == imprint_key(program_of(record), "kept")
        changed += target_of(program_of(other)) != target_of(program_of(record))
    assert changed


def test_settled_comparisons_are_those_of_most_constants():
    drawn = DrawnOperation("Map", (0,), "LAM_LT", 4)  # false of every token: so is `not` of any constant but 0
    follow = DrawnOperation("Select", (1, 1), "EQ")
    width = DrawnOperation("SelectorWidth", (3,))
    dead = [DrawnOperation("Map", (0,), "LAM_EQ", 1)] * (drawn_operations(3) - 3)
    record = SamplerRecord(3, (0, 1, 2, 3, 4), 4, "numeric", (drawn, follow, width, *dead))
    assert program_of(record) is not None
    made = settled(record)
    assert made.operations[0].detail == "LAM_IV" and made.operations[1].detail == "TRUE"
