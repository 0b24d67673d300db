"""Every S-op of a pool is on the strings what its expression means, alone and joined to others."""

from __future__ import annotations

import numpy as np
import pytest

from weightspace.decompiler.trained.asked import Strings
from weightspace.decompiler.trained.fusing import fused
from weightspace.decompiler.trained.grammar import Grammar
from weightspace.decompiler.trained.naming import named
from weightspace.decompiler.trained.pool import Feature
from weightspace.decompiler.trained.token_operators import NOTHING
from weightspace.decompiler.trained.trees import Leaf, Split
from weightspace.rasp.batch import Batch, BatchValues
from weightspace.rasp.batch_interpreter import evaluate_batch
from weightspace.rasp.language import SOp
from weightspace.rasp.program import Program

LETTERS = ("a", "b", "<bos>", "<sep>", "<eos>", "<pad>")
NUMBERS = ("0", "1", "2", "3", "<bos>", "<sep>", "<eos>", "<pad>")


def strings_of(vocab: tuple[str, ...], letters: int, seed: int) -> Strings:
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(12):
        question = generator.integers(0, letters, int(generator.integers(1, 6))).tolist()
        answer = generator.integers(0, letters, int(generator.integers(0, 4))).tolist()
        rows.append([vocab.index("<bos>"), *question, vocab.index("<sep>"), *answer])
    return Strings.of(rows)


def evaluated(sop: SOp, grammar: Grammar) -> BatchValues:
    codes = grammar.strings.codes.astype(np.int32)
    batch = Batch(codes, grammar.strings.lengths.astype(np.int64), grammar.values)
    return evaluate_batch(Program.of(sop, causal=True), batch)


def as_numbers(feature: Feature, found: BatchValues, grammar: Grammar) -> np.ndarray:
    """Values as a feature has them."""
    table: list[int] = []
    for value in found.values:
        if feature.sort == "token":
            table.append(
                -1 if value in (NOTHING, -1) else grammar.values.index(value) if value in grammar.values else -1
            )
        else:
            assert isinstance(value, int | float)
            table.append(int(value))
    return np.array([*table, 0])[found.codes]


@pytest.fixture(scope="module", params=["sets of letters", "answers of numbers"])
def grammar(request: pytest.FixtureRequest) -> Grammar:
    if request.param == "sets of letters":
        made = Grammar(strings_of(LETTERS, 2, 1), LETTERS, "sets", (0, 1), largest=5, quota=25)
    else:
        made = Grammar(strings_of(NUMBERS, 4, 2), NUMBERS, "answers", (0, 1, 2, 3), largest=4, quota=25)
    made.fill()
    return made


def test_features_are_what_their_expressions_mean(grammar: Grammar) -> None:
    operators = set()
    for sort, features in grammar.pool.features.items():
        for feature in features[:: 1 if sort == "token" else 5]:
            operators.add(feature.operator)
            given = as_numbers(feature, evaluated(feature.node, grammar), grammar)
            where = grammar.real
            wanted = feature.values.astype(np.int64)
            if sort == "token":  # the numbers of tokens beyond the vocabulary are no tokens
                wanted = np.where(wanted < 0, -1, wanted)
            assert (given[where] == wanted[where]).all(), f"{feature.operator}: {named(feature.node)}"
    assert len(operators) > 10


def test_fusing_changes_no_value(grammar: Grammar) -> None:
    for feature in grammar.pool.features["bool"][::6]:
        plain, joined = evaluated(feature.node, grammar), evaluated(fused(feature.node), grammar)
        truth = [np.array([*map(bool, each.values), False])[each.codes] for each in (plain, joined)]
        assert (truth[0] == truth[1]).all(), str(named(feature.node))


def test_trees_are_what_their_expressions_mean(grammar: Grammar) -> None:
    booleans = grammar.pool.features["bool"]
    generator = np.random.default_rng(0)
    for _ in range(15):
        a, b, c = (booleans[int(i)] for i in generator.integers(0, len(booleans), 3))
        constant = Leaf(None, 1, shown=True)
        for tree in (Split(a, Leaf(b), Leaf(c, holds=False)), Split(a, constant, Leaf(b)), Split(a, Leaf(c), constant)):
            found = evaluated(tree.node(), grammar)
            truth = np.array([*map(bool, found.values), False])[found.codes]
            assert (truth[grammar.real] == (tree.values() != 0)[grammar.real]).all()
