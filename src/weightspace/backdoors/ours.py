"""Files of weightspace itself in a folder that is scanned: what each says it is, held against the arrays it holds.

Whoever makes a file can write into it that it is one of these. So what it says counts only if its arrays have the
names that such a file has, under which no other loader looks for a network, and only if the detector does not know it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from weightspace.errors import WeightspaceError
from weightspace.files.checkpoints import Outline
from weightspace.files.tensors import METADATA_KEY
from weightspace.zoo.store import DESCRIPTION, INDEX, MANIFEST, SHARDS, read_description

MODELS: Mapping[str, tuple[str, str]] = {
    "meta-model": ("meta-models", "embedding first encoder shortcut thresholds head second"),
    "decompiler": ("decompilers", "reader tokens fields slots names values layers norm out"),
    "flat decoder": ("decompilers", "chunk kind layer place fields line layers norm heads"),
    "general detector": ("detectors of backdoors", "all fit near"),
    "provenance-reader": ("readers of provenance", "fit typicality"),
}
"""Kinds of trained models by what their files say: how several are called, and the parts whose arrays they hold."""
_NEEDED: Mapping[str, str] = {
    "meta-model": "encoder",
    "decompiler": "reader",
    "flat decoder": "line",
    "general detector": "fit",
    "provenance-reader": "typicality",
}
_HEADS = {"deviation", "known.models", "known.rows", "known.scores", "mean", "weights"}
"""The arrays of a reader of attention heads."""
_SIGNATURE = re.compile(r"[0-9a-f]{12}")
_TRACR = re.compile(
    r"(token_embed|pos_embed)/embeddings|transformer/layer_\d+/(attn/(query|key|value|linear)|mlp/linear_[12])/[wb]"
)


def ours(found: Outline) -> str | None:
    """What a file of weightspace is, in the plural (zoo shards, meta-models), or None of any other."""
    names = list(found.shapes)
    if names and all(_TRACR.fullmatch(name) for name in names):
        return "programs as transformers"
    if f"{METADATA_KEY} head reader" in found.metadata and set(names) == _HEADS:
        return "readers of attention heads"
    try:
        record = json.loads(found.metadata[METADATA_KEY])
    except (KeyError, ValueError, RecursionError):
        return None
    if not names or not isinstance(record, dict):
        return None
    if isinstance(record.get("specs"), dict) and {"rows", "checksum", "format"} <= record.keys():
        return "zoo shards" if _is_shard(found, record["specs"]) else None
    if "facts" in record and ("config" in record or record.get("kind") in MODELS):
        kind = record.get("kind", "meta-model")
        return _model(kind, names) if isinstance(kind, str) else None
    if {"step", "finished", "history", "config"} <= record.keys():
        own = all(name.startswith(("model/", "best/", "optimiser/")) for name in names)
        return "checkpoints of a meta-model's training" if own else None
    return None


def _is_shard(found: Outline, specs: Mapping[str, Any]) -> bool:
    """Whether each array is a matrix, named by the signature of a spec, a network of that spec a row."""
    for name, shape in found.shapes.items():
        try:
            size = sum(prod(int(n) for n in leaf["shape"]) for leaf in specs[name]["leaves"])
        except (KeyError, TypeError, ValueError):
            return False
        if not _SIGNATURE.fullmatch(name) or len(shape) != 2 or shape[1] != size or found.dtypes[name] != "F32":
            return False
    return True


def _model(kind: str, names: list[str]) -> str | None:
    if kind not in MODELS:
        return None
    called, parts = MODELS[kind]
    held = {re.split(r"\d*[./]", name, maxsplit=1)[0] for name in names}
    return called if held <= set(parts.split()) and _NEEDED[kind] in held else None


def of_a_zoo(path: Path) -> bool:
    """Whether a file that is no checkpoint is part of a zoo: description, index, manifest, lock, Parquet shard."""
    if path.name in (DESCRIPTION, INDEX, MANIFEST, ".lock"):
        folder = path.parent
    elif path.parent.name == SHARDS and path.suffix == ".parquet":
        folder = path.parent.parent
    else:
        return False
    try:
        read_description(folder)
    except (WeightspaceError, OSError):
        return False
    return True
