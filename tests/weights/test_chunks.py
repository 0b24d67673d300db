"""Tokens: cutting flat weights and putting them together again."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightspace.weights.chunks import chunk, leaf_composition, token_count, unchunk
from weightspace.weights.spec import Leaf, NetworkSpec, plain


@given(n=st.integers(1, 5000), size=st.integers(8, 1024))
def test_unchunk_undoes_chunk_exactly(n: int, size: int) -> None:
    weights = torch.randn(2, n)
    tokens, mask = chunk(weights, size)
    assert tokens.shape == (2, token_count(n, size), size)
    assert int(mask.sum()) == n
    assert torch.equal(unchunk(tokens, mask), weights)
    assert tokens[:, ~mask].abs().sum() == 0


def test_weights_of_any_scale_come_back_bit_for_bit() -> None:
    weights = torch.tensor([1e-38, -3e38, 0.0, -0.0, 1e-45, float("inf")])
    assert unchunk(*chunk(weights, 8)).view(torch.int32).equal(weights.view(torch.int32))


@pytest.mark.parametrize("size", [0, 7, 1025])
def test_a_chunk_outside_the_papers_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="choose from 8 to 1024"):
        chunk(torch.ones(10), size)


def test_an_empty_network_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        chunk(torch.ones(0), 8)


def test_the_composition_says_from_which_leaf_a_token_comes() -> None:
    spec = NetworkSpec((Leaf("a", (6,), "other", (plain(6),)), Leaf("b", (6,), "other", (plain(6),))))
    expected = torch.tensor([[6 / 8, 2 / 8], [0.0, 1.0]])
    assert torch.allclose(leaf_composition(spec, 8), expected)
