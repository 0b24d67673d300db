"""Networks run as a stack answer as they do one by one."""

import numpy as np
import pytest
import torch

from weightspace.provenance.stacked import stacked_answers
from weightspace.zoo.networks import answers, architecture_of, build, named_arrays, spec_of


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("pooled-cnn", {}),
        ("pooled-cnn", {"norm": True, "residual": True, "activation": "gelu"}),
        ("small-mlp", {}),
        ("digits-cnn", {}),
        ("cnn-s", {"dropout": 0.5}),
        ("varied-cnn", {"norm": "batch", "residual": True, "head": "flatten", "pooling": "average"}),
        ("varied-cnn", {"norm": "layer", "head": "max"}),  # not stacked, but answered
    ],
)
def test_a_stack_answers_as_its_networks_do(family: str, options: dict[str, object]) -> None:
    architecture = architecture_of(family, (1, 28, 28), **options)
    spec, module = spec_of(architecture), build(architecture).eval()
    weights = torch.randn(3, spec.size, generator=torch.Generator().manual_seed(0)) * 0.3
    for leaf, place in spec.slices():
        if leaf.role == "running_variance":
            weights[:, place] = weights[:, place].abs() + 0.5
    x = torch.randn(5, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    arrays = named_arrays(spec, weights)
    with torch.no_grad():
        found = stacked_answers(module, arrays, x)
        wanted = answers(module, arrays, x)
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
        assert not np.allclose(stacked_answers(module, arrays, x.flip(3)), wanted, rtol=1e-3, atol=1e-4)
