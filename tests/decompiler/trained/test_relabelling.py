"""Answers that are an S-op under other names."""

import numpy as np

from weightspace.decompiler.trained.pool import Feature
from weightspace.decompiler.trained.relabelling import as_tokens, relabelled
from weightspace.rasp.language import Map, indices, tokens

VOCAB = ("a", "b", "c", "2", "1", "<bos>")
CODES = np.array([[5, 0, 1, 2, 0], [5, 2, 1, 1, 0]] * 6, np.int16)
EVERYWHERE = np.ones(CODES.shape, np.float32)
TOKEN = Feature("token", CODES, 0, "input", lambda: tokens)
PLACE = Feature("number", np.tile(np.arange(5, dtype=np.int16), (12, 1)), 0, "input", lambda: indices)


def test_a_cipher_of_tokens_is_one_map_and_what_keeps_its_name_needs_no_entry() -> None:
    cipher = {5: 5, 0: 1, 1: 2, 2: 0}
    given = np.vectorize(cipher.get)(CODES)
    (found,) = relabelled([TOKEN], VOCAB, given, EVERYWHERE)
    assert np.array_equal(found.values, given)
    node = found.node
    assert isinstance(node, Map) and node.inner is tokens
    assert [node.function(text) for text in ("a", "b", "c", "<bos>")] == ["b", "c", "a", "<bos>"]
    assert "<bos>" not in node.function.source


def test_a_number_is_the_token_that_is_written_so_and_one_that_is_not_written_is_none() -> None:
    given = np.where(PLACE.values == 1, 4, np.where(PLACE.values == 2, 3, 0))
    (found,) = as_tokens([PLACE], VOCAB, given, EVERYWHERE)
    assert found.node is indices
    assert np.array_equal(found.values[0], [-1, 4, 3, -1, -1])
    assert as_tokens([PLACE], ("a", "b"), given, EVERYWHERE) == []


def test_a_name_is_believed_only_where_it_is_the_answer_nearly_always() -> None:
    given = np.where(CODES == 0, np.array([[0, 1, 0, 0, 2], [0, 0, 0, 0, 1]] * 6), 1)  # at `a` b, c and b
    found = relabelled([TOKEN], VOCAB, given, EVERYWHERE)
    for feature in found:
        node = feature.node
        assert isinstance(node, Map) and node.function("a") == "a"
