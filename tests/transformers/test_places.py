"""Every named place can be read and replaced: by itself nothing changes, by something else the answers do."""

from __future__ import annotations

import pytest
import torch

import weightspace as ws
from tests.transformers.hand_made import GPT2, LLAMA, gpt2_arrays, llama_arrays
from weightspace.transformers.loading import load_trained
from weightspace.transformers.places import HEAD_AXIS, KINDS, Place
from weightspace.transformers.trained import TrainedTransformer

TOKENS = torch.tensor([[0, 3, 5, 1, 1], [6, 2, 4, 0, 3]])


def gpt2() -> TrainedTransformer:
    return load_trained(gpt2_arrays(GPT2), config=GPT2)


def llama() -> TrainedTransformer:
    return load_trained(llama_arrays(LLAMA), config=LLAMA)


def kinds_of(transformer: TrainedTransformer) -> list[str]:
    """The kinds of places that it has."""
    found = []
    for kind in KINDS:
        try:
            transformer.places(kind)  # type: ignore[arg-type]
        except ws.WeightspaceError:
            continue
        found.append(kind)
    return found


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize("heads", [False, True])
def test_a_place_replaced_by_its_own_value_changes_nothing_and_by_another_something(make: object, heads: bool) -> None:
    transformer = make()  # type: ignore[operator]
    plain = transformer.run(TOKENS).logits
    seen = 0
    for kind in kinds_of(transformer):
        if heads and kind not in HEAD_AXIS:
            continue
        for place in transformer.places(kind, heads=heads)[-1:]:
            run = transformer.run(TOKENS, read=[place])
            assert torch.allclose(run.logits, plain, atol=1e-5), place
            own = transformer.run(TOKENS, replace={place: run[place]}).logits
            assert torch.allclose(own, plain, atol=1e-5), place
            # another stream for one query's scores alone would be the same softmax: so not a constant
            other = run[place] * torch.linspace(0.3, 2, run[place].shape[-1]) + 0.1
            changed = transformer.run(TOKENS, replace={place: other}).logits
            assert not torch.allclose(changed, plain, atol=1e-3), place
            seen += 1
    assert seen >= (10 if heads else 24)


def test_heads_and_biases_add_up_to_what_attention_adds() -> None:
    transformer = gpt2()
    result, out, z = Place("result", 1), Place("attn_out", 1), Place("z", 1)
    run = transformer.run(TOKENS, read=[result, out, z, Place("resid_pre", 1), Place("resid_mid", 1)])
    weights = transformer.layer(1)
    assert weights.b_o is not None
    torch.testing.assert_close(run[result].sum(2) + weights.b_o, run[out])
    torch.testing.assert_close(torch.einsum("bphs,hsw->bphw", run[z], weights.w_o), run[result])
    torch.testing.assert_close(run[Place("resid_pre", 1)] + run[out], run[Place("resid_mid", 1)])


def test_what_a_single_head_reads_can_be_changed_for_it_alone() -> None:
    transformer = llama()
    q, k = (transformer.places(kind)[0] for kind in ("q", "k"))
    plain = transformer.run(TOKENS, read=[q, k])
    changed = transformer.run(TOKENS, read=[q, k], replace={Place("q_input", 0, 2): torch.zeros(8)})
    differs = (changed[q] - plain[q]).abs().amax((0, 1, 3)) > 1e-5
    assert differs.tolist() == [False, False, True, False]
    torch.testing.assert_close(changed[k], plain[k])


def test_with_the_scales_of_its_norms_frozen_a_transformer_without_attention_patterns_is_linear() -> None:
    config = GPT2 | {"activation_function": "relu"}
    transformer = load_trained(gpt2_arrays(config), config=config)
    held = transformer.norm_scales(TOKENS)
    read = [*transformer.places("pattern"), Place("embed")]
    base = transformer.run(TOKENS, read=read)
    frozen = held | {place: base[place] for place in transformer.places("pattern")}
    frozen |= {place: torch.zeros(1) for place in transformer.places("mlp_out")}

    def answers(embedded: torch.Tensor, replaced: dict[Place, torch.Tensor]) -> torch.Tensor:
        return transformer.run(TOKENS, replace=replaced | {Place("embed"): embedded}).logits

    step = torch.randn(base[Place("embed")].shape, generator=torch.Generator().manual_seed(0))
    start, one, two = (answers(base[Place("embed")] + times * step, frozen) for times in (0, 1, 2))
    torch.testing.assert_close(two - one, one - start, atol=1e-4, rtol=1e-4)
    start, one, two = (answers(base[Place("embed")] + times * step, {}) for times in (0, 1, 2))
    assert not torch.allclose(two - one, one - start, atol=1e-2)


def test_gradients_reach_a_place_only_where_they_are_asked_for() -> None:
    transformer = gpt2()
    embedded = transformer.run(TOKENS, read=[Place("embed")])[Place("embed")].requires_grad_()
    run = transformer.run(TOKENS, replace={Place("embed"): embedded}, gradients=True)
    run.logits[:, -1].sum().backward()
    assert embedded.grad is not None and embedded.grad.abs().sum() > 0
    assert not transformer.run(TOKENS, replace={Place("embed"): embedded}).logits.requires_grad


def test_shorter_inputs_are_filled_up_and_answer_as_alone() -> None:
    transformer = load_trained(gpt2_arrays(GPT2), config=GPT2, vocab=list("abcdefg"))
    run = transformer.run([list("abg"), list("cdefa")])
    assert run.mask.tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    torch.testing.assert_close(run.logits[:1, :3], transformer.run([[0, 1, 6]]).logits)
    torch.testing.assert_close(transformer.logits([list("abg"), list("cdefa")], batch_size=1), run.logits)


def test_a_pass_ends_behind_the_last_place_that_is_read() -> None:
    transformer = gpt2()
    place = Place("post", 0)
    transformer.run(TOKENS, read=[place], logits=False)
    assert transformer.loaded_layers == (0,)
    transformer.run(TOKENS)
    assert transformer.loaded_layers == (0, 1, 2)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (("streem", 0), "known are embed"),
        (("z",), "needs a layer"),
        (("logits", 0), "has no layer"),
        (("mlp_out", 0, 0), "has no heads"),
        (("z", 3), "has 3 layers"),
        (("z", 0, 2), "has 2 of these heads"),
        (("gate", 0), "no gates"),
        (("rot_q", 0), "no rotary"),
    ],
)
def test_a_place_that_is_not_there_is_one_sentence(place: tuple[object, ...], said: str) -> None:
    with pytest.raises(ws.WeightspaceError, match=said):
        gpt2().run(TOKENS, read=[_unchecked(*place)])


def _unchecked(kind: object, layer: object = None, head: object = None) -> Place:
    """A place with whatever kind, past the checks of types that tests have."""
    made = object.__new__(Place)
    for name, value in (("kind", kind), ("layer", layer), ("head", head)):
        object.__setattr__(made, name, value)
    made.__post_init__()
    return made


def test_a_value_of_another_shape_and_a_place_that_was_not_read_are_said() -> None:
    with pytest.raises(ws.WeightspaceError, match=r"expected \(2, 5, 2, 4\)"):
        gpt2().run(TOKENS, replace={Place("z", 0): torch.zeros(3)})
    with pytest.raises(ws.WeightspaceError, match="was not read"):
        gpt2().run(TOKENS)[Place("z", 0)]
