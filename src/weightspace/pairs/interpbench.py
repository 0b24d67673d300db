"""Models of InterpBench (Gupta et al., 2024) in their published folders: weights, settings and the circuit.

A folder holds `ll_model.pth` (a state dict of TransformerLens), `ll_model_cfg.pkl` (its settings), `edges.pkl` (the
edges of the circuit) and `meta.json` (how it was trained). Pickles are read as data: nothing in them is executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightspace.circuits.circuit import Circuit
from weightspace.circuits.graph import Graph
from weightspace.errors import NetworkError, UnreadableError, printable
from weightspace.files.json_text import json_object
from weightspace.files.pickles import Opaque, PickleError, Reader
from weightspace.pairs.correspondence import Slot
from weightspace.transformers.loading import load_trained
from weightspace.transformers.trained import TrainedTransformer

WEIGHTS, SETTINGS, EDGES, META = "ll_model.pth", "ll_model_cfg.pkl", "edges.pkl", "meta.json"
LARGEST = 2**26
"""Bytes of a pickle or of `meta.json` that are read."""
_WRITERS = (
    (re.compile(r"blocks\.(\d+)\.attn\.hook_(?:result|z)\[(\d+)\]"), "a{0}.h{1}"),
    (re.compile(r"blocks\.(\d+)\.(?:hook_mlp_out|mlp\.hook_post)"), "m{0}"),
    (re.compile(r"(?:hook_embed|hook_pos_embed|blocks\.0\.hook_resid_pre)"), "input"),
)
_READERS = (
    (re.compile(r"blocks\.(\d+)\.hook_([qkv])_input\[(\d+)\]"), "a{0}.h{2}<{1}>"),
    (re.compile(r"blocks\.(\d+)\.hook_mlp_in"), "m{0}"),
    (re.compile(r"blocks\.\d+\.hook_resid_post"), "logits"),
)


@dataclass(frozen=True, eq=False)
class InterpBenchModel:
    """A model with its circuit.

    Attributes:
        circuit: its edges between heads, MLPs, input and logits; those inside a component are left out.
        used: heads and MLPs that an edge of the circuit leaves or enters.
        meta: what `meta.json` says of its training; empty where there is none.
    """

    transformer: TrainedTransformer
    circuit: Circuit
    used: frozenset[Slot]
    meta: Mapping[str, Any]


def load_interpbench(folder: str | Path) -> InterpBenchModel:
    """The model of a folder such as those at hf://cybershiptrooper/InterpBench.

    Raises:
        UnreadableError: if a file is missing or damaged.
        NetworkError: if settings and weights do not fit, or an edge is not one of the transformer's.
    """
    folder = Path(folder)
    for name in (WEIGHTS, SETTINGS, EDGES):
        if not (folder / name).is_file():
            raise UnreadableError(
                f"{folder} holds no {name}: a model of InterpBench has {WEIGHTS}, {SETTINGS}, {EDGES}"
            )
    transformer = load_trained(folder / WEIGHTS, config=_settings(folder / SETTINGS))
    graph = Graph.of(transformer.shape)
    names = _edges(folder / EDGES, graph)
    meta = json_object(_raw(folder / META)) if (folder / META).is_file() else {}
    nodes = {end.split("<")[0] for name in names for end in name.split("->")}
    return InterpBenchModel(transformer, Circuit.of(graph, names), frozenset(_slots(nodes)), meta)


def _slots(nodes: Iterable[str]) -> Iterable[Slot]:
    for node in nodes:
        if node.startswith("a"):
            layer, head = node[1:].split(".h")
            yield Slot(int(layer), int(head))
        elif node.startswith("m"):
            yield Slot(int(node[1:]))


def _raw(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    if len(raw) > LARGEST:
        raise UnreadableError(f"{path} is larger than {LARGEST:,} bytes, which none of InterpBench's is")
    return raw


def _pickled(path: Path) -> Any:
    """What a pickle describes, objects of classes as what they would be made of."""
    reader = Reader({}, lambda _: True, lambda _: None, lambda *_: False)
    try:
        return reader.read(_raw(path))[0]
    except (PickleError, EOFError) as error:
        raise UnreadableError(f"{path} cannot be read as a pickle: {error}") from None


def _settings(path: Path) -> dict[str, Any]:
    """Settings by TransformerLens's names, of a dictionary or of the state of a HookedTransformerConfig."""
    said = _pickled(path)
    if isinstance(said, Opaque):
        said = next((part for part in said.parts if isinstance(part, dict)), None)
    if not isinstance(said, dict):
        raise UnreadableError(f"{path} holds no settings: expected a dictionary or a HookedTransformerConfig")
    plain = (str, int, float, bool, type(None))
    return {name: value for name, value in said.items() if isinstance(name, str) and isinstance(value, plain)}


def _edges(path: Path, graph: Graph) -> list[str]:
    """The circuit's edges by the names of `circuits`."""
    said = _pickled(path)
    if isinstance(said, Opaque):  # a set
        said = next((part for part in said.parts if isinstance(part, list | tuple)), None)
    if not isinstance(said, list | tuple) or not all(_is_pair(edge) for edge in said):
        raise UnreadableError(f"{path} holds no circuit: expected pairs of names of TransformerLens's hooks")
    found = []
    for writer, reader in said:
        source, target = _named(writer, _WRITERS), _named(reader, _READERS)
        if _named(writer, _READERS) and _named(reader, _WRITERS):  # inside a component
            continue
        if source is None or target is None:
            raise NetworkError(f"{path} has the edge {printable(writer)} -> {printable(reader)}, which is not known")
        graph.edge(f"{source}->{target}")
        found.append(f"{source}->{target}")
    if not found:
        raise NetworkError(f"{path} has no edge between components")
    return list(dict.fromkeys(found))


def _is_pair(edge: object) -> bool:
    return isinstance(edge, list | tuple) and len(edge) == 2 and all(isinstance(name, str) for name in edge)


def _named(name: str, forms: tuple[tuple[re.Pattern[str], str], ...]) -> str | None:
    for pattern, text in forms:
        found = pattern.fullmatch(name)
        if found:
            return text.format(*found.groups())
    return None
