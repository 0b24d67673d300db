"""weightspace: meta-models, neural networks that read the weights of other networks.

`import weightspace as ws` is the whole public interface. Nothing is loaded until it is named, so importing it takes a
hundredth of a second; torch is loaded by what needs it.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weightspace.api import (
        certify,
        compare,
        compile_program,
        decompile,
        examples,
        import_zoo,
        inspect,
        label_heads,
        lineage,
        load_network,
        load_transformer,
        make_zoo,
        permute,
        pull,
        push,
        read_heads,
        run,
        scan,
        scrub,
        to_transformer_lens,
    )
    from weightspace.backdoors.detector import Detector
    from weightspace.circuits.hypothesis import Component, Hypothesis
    from weightspace.errors import (
        NetworkError,
        PlaceError,
        RaspError,
        ScopeError,
        TaskError,
        UnreadableError,
        WeightspaceError,
        ZooError,
    )
    from weightspace.metamodels.checks import check_predictor
    from weightspace.metamodels.contract import Examples
    from weightspace.metamodels.metamodel import MetaModel
    from weightspace.rasp.compiler.storage import save_transformer
    from weightspace.rasp.program import Program
    from weightspace.transformers.places import Place
    from weightspace.transformers.trained import TrainedTransformer
    from weightspace.weights.modules import network_of_module
    from weightspace.weights.network import Network
    from weightspace.weights.spec import NetworkSpec
    from weightspace.zoo.recipes import zoo_recipe
    from weightspace.zoo.store import Zoo

__version__ = "0.2.0"
EXAMPLES = Path(__file__).parent / "pretrained"
"""Folder of what comes with the package: a detector, a decompiler, a reader of heads, and two checkpoints."""

_HOMES = {
    "Network": "weights.network",
    "NetworkSpec": "weights.spec",
    "network_of_module": "weights.modules",
    "load_network": "api",
    "inspect": "api",
    "load_transformer": "api",
    "TrainedTransformer": "transformers.trained",
    "Place": "transformers.places",
    "read_heads": "api",
    "label_heads": "api",
    "Hypothesis": "circuits.hypothesis",
    "Component": "circuits.hypothesis",
    "permute": "api",
    "Zoo": "zoo.store",
    "make_zoo": "api",
    "zoo_recipe": "zoo.recipes",
    "import_zoo": "api",
    "push": "api",
    "pull": "api",
    "Examples": "metamodels.contract",
    "examples": "api",
    "MetaModel": "metamodels.metamodel",
    "compare": "api",
    "check_predictor": "metamodels.checks",
    "Program": "rasp.program",
    "compile_program": "api",
    "save_transformer": "rasp.compiler.storage",
    "decompile": "api",
    "certify": "api",
    "scrub": "api",
    "run": "api",
    "to_transformer_lens": "api",
    "lineage": "api",
    "scan": "api",
    "Detector": "backdoors.detector",
    "WeightspaceError": "errors",
    "NetworkError": "errors",
    "UnreadableError": "errors",
    "PlaceError": "errors",
    "ZooError": "errors",
    "RaspError": "errors",
    "ScopeError": "errors",
    "TaskError": "errors",
}
"""Where each public name is defined."""

__all__ = [
    "Network",
    "NetworkSpec",
    "network_of_module",
    "load_network",
    "inspect",
    "load_transformer",
    "TrainedTransformer",
    "Hypothesis",
    "Component",
    "Place",
    "read_heads",
    "label_heads",
    "permute",
    "Zoo",
    "make_zoo",
    "zoo_recipe",
    "import_zoo",
    "push",
    "pull",
    "Examples",
    "examples",
    "MetaModel",
    "compare",
    "check_predictor",
    "Program",
    "compile_program",
    "save_transformer",
    "decompile",
    "certify",
    "scrub",
    "run",
    "to_transformer_lens",
    "lineage",
    "scan",
    "Detector",
    "WeightspaceError",
    "NetworkError",
    "UnreadableError",
    "PlaceError",
    "ZooError",
    "RaspError",
    "ScopeError",
    "TaskError",
    "EXAMPLES",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'weightspace' has no attribute {name!r}: dir(weightspace) lists what it has")
    found = getattr(import_module(f"weightspace.{_HOMES[name]}"), name)
    globals()[name] = found  # next time it is found at once
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
