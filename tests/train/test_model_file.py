"""Files of trained models: one form for all kinds, and one sentence for whatever is none of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import weightspace as ws
from weightspace.decompiler.network.proposer import Proposer
from weightspace.decompiler.paper.flat_decoder import FlatDecoder
from weightspace.files.tensors import METADATA_KEY
from weightspace.train.model_file import read_model, write_model

LOADERS = {"meta-model": ws.MetaModel.load, "decompiler": Proposer.load, "flat decoder": FlatDecoder.load}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_model(tmp_path / "a.safetensors", "toy", {"w": torch.arange(3.0)}, {"config": {"n": 1}, "facts": {}})
    tensors, record = read_model(tmp_path / "a.safetensors", "toy", "make toys")
    assert torch.equal(tensors["w"], torch.arange(3.0))
    assert (record["kind"], record["config"]) == ("toy", {"n": 1})


@pytest.mark.parametrize("kind", LOADERS)
def test_a_file_of_another_kind_is_refused_by_its_kind(kind: str, tmp_path: Path) -> None:
    write_model(tmp_path / "a.safetensors", "toy", {"w": torch.zeros(1)}, {"facts": {}})
    with pytest.raises(ws.NetworkError, match=f"is no {kind} but a toy: name"):
        LOADERS[kind](tmp_path / "a.safetensors")


@pytest.mark.parametrize("kind", LOADERS)
def test_a_file_of_a_later_format_is_refused_by_its_format(kind: str, tmp_path: Path) -> None:
    record = json.dumps({"format": 99, "kind": kind, "facts": {}})
    save_file({"w": np.zeros(1, np.float32)}, tmp_path / "a.safetensors", {METADATA_KEY: record})
    with pytest.raises(ws.NetworkError, match=r"format 99, this weightspace reads format 1: install"):
        LOADERS[kind](tmp_path / "a.safetensors")


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("record", ["[]", "7", "{", '{"facts": []}', '{"facts": {}, "format": 1}', '{"kind": 5}'])
def test_a_record_that_is_none_is_one_sentence(kind: str, record: str, tmp_path: Path) -> None:
    save_file({"w": np.zeros(1, np.float32)}, tmp_path / "a.safetensors", {METADATA_KEY: record})
    with pytest.raises(ws.NetworkError) as refused:
        LOADERS[kind](tmp_path / "a.safetensors")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", LOADERS)
def test_what_is_missing_or_torn_or_a_network_is_one_sentence(kind: str, tmp_path: Path) -> None:
    (tmp_path / "torn.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{")
    for path in (tmp_path / "none", tmp_path / "torn.safetensors", ws.EXAMPLES / "example-clean.safetensors"):
        with pytest.raises(ws.NetworkError) as refused:
            LOADERS[kind](path)
        assert "\n" not in str(refused.value)
