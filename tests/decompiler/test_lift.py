"""The lifter: clean weights of either compiler, in any order, become a program whose weights are the same."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest

from tests.golden import golden, golden_path
from weightspace.decompiler.lifting.blocks import NotLiftable, snapped
from weightspace.decompiler.lifting.lift import lift
from weightspace.decompiler.proof.verify import certify, permuted
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer, Readout
from weightspace.rasp.functions import Function
from weightspace.rasp.language import (
    Aggregate,
    LinearSequenceMap,
    Map,
    Select,
    SelectorAnd,
    SelectorWidth,
    SequenceMap,
    SOp,
    fused,
    indices,
    tokens,
)
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import Distribution, sample
from weightspace.rasp.validate import Mode, NotCompilable

MODES: tuple[Mode, ...] = ("tracr_compat", "fixed")


def bare_of(program: Program, mode: Mode = "fixed", seed: int | None = 0) -> BareTransformer:
    bare = BareTransformer.of(compile_program(program, mode=mode))
    return bare if seed is None else permuted(bare, seed)


def sampled(distribution: Distribution, count: int, mode: Mode, seed: int, largest: int) -> Iterator[BareTransformer]:
    """The first programs of a distribution that are not too large, compiled and shuffled."""

    def all_of_them() -> Iterator[BareTransformer]:
        for number, program in enumerate(sample(distribution, seed)):
            try:
                made = compile_program(fused(program) if distribution == "paper" else program, mode=mode)
            except NotCompilable:
                continue
            if len(made) <= largest:
                yield permuted(BareTransformer.of(made), number)

    return islice(all_of_them(), count)


def is_lifted(bare: BareTransformer) -> bool:
    """Whether the program that is read off, once printed and read again, has these very weights."""
    return certify(Program.parse(str(lift(bare).program)), bare) is not None


def library() -> Iterator[tuple[str, BareTransformer]]:
    with np.load(golden_path("tracr_lib.npz")) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for record in golden("tracr_lib.json"):
        labels, output = record["residual_labels"], record["output_label"]
        places = [place for place, label in enumerate(labels) if label.split(":")[0] == output]
        values: Any = None
        if record["categorical_output"]:
            values = tuple(int(labels[place].split(":")[1]) for place in places)
        prefix = f"{record['id']}/"
        yield (
            record["id"],
            BareTransformer.of_params(
                {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)},
                record["vocab"],
                mode="tracr_compat",
                readout=Readout(np.eye(len(labels), dtype=np.float32)[:, places], values),
            ),
        )


# -- what real Tracr has compiled -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_golden_programs_are_read_off_tracrs_weights_whatever_their_order(step: int) -> None:
    for number, record in enumerate(golden("tracr_random.json")[::step]):
        bare = bare_of(Program.from_record(record), "tracr_compat", number)
        assert is_lifted(bare), record["id"]


def test_the_five_library_programs_are_read_off_tracrs_own_file() -> None:
    programs = {}
    for number, (name, bare) in enumerate(library()):
        assert is_lifted(bare)
        assert is_lifted(permuted(bare, number))
        programs[name] = str(lift(permuted(bare, number)).program)
    assert "Select(PRED_EQ, tokens, tokens)" in programs["hist"]
    assert "Aggregate" in programs["frac_prevs"]
    assert len(programs) == 5


# -- sampled programs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_sampled_typed_programs_are_lifted_without_a_table(mode: Mode) -> None:
    for bare in sampled("typed", 10, mode, 41, 20_000):
        assert is_lifted(bare)
        assert lift(bare).tables == 0


@pytest.mark.parametrize("mode", MODES)
def test_sampled_paper_programs_are_lifted(mode: Mode) -> None:
    assert all(is_lifted(bare) for bare in sampled("paper", 5, mode, 41, 20_000))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_of_a_thousand_typed_programs_at_least_99_in_100_are_lifted(mode: Mode) -> None:
    found = []
    for bare in sampled("typed", 1_000, mode, 777, 300_000):
        try:
            found.append(is_lifted(bare))
        except NotLiftable:
            found.append(False)
    assert np.mean(found) >= 0.99


@pytest.mark.parametrize("mode", MODES)
def test_neither_the_mode_nor_the_place_of_the_answer_has_to_be_known(mode: Mode) -> None:
    for bare in sampled("typed", 8, mode, 42, 20_000):
        assert is_lifted(replace(bare, mode=None))
        found = lift(replace(bare, readout=None))
        assert certify(found.program, replace(bare, readout=None)) is not None


def test_the_order_of_directions_units_and_heads_does_not_matter() -> None:
    for program in islice(sample("typed", 43), 4):
        bare = bare_of(program, seed=None)
        assert all(certify(lift(permuted(bare, seed)).program, bare) is not None for seed in range(3))


# -- planted answers ------------------------------------------------------------------------------------------------


def lifted(output: SOp, mode: Mode = "fixed", **settings: Any) -> str:
    program = Program.of(output, vocab=settings.get("vocab", range(4)), max_seq_len=4)
    bare = bare_of(program, mode, 3)
    assert is_lifted(bare)
    return str(lift(bare).program)


def test_what_reads_a_value_decides_which_expression_made_it() -> None:
    for source in ("x + 1", "x - 1", "x * 2"):
        found = lifted(SelectorWidth(Select(Map(source, tokens), indices, "EQ")))
        assert f"Map({source}, tokens)" in found


def test_a_function_without_a_short_expression_is_a_table_and_is_counted() -> None:
    table = Function.from_table({"a": "p", "b": "q", "c": "p", "d": "r"})
    bare = bare_of(Program.of(Map(table, tokens), vocab="abcd", max_seq_len=3))
    found = lift(bare)
    assert found.tables == 1
    assert "{'a': 'p', 'b': 'q', 'c': 'p', 'd': 'r'}" in str(found.program)
    assert is_lifted(bare)


def test_a_selector_that_is_no_comparison_is_a_table() -> None:
    selector = Select(tokens, indices, "x == 2 and y == 0 or x == y")
    assert "{(" in lifted(SelectorWidth(selector))


@pytest.mark.parametrize("mode", MODES)
def test_steps_sums_and_widths_are_read(mode: Mode) -> None:
    width = SelectorWidth(Select(tokens, tokens, "EQ"), encoding="numerical")
    share = Aggregate(
        Select(indices, indices, "LEQ"), Map("x == 1", tokens, encoding="numerical"), encoding="numerical"
    )
    total = LinearSequenceMap(width, share, 2, -3)
    text = lifted(Map("x > 0.5", total, encoding="numerical"), mode)
    assert "SelectorWidth" in text
    assert "LinearSequenceMap" in text


def test_an_s_op_that_can_be_none_is_read_past_the_directions_that_say_so() -> None:
    sometimes = Aggregate(Select(tokens, indices, "LT"), tokens)
    number = Map("x + 1", sometimes, encoding="numerical")
    other = Map("x * 2", Aggregate(Select(tokens, tokens, "GT"), tokens), encoding="numerical")
    text = lifted(Map("x + 0.5", LinearSequenceMap(number, other, 1, 2), encoding="numerical"))
    assert text.count("Aggregate") == 2


def test_a_number_that_is_always_zero_leaves_no_trace_and_is_found_all_the_same() -> None:
    flag = Map("x > 7", tokens, encoding="numerical")
    share = Aggregate(Select(tokens, tokens, "GT"), flag, encoding="numerical")
    again = Map("x", Map("x > 0.5", share, encoding="numerical"), encoding="numerical")
    late = Aggregate(Select(tokens, tokens, "LT"), again, encoding="numerical")
    bare = bare_of(Program.of(LinearSequenceMap(late, share, -1, -1), vocab=range(3), max_seq_len=5), "tracr_compat")
    assert lift(bare).guesses > 0
    assert is_lifted(bare)


def test_two_equal_operations_are_told_apart_by_what_reads_them() -> None:
    one, other = (SequenceMap("x + y % 10", tokens, indices) for _ in range(2))
    joined = SequenceMap("x and y", SequenceMap("x and y", tokens, one), SequenceMap("x - y", tokens, other))
    program = Program.of(joined, vocab=range(5), max_seq_len=5)
    assert all(is_lifted(bare_of(program, "tracr_compat", seed)) for seed in range(5))


# -- a little noise, and negative controls ----------------------------------------------------------------------------


def test_directions_that_two_operations_could_share_otherwise_are_told_apart_by_the_size_of_a_head() -> None:
    product, total = SequenceMap("x * y", tokens, indices), SequenceMap("x + y", tokens, indices)
    number = Map("x == 2", total, encoding="numerical")
    chosen = Aggregate(Select(tokens, product, "EQ"), number, encoding="numerical")
    program = Program.of(chosen, vocab=range(5), max_seq_len=5)
    # 8 and 9 of the product stand together where the sum is 6, and nothing reads any of the three
    for seed in range(20):
        assert is_lifted(bare_of(program, "tracr_compat", seed))


def noisy(bare: BareTransformer, share: float, seed: int = 0) -> BareTransformer:
    random = np.random.default_rng(seed)
    params = {
        name: (array + random.normal(0, share, array.shape) * array.std()).astype(np.float32)
        for name, array in bare.params.items()
    }
    return replace(bare, params=params)


def test_a_little_noise_is_snapped_away_and_without_that_refused() -> None:
    program = Program.of(SequenceMap("x * y", Map("x + 1", tokens), indices), vocab=range(5), max_seq_len=5)
    bare = bare_of(program)
    spoilt = noisy(bare, 0.01)
    with pytest.raises(NotLiftable):
        lift(spoilt)
    assert certify(lift(spoilt, snap=0.1).program, bare) is not None


def test_snapping_clean_weights_changes_nothing() -> None:
    for bare in sampled("typed", 10, "fixed", 44, 20_000):
        rounded = snapped(bare, 1e-7)
        for name, array in bare.params.items():
            np.testing.assert_allclose(rounded.params[name], array, rtol=1e-6, atol=1e-6)


def test_random_weights_are_never_lifted() -> None:
    random = np.random.default_rng(0)
    bare = bare_of(next(sample("typed", 45)))
    params = {name: random.normal(size=array.shape).astype(np.float32) for name, array in bare.params.items()}
    with pytest.raises(NotLiftable):
        lift(replace(bare, params=params))
    embeddings = {name: array for name, array in bare.params.items() if "embed" in name}
    with pytest.raises(NotLiftable):
        lift(replace(bare, params=params | embeddings))


def test_a_shuffled_matrix_is_refused_or_at_least_never_certified() -> None:
    random = np.random.default_rng(1)
    for bare in sampled("typed", 6, "fixed", 46, 20_000):
        names = [name for name, array in bare.params.items() if name.endswith("linear_2/w") and array.any()]
        if not names:
            continue
        array = bare.params[names[0]]
        shuffled = random.permutation(array.ravel()).reshape(array.shape)
        spoilt = replace(bare, params={**bare.params, names[0]: shuffled})
        try:
            found = lift(spoilt)
        except NotLiftable:
            continue
        if np.array_equal(shuffled, array):
            continue
        assert certify(found.program, bare) is None or certify(found.program, spoilt) is None


# -- what a person can read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "vocab", "line"),
    [
        (
            SequenceMap("x + 1 * y / 5", tokens, indices),
            (1, 2, 3, 4, 5),
            "SequenceMap(5 * (x - 1) + y, tokens, indices)",
        ),
        (Map("{0: 1, 1: 1, 2: 4, 3: 4, 4: 9}", tokens), range(5), "Map(x // 2, tokens)"),
        (Map("x not in 'ace'", tokens), "abcdef", "Map(x in 'bdf', tokens)"),
        (Map("2 <= x <= 3", tokens), range(6), "Map(2 <= x <= 3, tokens)"),
        (SequenceMap("(x, y)", tokens, indices), "abc", "SequenceMap((x, y), tokens, indices)"),
    ],
)
def test_a_table_that_is_a_short_expression_is_printed_as_one(output: SOp, vocab: Any, line: str) -> None:
    bare = replace(bare_of(Program.of(output, vocab=tuple(vocab), max_seq_len=5)), readout=None)
    found = lift(bare)
    assert found.tables == 0
    assert line in str(found.program)
    assert is_lifted(bare)


def test_a_selector_of_two_comparisons_is_printed_as_them() -> None:
    both = SelectorAnd(Select(tokens, tokens, "EQ"), Select(indices, indices, "LT"))
    text = lifted(SelectorWidth(both))
    assert "SequenceMap(4 * x + y, tokens, indices)" in text
    assert "Select(x // 4 == y // 4 and x < y, " in text


def test_a_rotation_by_a_length_is_certified_as_it_was_written() -> None:
    length = SelectorWidth(Select(tokens, tokens, "TRUE"))
    turned = SequenceMap("(x + 2) % y", indices, length)
    assert "SequenceMap((x + 2) % y, indices, " in lifted(Aggregate(Select(turned, indices, "EQ"), tokens))


# -- Tracr's values that nothing gives ------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
def test_an_s_op_with_itself_is_read_off_tracrs_weights(known: bool) -> None:
    program = Program.of(SequenceMap("x * 10 + y", tokens, tokens), vocab=(1, 2, 3), max_seq_len=4)
    bare = bare_of(program, "tracr_compat")
    if not known:
        bare = replace(bare, readout=None, mode=None)
    assert len(compile_program(program, mode="tracr_compat")) == 624
    assert is_lifted(bare)
    if known:
        assert "SequenceMap(10 * x + y, tokens, tokens)" in str(lift(bare).program)


def test_what_reads_values_that_nothing_gives_says_which_they_are() -> None:
    twice = SequenceMap("x + y", tokens, tokens)
    counted = SelectorWidth(Select(Map("x > 4", Map("x + 3", twice)), Map("x > 1", indices), "EQ"))
    text = lifted(Map("x + 1", counted), "tracr_compat")
    assert "SequenceMap(x + y, tokens, tokens)" in text
    assert "{" not in text, "no table is needed"


@pytest.mark.parametrize("mode", MODES)
def test_sums_of_fractions_that_rounding_tells_apart_are_lifted(mode: Mode) -> None:
    tenths = Map("x / 10", tokens, encoding="numerical")
    thirds = Map("x / 3", indices, encoding="numerical")
    sums = LinearSequenceMap(LinearSequenceMap(tenths, tenths, 1, 2), thirds, 1, -3)
    program = Program.of(Map("x > 0.3", sums), vocab=(0, 1, 2, 3), max_seq_len=3)
    assert is_lifted(bare_of(program, mode))


@pytest.mark.parametrize("mode", MODES)
def test_a_program_of_twenty_s_ops_whose_sums_fall_together_is_lifted(mode: Mode) -> None:
    program = next(sample("typed", 0, lengths=[20]))
    assert is_lifted(bare_of(program, mode, seed=None))


def test_operands_of_a_head_that_selects_nothing_are_such_that_tracrs_key_size_comes_out() -> None:
    """A head moves seven directions, as many as the key size, which Tracr takes from keys and queries alone."""
    program = Program.parse(
        """vocab = [0, 1, 2]
max_seq_len = 3
v1 = Map(14 == x, indices)
v2 = Select(PRED_GEQ, v1, v1)
v3 = SequenceMap(x - y, tokens, tokens)
v4 = Select(PRED_FALSE, v3, v3)
v5 = SelectorWidth(v4)
v6 = SequenceMap(x - y, v5, v5)
v7 = Aggregate(v2, v6)
return v7"""
    )
    bare = bare_of(program, "tracr_compat", 5)
    found = lift(bare)
    assert certify(found.program, bare, mode=found.mode) is not None


def test_what_is_always_one_is_a_number_where_only_that_fits() -> None:
    never = Map("x > 3", Map("x - 1", tokens), encoding="numerical")
    always = Map("not x", never, encoding="numerical")
    late = Map("x < 2", Map("not x", Map("x < 3", indices, encoding="numerical")), encoding="numerical")
    both = LinearSequenceMap(always, Map("not x", late, encoding="numerical"), 2, 1)
    program = Program.of(both, vocab=range(5), max_seq_len=5)
    for seed in range(5):
        assert is_lifted(bare_of(program, "tracr_compat", seed))
