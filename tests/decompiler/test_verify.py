"""Certificates, behaviour and distance: what proves that a program is the one in the weights, and what does not."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.golden import golden, golden_path
from weightspace.decompiler.proof.verify import (
    behaviour,
    certify,
    certify_transformer,
    distance,
    permuted,
    unread_directions,
)
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.compiler.transformer import CompiledTransformer
from weightspace.rasp.language import Aggregate, Map, Select, SelectorWidth, SequenceMap, indices, tokens
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import sample
from weightspace.rasp.validate import validate


@cache
def typed(count: int, seed: int = 3) -> list[Program]:
    """Random programs that can be compiled."""
    drawn = itertools.islice(sample("typed", seed), 2 * count)
    return list(itertools.islice((program for program in drawn if not validate(program)), count))


def bare_of(program: Program) -> BareTransformer:
    return BareTransformer.of(compile_program(program))


def again(program: Program) -> Program:
    """What a person reads of it: the text, without the labels by which Tracr sorts."""
    return Program.parse(str(program))


def changed(bare: BareTransformer, change: Callable[[dict[str, np.ndarray]], None]) -> BareTransformer:
    params = {name: array.copy() for name, array in bare.params.items()}
    change(params)
    return replace(bare, params=params)


# -- certificates ---------------------------------------------------------------------------------------------------


def test_every_golden_program_is_certified_from_its_text_alone() -> None:
    archive = np.load(golden_path("tracr_random.npz"), allow_pickle=False)
    of_record: dict[str, list[str]] = {}
    for name in archive.files:
        of_record.setdefault(name.split("/")[0], []).append(name.split("/", 1)[1])
    for number, record in enumerate(golden("tracr_random.json")):
        params = {name: archive[f"{record['id']}/{name}"] for name in of_record[record["id"]]}
        bare = BareTransformer.of_params(params, record["vocab"], causal=record["causal"])
        program = again(Program.from_record(record))
        found = certify(program, permuted(bare, number), mode="tracr_compat")
        assert found is not None, record["id"]
        assert found.largest == 0 and found.parameters == record["num_params"]
        assert found.answer is None  # the weights do not say where the answer stands


def test_a_program_compiled_again_is_certified_however_its_weights_are_ordered() -> None:
    for number, program in enumerate(typed(30)):
        found = certify(again(program), permuted(bare_of(program), number))
        assert found is not None and found.largest == 0 and found.answer, program


def test_a_certificate_is_a_permutation_that_a_reader_can_apply() -> None:
    program = typed(20)[11]
    bare = permuted(bare_of(program), 5)
    found = certify(program, bare)
    assert found is not None
    candidate, c = compile_program(program).params, found.columns
    for layer in range(bare.num_layers):
        name = f"transformer/layer_{layer}"
        given = bare.params[f"{name}/attn/query/w"][np.ix_(c.directions, c.compared[layer])]
        np.testing.assert_array_equal(given, candidate[f"{name}/attn/query/w"])
        given = bare.params[f"{name}/mlp/linear_2/w"][np.ix_(c.units[layer], c.directions)]
        np.testing.assert_array_equal(given, candidate[f"{name}/mlp/linear_2/w"])
    given = bare.params["token_embed/embeddings"][:, c.directions]
    np.testing.assert_array_equal(given, candidate["token_embed/embeddings"])


def test_rounding_is_forgiven_and_reported() -> None:
    for program in typed(10):
        random = np.random.default_rng(0)

        def rounded(params: dict[str, np.ndarray], random: Any = random) -> None:
            for array in params.values():
                array *= (1 + 2e-5 * random.uniform(-1, 1, array.shape)).astype(np.float32)

        found = certify(program, changed(permuted(bare_of(program), 1), rounded))
        assert found is not None and 0 < found.relative < 5e-5
        assert certify(program, changed(bare_of(program), rounded), tolerance=1e-6) is None


def test_units_that_do_the_same_may_stand_for_one_another() -> None:
    once = Map("x % 2", tokens)
    twice = SequenceMap("x + y", Map("x % 2", tokens), Map("x % 2", tokens))
    for output in (once, twice, SequenceMap("x + y", once, Map("x % 2", indices))):
        program = Program.of(output, vocab=range(4), max_seq_len=4)
        for seed in range(5):
            found = certify(program, permuted(bare_of(program), seed))
            assert found is not None and found.largest == 0


def test_many_symmetries_at_once_are_no_obstacle() -> None:
    sames = [Map("0 if x > 1 else 1", tokens) for _ in range(6)]
    total: Any = sames[0]
    for other in sames[1:]:
        total = SequenceMap("x * y", total, other)
    program = Program.of(total, vocab=range(4), max_seq_len=3)
    assert certify(program, permuted(bare_of(program), 1)) is not None


def test_weights_without_their_mode_are_tried_both_ways() -> None:
    program = Program.of(SelectorWidth(Select(tokens, tokens, "EQ")), vocab=range(3), max_seq_len=4)
    for mode in ("fixed", "tracr_compat"):
        bare = replace(BareTransformer.of(compile_program(program, mode=mode)), mode=None)
        found = certify(program, bare)
        assert found is not None and found.mode == mode
        other = "fixed" if mode == "tracr_compat" else "tracr_compat"
        assert certify(program, bare, mode=other) is None


def test_the_answer_must_stand_where_it_is_read_and_mean_the_same() -> None:
    def program(source: str) -> Program:
        return Program.of(Map(source, tokens), vocab=range(3), max_seq_len=3)

    weights_of = permuted(bare_of(program("x + 1")), 2)
    assert certify(program("x + 1"), weights_of) is not None
    assert certify(program("x + 2"), weights_of) is None  # the same weights, other values
    candidate: CompiledTransformer = compile_program(program("x + 2"))
    found = certify_transformer(candidate, weights_of, need_answer=False)
    assert found is not None and found.answer is False and "not what is read" in found.explain()
    unread = replace(weights_of, readout=None)
    found = certify(program("x + 2"), unread)
    assert found is not None and found.answer is None


# -- negative controls ----------------------------------------------------------------------------------------------


def test_no_program_is_certified_on_the_weights_of_another() -> None:
    programs = typed(30)
    for program, other in itertools.pairwise(programs):
        assert certify(program, permuted(bare_of(other), 1)) is None


def test_random_weights_of_the_same_shapes_are_never_certified() -> None:
    for number, program in enumerate(typed(15)):
        random = np.random.default_rng(number)

        def drawn(params: dict[str, np.ndarray], random: Any = random) -> None:
            for array in params.values():
                array[:] = random.normal(size=array.shape)

        assert certify(program, changed(bare_of(program), drawn)) is None


def test_a_matrix_with_its_entries_shuffled_is_never_certified() -> None:
    for number, program in enumerate(typed(15)):
        bare = bare_of(program)
        for name, array in bare.params.items():
            if len(np.unique(array)) > 1 and array.size > 9:
                shuffled = np.random.default_rng(number).permutation(array.ravel()).reshape(array.shape)
                assert certify(program, replace(bare, params={**bare.params, name: shuffled})) is None, name


def test_one_entry_changed_by_a_hundredth_is_noticed_wherever_it_is() -> None:
    program = typed(20)[7]
    bare = bare_of(program)
    for name, array in bare.params.items():
        for place in np.flatnonzero(array)[::7]:
            moved = array.copy()
            moved.ravel()[place] *= 1.01
            assert certify(program, replace(bare, params={**bare.params, name: moved})) is None, (name, place)


def test_an_entry_or_a_bias_that_should_be_zero_is_noticed() -> None:
    program = typed(20)[3]
    bare = bare_of(program)
    for name, array in bare.params.items():
        moved = array.copy()
        zeros = np.flatnonzero(moved == 0)
        if len(zeros):
            moved.ravel()[zeros[len(zeros) // 2]] = 0.05
            assert certify(program, replace(bare, params={**bare.params, name: moved})) is None, name


def test_two_units_whose_outputs_are_swapped_are_noticed() -> None:
    program = Program.of(Map("x + 1", tokens), vocab=range(4), max_seq_len=3)
    bare = bare_of(program)
    name = "transformer/layer_0/mlp/linear_2/w"

    def swap(params: dict[str, np.ndarray]) -> None:
        params[name][[0, 1]] = params[name][[1, 0]]

    assert certify(program, changed(bare, swap)) is None


def test_swapping_two_tokens_is_no_symmetry() -> None:
    program = Program.of(Map("x == 1", tokens), vocab=range(4), max_seq_len=3)
    bare = bare_of(program)

    def swap(params: dict[str, np.ndarray]) -> None:
        params["token_embed/embeddings"][[0, 1]] = params["token_embed/embeddings"][[1, 0]]

    assert certify(program, changed(bare, swap)) is None


# -- behaviour ------------------------------------------------------------------------------------------------------


def test_permuted_weights_answer_alike_on_every_input() -> None:
    for number, program in enumerate(typed(5)):
        found = behaviour(program, permuted(bare_of(program), number))
        assert found is not None and found.equal and found.exhaustive and found.inputs == 3_905
        assert found.bound == 0 and found.counterexample is None


def test_the_counterexample_is_a_shortest_input_on_which_they_differ() -> None:
    right = Program.of(Map("x + 1", tokens), vocab=range(4), max_seq_len=4)
    wrong = Program.of(SequenceMap("x + (2 if y == 1 else 1)", tokens, indices), vocab=range(4), max_seq_len=4)
    found = behaviour(wrong, permuted(bare_of(right), 1))
    assert found is not None and not found.equal and found.counterexample is not None
    assert found.counterexample.input == (0, 0)  # at one token they agree
    assert found.counterexample.expected == (1, 1) and found.counterexample.given == (1, 2)
    assert found.differing == 4**2 + 4**3 + 4**4 and found.differing_places == found.differing


def test_a_tie_between_two_values_is_no_difference_however_it_is_rounded() -> None:
    program = Program.of(Aggregate(Select(indices, indices, "TRUE"), tokens), vocab=range(3), max_seq_len=4)

    def rounded(params: dict[str, np.ndarray]) -> None:
        for name in params:
            params[name] *= (1 + 1e-6 * np.random.default_rng(1).normal(size=params[name].shape)).astype(np.float32)

    for mode in ("fixed", "tracr_compat"):  # a mean of different tokens: 1/2 and 1/2, or 1/3 each
        bare = BareTransformer.of(compile_program(program, mode=mode))
        found = behaviour(program, changed(permuted(bare, 1), rounded))
        assert found is not None and found.equal


def test_of_many_inputs_a_sample_is_taken_and_its_bound_is_said() -> None:
    program = Program.of(Map("x + 1", tokens), vocab=range(10), max_seq_len=9)
    found = behaviour(program, bare_of(program), seed=4)
    assert found is not None and found.equal and not found.exhaustive
    assert found.tried == 20_000 and found.bound == pytest.approx(3 / 20_000)
    assert "sample of 20,000" in found.explain() and "seed 4" in found.explain()


def test_where_the_answer_stands_is_inferred_from_what_nobody_reads() -> None:
    for number, program in enumerate(typed(4)):
        bare = replace(permuted(bare_of(program), number), readout=None)
        certificate = certify(program, bare)
        by_certificate = behaviour(program, bare, certificate=certificate)
        by_itself = behaviour(program, bare)
        assert by_certificate is not None and by_certificate.equal and by_certificate.readout == "certificate"
        assert by_itself is not None and by_itself.equal and by_itself.readout == "matched"
        readout = permuted(bare_of(program), number).readout
        assert readout is not None
        assert set(readout.directions.argmax(0)) <= set(unread_directions(bare))


def test_a_wrong_program_is_not_made_right_by_matching_the_answer() -> None:
    for program, other in itertools.pairwise(typed(20)):
        bare = replace(bare_of(other), readout=None)
        found = behaviour(program, bare, most=1_000)
        assert found is not None and not found.equal


def test_a_program_that_cannot_be_compiled_has_no_behaviour() -> None:
    program = Program.of(Map("x + 'a'", tokens), vocab=("a", "b"), max_seq_len=3)
    assert behaviour(program, bare_of(typed(1)[0])) is None
    assert certify(program, bare_of(typed(1)[0])) is None
    assert distance(program, bare_of(typed(1)[0])) is None


# -- distance -------------------------------------------------------------------------------------------------------


def noisy(bare: BareTransformer, share: float, seed: int) -> BareTransformer:
    random = np.random.default_rng(seed)

    def shaken(params: dict[str, np.ndarray]) -> None:
        for array in params.values():
            array += (share * array.std() * random.normal(size=array.shape)).astype(np.float32)

    return changed(bare, shaken)


def test_the_distance_is_the_noise_for_the_right_program_and_large_for_others() -> None:
    programs = typed(7)
    near = []
    for number, (program, other) in enumerate(itertools.pairwise(programs)):
        target = noisy(permuted(bare_of(program), number), 0.03, number)
        right, wrong = distance(program, target), distance(other, target)
        assert right is not None and wrong is not None
        assert right.same_shape and wrong.balanced > 0.5
        near.append(right.balanced)
    assert max(near) < 0.035  # the noise itself is 0.03 of each matrix


def test_the_distance_names_the_matrix_that_differs() -> None:
    program = Program.of(SequenceMap("x + y", tokens, indices), vocab=range(4), max_seq_len=4)

    def spoil(params: dict[str, np.ndarray]) -> None:
        params["transformer/layer_0/mlp/linear_2/w"][0] = 0

    found = distance(program, changed(bare_of(program), spoil))
    assert found is not None
    off = {name for name, share in found.matrices if share > 1e-6}
    assert off == {"layer_0/mlp/linear_2"}


def test_transformers_of_other_shapes_have_a_distance_too() -> None:
    program, other = typed(2)
    found = distance(program, bare_of(Program.of(Map("x + 1", tokens), vocab=range(5), max_seq_len=5)))
    assert found is not None and not found.same_shape and 0.5 < found.balanced < 1.5
    assert "zeros were added" in found.explain()
    assert distance(other, bare_of(other)) is not None


def test_two_operations_that_do_the_same_are_kept_apart_by_what_reads_them() -> None:
    first, second = (SequenceMap("(x + y) % 5", indices, tokens) for _ in range(2))
    program = Program.of(SelectorWidth(Select(first, second, "EQ")), vocab=range(5), max_seq_len=4)
    found = distance(program, permuted(bare_of(program), 3))
    assert found is not None and found.balanced < 1e-6
