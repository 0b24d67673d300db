"""A small model in exactly the form in which InterpBench's are published."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.pairs.planted import PLAN, planted
from weightspace.errors import NetworkError, UnreadableError
from weightspace.pairs.correspondence import Slot
from weightspace.pairs.interpbench import load_interpbench
from weightspace.pairs.network import state_dict, transformer_of

CONFIG = {
    "n_layers": 2,
    "d_model": 16,
    "n_ctx": 5,
    "d_head": 4,
    "model_name": "custom",
    "n_heads": 2,
    "d_mlp": 16,
    "act_fn": "relu",
    "d_vocab": 5,
    "eps": 1e-5,
    "use_attn_scale": True,
    "attn_scale": 2.0,
    "normalization_type": None,
    "attention_dir": "bidirectional",
    "positional_embedding_type": "standard",
    "dtype": torch.float32,
    "device": "cpu",
    "seed": 0,
    "init_weights": True,
}
EDGES = [
    ("hook_embed", "blocks.0.hook_mlp_in"),
    ("hook_pos_embed", "blocks.0.hook_mlp_in"),
    ("blocks.0.hook_mlp_in", "blocks.0.hook_mlp_out"),
    ("blocks.0.hook_mlp_out", "blocks.1.hook_v_input[1]"),
    ("blocks.1.hook_v_input[1]", "blocks.1.attn.hook_result[1]"),
    ("blocks.1.attn.hook_result[1]", "blocks.1.hook_resid_post"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    arrays = {name: torch.from_numpy(array) for name, array in state_dict(PLAN, planted().trained.weights).items()}
    for layer in range(2):  # buffers that TransformerLens keeps beside the weights
        arrays[f"blocks.{layer}.attn.mask"] = torch.ones(5, 5, dtype=torch.bool)
        arrays[f"blocks.{layer}.attn.IGNORE"] = torch.tensor(float("-inf"))
    torch.save(arrays, tmp_path / "ll_model.pth")
    (tmp_path / "ll_model_cfg.pkl").write_bytes(pickle.dumps(CONFIG))
    (tmp_path / "edges.pkl").write_bytes(pickle.dumps(EDGES))
    (tmp_path / "meta.json").write_text(json.dumps({"epochs": 500, "lr": 0.01}))
    return tmp_path


def test_a_published_folder_gives_the_transformer_and_its_circuit(folder: Path) -> None:
    found = load_interpbench(folder)
    numbers = torch.randint(0, 5, (7, 5))
    expected = transformer_of(PLAN, planted().trained.weights).run(numbers).logits
    assert torch.allclose(found.transformer.run(numbers).logits, expected, atol=1e-6)
    assert set(found.circuit.edges) == {"input->m0", "m0->a1.h1<v>", "a1.h1->logits"}
    assert found.used == {Slot(0), Slot(1, 1)} == planted().correspondence.used
    assert found.meta["epochs"] == 500


@pytest.fixture
def config_class() -> Iterator[type]:
    """A class of TransformerLens's name, which is there where the pickle is written and not where it is read."""
    module = ModuleType("transformer_lens.HookedTransformerConfig")
    made = type("HookedTransformerConfig", (), {"__module__": module.__name__})
    setattr(module, "HookedTransformerConfig", made)  # noqa: B010 (a module takes any name)
    sys.modules["transformer_lens"], sys.modules[module.__name__] = ModuleType("transformer_lens"), module
    yield made
    del sys.modules["transformer_lens"], sys.modules[module.__name__]


def test_settings_that_are_an_object_are_read_without_making_it(folder: Path, config_class: type) -> None:
    settings = config_class()
    settings.__dict__ |= CONFIG
    (folder / "ll_model_cfg.pkl").write_bytes(pickle.dumps(settings))
    assert load_interpbench(folder).transformer.shape.activation == "relu"


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("executed",))


def test_nothing_in_a_pickle_is_executed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "edges.pkl").write_bytes(pickle.dumps([Malicious()]))
    with pytest.raises(UnreadableError, match="holds no circuit"):
        load_interpbench(folder)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["ll_model.pth", "ll_model_cfg.pkl", "edges.pkl"])
def test_a_file_that_is_missing_or_torn_is_named(folder: Path, name: str) -> None:
    raw = (folder / name).read_bytes()
    (folder / name).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(UnreadableError, match=name):
        load_interpbench(folder)
    (folder / name).unlink()
    with pytest.raises(UnreadableError, match=f"holds no {name}"):
        load_interpbench(folder)


@pytest.mark.parametrize(
    ("edge", "said"),
    [
        (("blocks.0.hook_mlp_out", "blocks.7.hook_v_input[1]"), "there is no edge"),
        (("blocks.1.attn.hook_result[1]", "blocks.0.hook_mlp_in"), "reads before"),
        (("here", "there"), "which is not known"),
    ],
)
def test_an_edge_that_is_not_there_is_refused(folder: Path, edge: tuple[str, str], said: str) -> None:
    (folder / "edges.pkl").write_bytes(pickle.dumps([*EDGES, edge]))
    with pytest.raises(NetworkError, match=said):
        load_interpbench(folder)
