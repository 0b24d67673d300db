"""Tracr's parameters out of whatever holds them, with BOS and PAD under any names; and what other files are."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import weightspace as ws
from weightspace.decompiler.decompile import decompile
from weightspace.errors import RaspError
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import TOKENS, BareTransformer
from weightspace.rasp.compiler.storage import load_bare
from weightspace.rasp.compiler.token_rows import SpecialRows, row_order
from weightspace.rasp.program import Program

HIST = Program.parse("""\
vocab = ['a', 'b', 'c']
max_seq_len = 4
same = Select(PRED_EQ, tokens, tokens)
hist = SelectorWidth(same)
return hist""")


def params_of(program: Program = HIST, bos: int = -1, pad: int = -1) -> dict[str, np.ndarray]:
    """Tracr's weights of a program, the rows of BOS and PAD where they would stand under other names."""
    bare = BareTransformer.of(compile_program(program, mode="tracr_compat"))
    params = dict(bare.params)
    if bos >= 0:
        order = row_order(bare.vocab, SpecialRows(bos, pad))
        moved = np.empty_like(params[TOKENS])
        moved[order] = params[TOKENS]
        params[TOKENS] = moved
    return params


def nested(params: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """As Haiku has them: a dictionary for each module."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, array in params.items():
        module, _, last = name.rpartition("/")
        found.setdefault(module, {})[last] = array
    return found


def is_hist(source: Any, **options: Any) -> bool:
    found = ws.decompile(source, vocab="abc", **options)
    return found.status == "certified" and "SelectorWidth" in str(found.program)


# -- BOS and PAD ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bos", "pad"), [(0, 1), (0, 4), (4, 0), (2, 1), (3, 4)])
def test_rows_of_bos_and_pad_are_told_from_the_weights(bos: int, pad: int) -> None:
    bare = BareTransformer.of_params(params_of(HIST, bos, pad), "abc")
    assert np.array_equal(bare.tokens, params_of()[TOKENS])
    assert decompile(bare, 20.0, methods=("lifter",)).status == "certified"
    said = any(f"Row {bos} of the token embedding was taken for BOS and row {pad} for PAD" in n for n in bare.notes)
    assert said == ((bos, pad) != (3, 4))


def test_without_any_head_the_rows_that_nothing_reads_are_bos_and_pad() -> None:
    program = Program.parse("vocab = ['a', 'b', 'c']\nmax_seq_len = 4\nv1 = Map(x, tokens)\nreturn v1")
    bare = BareTransformer.of_params(params_of(program, 0, 1), "abc")
    assert np.array_equal(np.sort(bare.tokens, 0), np.sort(params_of(program)[TOKENS], 0))
    assert decompile(bare, 20.0, methods=("lifter",)).status == "certified"


def test_names_may_be_given_and_have_to_go_with_the_weights() -> None:
    params = params_of(HIST, 0, 1)
    assert is_hist(params, bos="BOS", pad="PAD")
    with pytest.raises(RaspError, match=r"with BOS 'zzz' row 4 .* but the heads look to row 0"):
        ws.decompile(params, vocab="abc", bos="zzz")
    with pytest.raises(RaspError, match="'a' is a token of the vocabulary"):
        ws.decompile(params, vocab="abc", bos="a")


def test_two_rows_that_could_both_be_bos_are_refused_in_a_sentence() -> None:
    params = params_of(HIST, 0, 1)
    key = "transformer/layer_0/attn/key/w"
    changed = params[key].copy()
    looked = params[TOKENS][0] - params[TOKENS][1]  # what BOS has and PAD has not
    bos, other = int(looked.argmax()), int((params[TOKENS][1] - params[TOKENS][0]).argmax())
    changed[other] = changed[bos]
    with pytest.raises(RaspError, match="rows 0 and 1 of the token embedding could all be BOS") as error:
        ws.decompile(params | {key: changed}, vocab="abc")
    assert "\n" not in str(error.value)


# -- containers -------------------------------------------------------------------------------------------------------


def test_haikus_nested_dictionaries_are_read_in_memory_and_from_an_npz(tmp_path: Path) -> None:
    assert is_hist(nested(params_of()))
    np.savez(tmp_path / "nested.npz", **nested(params_of()))  # type: ignore[arg-type]
    assert is_hist(tmp_path / "nested.npz")


def test_a_pickle_of_dictionaries_of_arrays_is_read_and_nothing_in_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "params.pkl").write_bytes(pickle.dumps(nested(params_of())))
    assert is_hist(tmp_path / "params.pkl")

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "made").touch, ())

    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"token_embed/embeddings": Evil()}))
    with pytest.raises(RaspError, match=r"evil.pkl is refused, and nothing in it was executed"):
        load_bare(tmp_path / "evil.pkl", vocab="abc")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("inside", [False, True])
def test_pytorch_files_of_tracrs_names_are_read(tmp_path: Path, inside: bool) -> None:
    tensors: Any = {name: torch.from_numpy(array.copy()) for name, array in params_of().items()}
    torch.save({"model": tensors} if inside else tensors, tmp_path / "model.pt")
    assert is_hist(tmp_path / "model.pt")


def test_an_unembedding_beside_them_is_left_out_and_said() -> None:
    params = params_of() | {"unembed": np.ones((3, 3), np.float32)}
    found = ws.decompile(params, vocab="abc")
    assert found.status == "certified" and any("unembed was not read" in note for note in found.notes)


@dataclass
class Encoder:
    encoding_map: dict[Any, int]
    bos_token: str
    pad_token: str


@dataclass
class Config:
    num_heads: int
    causal: bool


@dataclass
class Model:
    params: Any
    model_config: Any = None
    input_encoder: Any = None


def test_a_model_that_tracr_assembled_says_its_tokens_and_its_names_itself() -> None:
    encoder = Encoder({"BOS": 0, "PAD": 1, "a": 2, "b": 3, "c": 4}, "BOS", "PAD")
    model = Model(nested(params_of(HIST, 0, 1)), Config(1, False), encoder)
    found = ws.decompile(model)
    assert found.status == "certified" and found.program is not None and found.program.vocab == ("a", "b", "c")


def test_a_model_of_another_version_that_says_less_needs_the_vocabulary() -> None:
    model = Model(params_of())
    assert is_hist(model)
    with pytest.raises(RaspError, match=r"give a vocabulary of 3 \(--vocab\)"):
        ws.decompile(model)
    with pytest.raises(RaspError, match="a Model holds no transformer: give a path"):
        ws.decompile(Model(None))


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"token_embed": {"embeddings": "text"}}, "'token_embed/embeddings' is a str"),
        ({"a": {"b": np.ones(2)}, "a/b": np.ones(2)}, "two parameters are called 'a/b'"),
        ({"token_embed": {"embeddings": object()}}, "'token_embed/embeddings' is a object"),
    ],
)
def test_dictionaries_of_other_things_are_refused_in_a_sentence(params: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RaspError, match=sentence):
        ws.decompile(params, vocab="abc")


def lens_of(params: dict[str, np.ndarray], norm: bool = False) -> dict[str, torch.Tensor]:
    """As TransformerLens' demonstration of Tracr puts it into a state dict."""
    found = {"embed.W_E": params[TOKENS], "pos_embed.W_pos": params["pos_embed/embeddings"]}
    found["unembed.W_U"] = np.ones((params[TOKENS].shape[1], 3), np.float32)
    layers = len({name.split("/")[1] for name in params if name.startswith("transformer")})
    for layer in range(layers):
        own = f"transformer/layer_{layer}/"
        for which, name in (("Q", "query"), ("K", "key"), ("V", "value")):
            found[f"blocks.{layer}.attn.W_{which}"] = params[f"{own}attn/{name}/w"][None]
            found[f"blocks.{layer}.attn.b_{which}"] = params[f"{own}attn/{name}/b"][None]
        found[f"blocks.{layer}.attn.W_O"] = params[f"{own}attn/linear/w"][None]
        found[f"blocks.{layer}.mlp.W_in"] = params[f"{own}mlp/linear_1/w"]
        found[f"blocks.{layer}.mlp.W_out"] = params[f"{own}mlp/linear_2/w"]
        if norm:
            found[f"blocks.{layer}.ln1.w"] = np.ones(3, np.float32)
    return {name: torch.from_numpy(array.copy()) for name, array in found.items()}


def test_transformer_lens_state_dict_of_a_compiled_model_is_read(tmp_path: Path) -> None:
    torch.save(lens_of(params_of()), tmp_path / "lens.pt")
    assert is_hist(tmp_path / "lens.pt")
    torch.save(lens_of(params_of(), norm=True), tmp_path / "norms.pt")
    with pytest.raises(RaspError, match=r"norms\.pt: it is a state dict of TransformerLens with layer norms"):
        load_bare(tmp_path / "norms.pt", vocab="abc")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gpt2.pt", "it is a GPT-2 of Hugging Face's, not a compiled program; `weightspace scan` reads it"),
        ("net.pt", "it is a network of PyTorch's"),
        ("list.pt", "holds no state dict but a list"),
        ("program.rasp", "the text of a RASP program, no weights: `weightspace rasp compile` reads it"),
        ("notes.txt", "is a text, no weights"),
        ("odd.npz", "it is no transformer under Tracr's names, but 'x'"),
    ],
)
def test_a_file_that_is_something_else_is_named_for_what_it_is(tmp_path: Path, name: str, sentence: str) -> None:
    torch.save({"h.0.attn.c_attn.weight": torch.zeros(2, 6), "wte.weight": torch.zeros(5, 2)}, tmp_path / "gpt2.pt")
    torch.save({"0.weight": torch.zeros(2, 2)}, tmp_path / "net.pt")
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    (tmp_path / "program.rasp").write_text(str(HIST))
    (tmp_path / "notes.txt").write_text("some notes, and more of them\n")
    np.savez(tmp_path / "odd.npz", x=np.ones((3, 3)))
    with pytest.raises(RaspError) as error:
        load_bare(tmp_path / name, vocab="abc")
    assert sentence in str(error.value) and name in str(error.value) and "\n" not in str(error.value)
