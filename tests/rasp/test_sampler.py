"""The samplers: reproducible, of the published make-up, and never something that the language does not know."""

import itertools
from collections import Counter
from random import Random

import numpy as np
import pytest

from tests.golden import golden
from weightspace.errors import RaspError
from weightspace.rasp import sampler
from weightspace.rasp.batch import Batch
from weightspace.rasp.batch_interpreter import evaluate_batch
from weightspace.rasp.interpreter import evaluate
from weightspace.rasp.language import (
    Aggregate,
    LinearSequenceMap,
    Map,
    Select,
    SelectorWidth,
    SequenceMap,
    SOp,
    fused,
    tokens,
)
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import DISTRIBUTIONS, MAPS, Distribution, attempts, choose, sample
from weightspace.rasp.validate import validate


def drawn(distribution: Distribution, count: int, seed: int = 0, lengths: tuple[int, ...] = ()) -> list[Program]:
    return list(itertools.islice(sample(distribution, seed, lengths), count))


def sops(program: Program) -> int:
    return sum(isinstance(node, SOp) for node in program.nodes)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_same_seed_gives_the_same_programs_and_another_seed_others(distribution: Distribution) -> None:
    first = [str(program) for program in drawn(distribution, 30, seed=3)]
    sampler._sampler.cache_clear()  # what a sampler knows from before must not matter
    assert [str(program) for program in drawn(distribution, 30, seed=3)] == first
    assert [str(program) for program in drawn(distribution, 30, seed=4)] != first


def test_forgetting_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [str(program) for program in drawn("typed", 60, seed=5)]
    sampler._sampler.cache_clear()
    monkeypatch.setattr(sampler.TypedSampler, "MOST_KNOWN", 50)
    assert [str(program) for program in drawn("typed", 60, seed=5)] == before
    sampler._sampler.cache_clear()


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_programs_can_be_printed_and_parsed(distribution: Distribution) -> None:
    for program in drawn(distribution, 100):
        assert str(Program.parse(str(program))) == str(program)


def test_typed_programs_are_valid_and_as_long_as_wanted() -> None:
    for program in drawn("typed", 150):
        assert validate(program) == [] or all("too near" in reason.text for reason in validate(program))
        assert 4 <= sops(program) <= 8
    assert {sops(program) for program in drawn("typed", 30, lengths=(6,))} == {6}


def test_typed_programs_are_made_of_the_published_parts() -> None:
    functions = {source for sources in MAPS.values() for source in sources}
    for program in drawn("typed", 200):
        for node in program.nodes:
            if isinstance(node, Map):
                assert node.function.source in functions
            elif isinstance(node, LinearSequenceMap):
                assert {node.first_factor, node.second_factor} <= {-3, -2, -1, 1, 2, 3}
                assert node.first is not node.second
            elif isinstance(node, Select):
                assert node.predicate in ("EQ", "TRUE", "GEQ", "GT", "LEQ", "LT", "NEQ")
            elif isinstance(node, SequenceMap):
                assert node.first is not node.second


def test_the_sampler_sees_what_the_interpreter_sees() -> None:
    draw = sampler.TypedSampler((8,))
    random = Random(1)
    for _ in range(40):
        try:
            program = draw(random)
        except sampler.Rejected:
            continue
        known = next(k for k in draw.known.values() if k.node is program.output)
        for part in (0, 1):
            for row, values in zip(draw.inputs[part], known.values(part), strict=True):
                inputs = [int(value) for value in row[~np.isnan(row)]]
                meant = evaluate(program, inputs)
                found = [None if np.isnan(value) else value for value in values[: len(inputs)]]
                assert all(a == b or (a and b and abs(a - b) < 1e-12) for a, b in zip(meant, found, strict=True))


def test_a_program_that_is_nearly_constant_or_mostly_none_is_rejected() -> None:
    reasons = Counter(text for text in itertools.islice(attempts("typed", 0), 800) if isinstance(text, str))
    assert {"it is constant, or nearly", "it is None too often"} <= reasons.keys()
    every = Batch.every((0, 1, 2, 3, 4), 5)
    for program in drawn("typed", 60):
        longest = evaluate_batch(program, every).codes[-(5**5) :]
        assert len(np.unique(longest, axis=0)) > 1


def test_paper_programs_have_three_to_fifteen_instructions_and_long_ones_are_likelier() -> None:
    lengths = Counter(len(program) for program in drawn("paper", 400))
    assert min(lengths) >= 3
    assert max(lengths) <= 15
    assert sum(lengths[n] for n in range(10, 16)) > sum(lengths[n] for n in range(3, 9))


def test_paper_programs_are_made_of_the_published_parts() -> None:
    kinds: Counter[type] = Counter()
    for program in drawn("paper", 300):
        assert program.vocab is not None
        assert program.max_seq_len is not None
        assert 3 <= len(program.vocab) <= 15
        assert 3 <= program.max_seq_len <= 15
        assert any(node is tokens for node in program.nodes)
        for node in program.nodes:
            kinds[type(node)] += 1
            assert not (isinstance(node, SOp) and node.numerical)
    assert kinds[Map] > kinds[Select] > kinds[Aggregate] > 0
    assert kinds[SequenceMap] > 0
    assert kinds[SelectorWidth] > 0


def test_fused_programs_mean_the_same_and_hold_no_map_of_a_map() -> None:
    shorter = 0
    for program in drawn("paper", 100):
        one = fused(program)
        shorter += len(one) < len(program)
        assert not any(isinstance(node, Map) and isinstance(node.inner, Map) for node in one.nodes)
        assert program.vocab is not None
        inputs = [program.vocab[i % len(program.vocab)] for i in range(3)]
        try:
            meant = evaluate(program, inputs)
        except RaspError:
            continue
        assert evaluate(one, inputs) == meant
    assert shorter > 10


def kinds_of(programs: list[Program]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for program in programs:
        for node in program.nodes:
            if isinstance(node, Aggregate):
                counts[f"{node.encoding} Aggregate"] += 1
            elif isinstance(node, Map | SequenceMap | LinearSequenceMap | SelectorWidth):
                counts[type(node).__name__] += 1
    return counts


def test_operations_are_as_frequent_as_in_the_published_samplers_programs() -> None:
    published = [Program.from_record(record) for record in golden("tracr_random.json")]
    wanted, found = kinds_of(published), Counter[str]()
    for length, number in Counter(sops(program) for program in published).items():
        found += kinds_of(drawn("typed", 8 * number, lengths=(length,)))
    expected = np.array([found[kind] / 8 for kind in wanted])
    observed = np.array([wanted[kind] for kind in wanted])
    # chi-square of 5 degrees of freedom; 15.1 is passed by chance once in a hundred
    assert ((observed - expected) ** 2 / expected).sum() < 15.1
    assert expected.sum() == pytest.approx(observed.sum(), rel=0.02)


def test_tokens_are_three_times_as_likely_as_other_arguments() -> None:
    one = sampler.TypedSampler((5,))
    eligible = [one.roots[0], one.roots[1], sampler.Known(Map("x", tokens), "categorical", (), lambda _: one.inputs[0])]
    random = Random(0)
    counts = Counter(id(one._draw(random, eligible)) for _ in range(5_000))
    assert counts[id(eligible[0])] == pytest.approx(3_000, abs=150)


def test_choices_follow_their_weights() -> None:
    random = Random(0)
    counts = Counter(choose(random, "abc", [1, 2, 1]) for _ in range(8_000))
    assert counts["b"] == pytest.approx(4_000, abs=200)
    assert counts["a"] == pytest.approx(2_000, abs=200)


def test_an_unknown_distribution_or_length_is_refused() -> None:
    with pytest.raises(RaspError, match="lengths of typed are 2 to 20, not 99"):
        next(sample("typed", 0, (99,)))
    with pytest.raises(RaspError, match="lengths of paper are 3 to 15, not 2"):
        next(sample("paper", 0, (2,)))


def test_numerical_aggregates_average_flags_only() -> None:
    for program in drawn("typed", 200):
        for node in program.nodes:
            if isinstance(node, Aggregate) and node.numerical:
                values = {
                    value for inputs in ((0, 1, 2), (4, 4), (3,)) for value in evaluate(Program.of(node.sop), inputs)
                }
                assert values <= {0, 1, None}
