"""Programs found from what transformers answer, and from their activations."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from weightspace.decompiler.distortion import compressed, rotated
from weightspace.decompiler.search.answers import Goal, same
from weightspace.decompiler.search.bottomup import Enumeration
from weightspace.decompiler.search.pool import InputPlaces, Pool, Recipe
from weightspace.decompiler.search.synthesis import Synthesised, match_activations, synthesise
from weightspace.errors import RaspError
from weightspace.rasp.batch import Batch, all_inputs
from weightspace.rasp.batch_interpreter import evaluate_batch
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.language import Aggregate, Expression, LinearSequenceMap, Map, Select, SelectorWidth, SequenceMap
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import sample

HEAD = "vocab = [0, 1, 2, 3, 4]\nmax_seq_len = 5\n"
REVERSED_BEFORE = """
v1 = SequenceMap(x - y, tokens, indices)
v2 = Select(PRED_LEQ, v1, tokens)
v3: numerical = Map(x > 2, tokens)
v4: numerical = Aggregate(v2, v3)
return v4
"""
FOLLOWED = """
v1 = Select(PRED_LEQ, tokens, indices)
v2: numerical = Map(x > 2, tokens)
v3: numerical = Aggregate(v1, v2)
return v3
"""
COUNTED = """
v1 = Select(PRED_EQ, tokens, tokens)
v2 = SelectorWidth(v1)
return v2
"""
WEIGHTED = """
v1: numerical = Map(x, tokens)
v2 = SequenceMap(x * y, tokens, indices)
v3: numerical = Map(x * 2, v2)
v4: numerical = LinearSequenceMap(-2, 3, v1, v3)
return v4
"""
MASKED = """
v1 = SequenceMap(x and y, tokens, indices)
v2 = SequenceMap(x + y % 10, v1, tokens)
return v2
"""


def program(text: str) -> Program:
    return Program.parse(HEAD + text.strip() + "\n")


def compiled(source: Program, mode: str = "tracr_compat") -> BareTransformer:
    return BareTransformer.of(compile_program(source, mode=mode))  # type: ignore[arg-type]


def answers_alike(found: Synthesised, wanted: BareTransformer, mode: str = "tracr_compat") -> bool:
    """Whether the program found, read again from its text and compiled, answers every input as wanted."""
    assert found.program is not None
    again = compiled(Program.parse(str(found.program)), mode)
    return bool(same(Goal.of(again).answers, Goal.of(wanted).answers).all())


@pytest.mark.parametrize("text", [FOLLOWED, COUNTED, WEIGHTED, MASKED])
def test_a_short_program_is_found_from_its_answers_alone(text: str) -> None:
    bare = compiled(program(text))
    found = synthesise(bare, 20)
    assert found.exact and found.exhaustive and found.inputs == 3905
    assert found.share == 1.0
    assert found.program is not None and len(found.program) <= len(program(text))
    assert answers_alike(found, bare)


@pytest.mark.parametrize("text", [REVERSED_BEFORE, COUNTED, WEIGHTED, MASKED])
def test_a_program_is_read_from_the_activations_of_a_rotated_stream(text: str) -> None:
    bare = compiled(program(text))
    found = match_activations(rotated(bare, 3), 20)
    assert found.exact
    assert answers_alike(found, bare)


def test_a_program_is_read_from_a_compressed_stream() -> None:
    bare = compiled(program(WEIGHTED))
    found = match_activations(compressed(bare, 0, 0.9), 20)
    assert found.exact
    assert answers_alike(found, bare)


def test_fixed_transformers_are_read_with_their_own_semantics() -> None:
    bare = compiled(program(REVERSED_BEFORE), "fixed")
    found = match_activations(bare, 20)
    assert found.exact
    assert answers_alike(found, bare, "fixed")


@pytest.mark.parametrize("find", [synthesise, match_activations])
def test_a_causal_transformer_is_read_as_one(find: Callable[..., Synthesised]) -> None:
    bare = compiled(replace(program(FOLLOWED), causal=True))
    found = find(bare, 20)
    assert found.exact and found.program is not None and found.program.causal
    assert answers_alike(found, bare)


def test_a_constant_answer_has_a_program_that_reads_tokens() -> None:
    bare = compiled(program("v1 = SequenceMap(x - y, tokens, tokens)\nv2: numerical = Map(x, v1)\nreturn v2"))
    found = synthesise(bare, 10)
    assert found.exact
    assert answers_alike(found, bare)


def test_a_transformer_that_gives_back_its_places_has_a_program() -> None:
    text = "v1 = SequenceMap(x - y, tokens, tokens)\nv2 = SequenceMap(x - y, indices, v1)\nreturn v2"
    bare = compiled(program(text))
    found = synthesise(bare, 10)
    assert found.exact and found.program is not None and len(found.program) <= 2
    assert answers_alike(found, bare)


@pytest.mark.parametrize("find", [synthesise, match_activations])
def test_random_weights_have_no_exact_program_and_the_budget_is_kept(find: Callable[..., Synthesised]) -> None:
    bare = compiled(program(WEIGHTED))
    generator = np.random.default_rng(0)
    params = {
        name: generator.normal(size=array.shape).astype(np.float32) if array.any() else array
        for name, array in bare.params.items()
    }
    random = BareTransformer.of_params(params, bare.vocab, num_heads=1, mode=bare.mode, readout=bare.readout)
    started = time.monotonic()
    found = find(random, 1.5)
    assert not found.exact
    assert found.share < 0.9
    assert time.monotonic() - started < 6  # a busy machine is slow between two looks at the clock


def test_the_same_transformer_gives_the_same_program_again() -> None:
    bare = compiled(program(COUNTED))
    first, second = (str(match_activations(bare, 20).program) for _ in range(2))
    assert first == second


def test_what_the_pool_says_is_what_compiled_transformers_answer() -> None:
    """The pool's rules for BOS, clipping and the numbers that Tracr expects, against the forward pass."""
    checked = 0
    for source in sample("typed", seed=3):
        try:
            bare = compiled(source)
        except RaspError:
            continue
        goal = Goal.of(bare)
        pool = Pool(InputPlaces.of(goal.inputs[::7], 5), True, 5)
        number = _entered(pool, source)
        given = pool.values[number]
        if not pool.numerical[number]:
            given = np.where(np.isnan(given), pool.value_set(number)[0], given)
        assert same(given, goal.answers[::7])[pool.place.real].all(), str(source)
        checked += 1
        if checked == 12:
            break


def test_in_fixed_mode_the_pool_says_what_the_interpreter_says() -> None:
    inputs = all_inputs((0, 1, 2, 3, 4), 4)
    for text in (REVERSED_BEFORE, COUNTED, WEIGHTED, MASKED):
        source = program(text)
        pool = Pool(InputPlaces.of(inputs, 5), False, 5)
        number = _entered(pool, source)
        meant = evaluate_batch(source, Batch.of(inputs, source.vocab)).numbers()
        assert same(pool.values[number][:, 1:5], meant)[pool.place.real[:, 1:5]].all()


def _entered(pool: Pool, source: Program) -> int:
    """The number of a program's output in a pool that is told its operations one by one."""
    numbers = {id(pool.node(i)): i for i in (0, 1)}
    for node in source.nodes:
        if id(node) not in numbers and not isinstance(node, Select):
            recipe, values, numerical = _made(pool, node, numbers)
            numbers[id(node)] = int(pool.add([recipe], values[None], numerical, 15)[0])
    return numbers[id(source.output)]


def _made(pool: Pool, node: Expression, numbers: dict[int, int]) -> tuple[Recipe, np.ndarray, bool]:
    """How an operation is written in a pool, what it gives, and whether that is a number."""
    match node:
        case Map():
            recipe = ("map", node.function.source, numbers[id(node.inner)], node.numerical)
            families = pool.map_all([recipe[2]])
            recipes, values, _, _ = next(family for family in families if recipe in family[0])
            return recipe, values[recipes.index(recipe)], node.numerical
        case SequenceMap():
            first, second = numbers[id(node.first)], numbers[id(node.second)]
            recipe = ("sequence_map", node.function.source, first, second)
            return recipe, next(v[0] for r, v in pool.sequence_map_all([first], [second]) if recipe in r), False
        case LinearSequenceMap():
            i, j = numbers[id(node.first)], numbers[id(node.second)]
            total = node.first_factor * pool.values[i] + node.second_factor * pool.values[j]
            return ("linear", node.first_factor, node.second_factor, i, j), total, True
    assert isinstance(node, Aggregate | SelectorWidth) and isinstance(node.selector, Select)
    key = (numbers[id(node.selector.keys)], numbers[id(node.selector.queries)], node.selector.predicate)
    recipes, chosen, bos = next(iter(pool.selections([key[0]], [key[1]])))
    place = recipes.index(key)
    if isinstance(node, SelectorWidth):
        return ("width", *key), pool.widths(chosen, bos)[place], False
    inner = numbers[id(node.sop)]
    values, whole = pool.averaged(pool.attention(chosen, bos)[place][None], inner)
    assert whole[0]
    return ("aggregate", *key, inner), values[0], node.numerical


def test_sums_that_are_looked_up_are_those_of_the_aggregates_themselves() -> None:
    """Families of Aggregates are known by a product of matrices; one by one they give the same sums."""
    pool = Pool(InputPlaces.of(all_inputs((0, 1, 2, 3, 4), 3)[::3], 5), True, 5)
    for recipes, values, numerical, kinds in pool.map_all([0, 1]):
        pool.add(recipes, values, numerical, kinds)
    anything = np.where(pool.place.real, 0.0, np.nan)
    enumeration = Enumeration(pool, anything, True, time.monotonic() + 60, lambda _: False)
    inner = pool.of_kind(2)
    held = np.stack([np.nan_to_num(pool.values[i].T).ravel() for i in inner])
    compared = 0
    for recipes, back in enumeration.selectors(0, 0):
        sums = back @ held.T
        for s in range(0, len(recipes), 5):
            for column, i in enumerate(inner):
                values = enumeration.aggregate(("aggregate", *recipes[s], i))
                assert sums[s, column] == pytest.approx(values[pool.place.real] @ enumeration.weights[:, 0], abs=1e-9)
                compared += 1
    assert compared > 500


def test_long_sums_of_one_number_are_found() -> None:
    bare = compiled(
        program("""
v1: numerical = Map(x, tokens)
v2: numerical = Map(x * 2, tokens)
v3: numerical = LinearSequenceMap(3, 1, v1, v2)
v4: numerical = LinearSequenceMap(-2, -2, v3, v2)
v5: numerical = LinearSequenceMap(-3, 3, v4, v3)
return v5
""")
    )
    found = synthesise(bare, 20)
    assert found.exact
    assert answers_alike(found, bare)


def test_answers_that_are_not_known_or_no_numbers_are_refused() -> None:
    bare = compiled(program(COUNTED))
    with pytest.raises(RaspError, match="where in the stream"):
        synthesise(BareTransformer.of_params(bare.params, bare.vocab, num_heads=1))
    words = Program.parse('vocab = ["a", "b"]\nmax_seq_len = 3\nv1 = Select(PRED_EQ, tokens, tokens)\n'
                          "v2 = Aggregate(v1, tokens)\nreturn v2\n")  # fmt: skip
    with pytest.raises(RaspError, match="'a' is not a number"):
        match_activations(compiled(words))
