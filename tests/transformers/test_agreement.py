"""Random small transformers of every family answer as Hugging Face's own code does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.transformers.gguf_files import write_gguf
from tests.transformers.random_models import SMALL, random_model, saved
from weightspace.transformers.loading import load_trained
from weightspace.transformers.places import Place

CLOSE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}
TOKENS = torch.randint(0, 13, (3, 11), generator=torch.Generator().manual_seed(1))
"""The lightest input on which rotary positions, masks and heads all matter."""


def theirs(model: Any, tokens: torch.Tensor, **options: Any) -> Any:
    with torch.no_grad():
        return model(tokens, output_hidden_states=True, output_attentions=True, **options)


@pytest.mark.parametrize("name", [name for name in SMALL if name != "bert"])
def test_logits_streams_and_patterns_are_those_of_hugging_face(name: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path)
    ours = load_trained(tmp_path)
    places = ours.places("resid_pre", "pattern")
    run = ours.run(TOKENS, read=places)
    expected = theirs(model, TOKENS)
    torch.testing.assert_close(run.logits, expected.logits, **CLOSE)
    assert expected.logits.std() > 0.1  # else everything would be close
    for layer in range(ours.shape.layers):
        torch.testing.assert_close(run[Place("resid_pre", layer)], expected.hidden_states[layer], **CLOSE)
        torch.testing.assert_close(run[Place("pattern", layer)], expected.attentions[layer], **CLOSE)


def test_an_encoder_that_sees_all_is_that_of_hugging_face_with_and_without_padding(tmp_path: Path) -> None:
    model = saved("bert", tmp_path)
    ours = load_trained(tmp_path)
    last = Place("resid_post", 1)
    torch.testing.assert_close(ours.run(TOKENS, read=[last])[last], theirs(model, TOKENS).last_hidden_state, **CLOSE)
    mask = torch.arange(11)[None] < torch.tensor([11, 4, 7])[:, None]
    expected = theirs(model, TOKENS, attention_mask=mask.long()).last_hidden_state
    found = ours.run(TOKENS, read=[last], mask=mask)[last]
    torch.testing.assert_close(found[mask], expected[mask], **CLOSE)
    assert not torch.allclose(ours.run(TOKENS, read=[last])[last][mask], expected[mask], **CLOSE)
    rows = [row[:length] for row, length in zip(TOKENS.tolist(), (11, 4, 7), strict=True)]
    torch.testing.assert_close(ours.run(rows, read=[last])[last][mask], expected[mask], **CLOSE)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_mask_hides_what_hugging_face_hides(name: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path)
    mask = torch.ones(3, 11, dtype=torch.bool)
    mask[1, :4] = False
    positions = torch.arange(11).expand(3, -1)
    expected = theirs(model, TOKENS, attention_mask=mask.long(), position_ids=positions).logits
    torch.testing.assert_close(load_trained(tmp_path).run(TOKENS, mask=mask).logits[mask], expected[mask], **CLOSE)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_an_input_may_begin_at_a_later_position(name: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path)
    expected = theirs(model, TOKENS, position_ids=torch.arange(5, 16).expand(3, -1)).logits
    torch.testing.assert_close(load_trained(tmp_path).run(TOKENS, offset=5).logits, expected, **CLOSE)


def test_shards_and_pytorch_files_and_half_precision_are_read(tmp_path: Path) -> None:
    model = saved("llama", tmp_path / "sharded", max_shard_size="8KB")
    assert (tmp_path / "sharded" / "model.safetensors.index.json").is_file()
    expected = theirs(model, TOKENS).logits
    torch.testing.assert_close(load_trained(tmp_path / "sharded").run(TOKENS).logits, expected, **CLOSE)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    found = load_trained(tmp_path / "weights.pt", config=model.config.to_dict())
    torch.testing.assert_close(found.run(TOKENS).logits, expected, **CLOSE)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    widened = type(model).from_pretrained(tmp_path / "half", dtype=torch.float32, attn_implementation="eager")
    expected = theirs(widened, TOKENS).logits
    torch.testing.assert_close(load_trained(tmp_path / "half").run(TOKENS).logits, expected, **CLOSE)


def lens_names(state: dict[str, torch.Tensor], layers: int, heads: int) -> dict[str, torch.Tensor]:
    """A GPT-2's state dict as TransformerLens names and shapes it."""
    at = "transformer."
    made = {
        "embed.W_E": state[f"{at}wte.weight"],
        "pos_embed.W_pos": state[f"{at}wpe.weight"],
        "ln_final.w": state[f"{at}ln_f.weight"],
        "ln_final.b": state[f"{at}ln_f.bias"],
        "unembed.W_U": state[f"{at}wte.weight"].T,
        "unembed.b_U": torch.zeros(len(state[f"{at}wte.weight"])),
    }
    for layer in range(layers):
        old, new = f"{at}h.{layer}", f"blocks.{layer}"
        for letter, weight, bias in zip(
            "QKV",
            state[f"{old}.attn.c_attn.weight"].chunk(3, 1),
            state[f"{old}.attn.c_attn.bias"].chunk(3),
            strict=True,
        ):
            made[f"{new}.attn.W_{letter}"] = torch.stack(weight.chunk(heads, 1))
            made[f"{new}.attn.b_{letter}"] = torch.stack(bias.chunk(heads))
        made[f"{new}.attn.W_O"] = torch.stack(state[f"{old}.attn.c_proj.weight"].chunk(heads))
        made[f"{new}.attn.b_O"] = state[f"{old}.attn.c_proj.bias"]
        made[f"{new}.attn.mask"] = torch.ones(4, 4).tril().bool()
        for theirs_, ours in (("c_fc", "in"), ("c_proj", "out")):
            made[f"{new}.mlp.W_{ours}"] = state[f"{old}.mlp.{theirs_}.weight"]
            made[f"{new}.mlp.b_{ours}"] = state[f"{old}.mlp.{theirs_}.bias"]
        for number in (1, 2):
            made[f"{new}.ln{number}.w"] = state[f"{old}.ln_{number}.weight"]
            made[f"{new}.ln{number}.b"] = state[f"{old}.ln_{number}.bias"]
    return made


def test_a_transformer_lens_state_dict_is_the_model_that_it_was_made_of(tmp_path: Path) -> None:
    model = random_model("gpt2")
    arrays = lens_names(model.state_dict(), 2, 3)
    torch.save(arrays, tmp_path / "lens.pt")
    for source in (arrays, tmp_path / "lens.pt"):
        ours = load_trained(source, config={"act_fn": "gelu_new"})
        torch.testing.assert_close(ours.run(TOKENS).logits, theirs(model, TOKENS).logits, **CLOSE)


def test_transformers_4_wrote_its_rotary_settings_elsewhere(tmp_path: Path) -> None:
    model = saved("llama-linear", tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())
    parameters = said.pop("rope_parameters")
    said |= {"rope_theta": parameters["rope_theta"], "rope_scaling": {"type": "linear", "factor": 2.0}}
    (tmp_path / "config.json").write_text(json.dumps(said))
    torch.testing.assert_close(load_trained(tmp_path).run(TOKENS).logits, theirs(model, TOKENS).logits, **CLOSE)


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_the_permuted_rows_of_a_gguf_file_are_put_back(name: str, tmp_path: Path) -> None:
    model = random_model(name)
    write_gguf(model, tmp_path / "model.gguf", name)
    ours = load_trained(tmp_path / "model.gguf")
    torch.testing.assert_close(ours.run(TOKENS).logits, theirs(model, TOKENS).logits, **CLOSE)
    assert ours.vocab is not None and ours.vocab[3] == "token 3"
    q = ours.layer(0).w_q  # (heads, width, size)
    rows = model.state_dict()["model.layers.0.self_attn.q_proj.weight"]
    torch.testing.assert_close(q.permute(0, 2, 1).flatten(0, 1), rows)
