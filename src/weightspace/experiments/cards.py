"""Cards of published zoos and models: what they are, in figures that are read from their own files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weightspace.backdoors.detector import Detector
from weightspace.decompiler.network.proposer import Proposer
from weightspace.errors import NetworkError
from weightspace.evaluation.tables import markdown_table
from weightspace.files.atomic import file_hash
from weightspace.files.progress import duration
from weightspace.files.tensors import METADATA_KEY, read_safetensors
from weightspace.metamodels.contract import Target
from weightspace.metamodels.metamodel import MetaModel, describe
from weightspace.zoo.making import info
from weightspace.zoo.programs.inspection import program_zoo_info
from weightspace.zoo.store import DESCRIPTION, INDEX, MANIFEST, read_description, read_manifest

UNKNOWN = "unknown"
"""The hub's own word for a licence that nobody has stated."""
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
"""The hub's classes of sizes: fewer entries than the number, and the name."""
MOST = 8
"""Architectures that a model's card lists one by one."""
_HOUSE = "`weightspace`, a library for neural networks that read the weights of other neural networks"


def zoo_card(folder: str | Path, license_name: str = UNKNOWN) -> str:
    """The card of a complete zoo, as markdown with the front matter of a data set.

    Args:
        license_name: one of the hub's names, such as cc-by-4.0.
    Raises:
        ZooError: if the zoo is not complete.
        ValueError: if that is no name of a licence.
    """
    folder = Path(folder)
    description, manifest = read_description(folder), read_manifest(folder)
    programs = description["kind"] == "programs"
    facts = (program_zoo_info if programs else info)(folder)
    recipe, config = facts.pop("recipe"), description["config"]
    entries = facts["programs"] if programs else facts["networks"]
    # the place on its owner's disk is nobody's concern, and the files are counted as they are published
    del facts["folder"], facts["manifest_sha256" if not programs else "bytes a program"]
    facts["bytes"] = sum((folder / name).stat().st_size for name in manifest["sha256"])
    front = {
        "license": license_name,
        "pretty_name": recipe,
        "tags": ["weightspace", "model-zoo", "weight-space-learning", *(["rasp", "interpretability"] * programs)],
        "task_categories": ["other"],
        "size_categories": [next((name for most, name in SIZES if entries < most), "10M<n<100M")],
        "configs": [{"config_name": "index", "data_files": INDEX}],
    }
    what = (
        f"{entries:,} different RASP programs and the transformers that they compile to"
        if programs
        else f"{entries:,} trained networks, with the truth about how each was made"
    )
    return _page(
        front,
        f"Zoo {recipe}: {what}",
        f"Made with {_HOUSE}. The figures are read from the zoo's own files.",
        _table({**facts, "SHA-256 of the manifest": file_hash(folder / MANIFEST)}),
        "## Files\n\n"
        f"- `{INDEX}`: a row a network (and checkpoint): number, split, labels, measures, shard and row.\n"
        f"- `shards/`: the weights, {'as sparse rows' if programs else 'a matrix for each architecture'}.\n"
        f"- `{DESCRIPTION}`: what the zoo was asked to be. `{MANIFEST}`: the SHA-256 of every file, written last.",
        "## Use\n\nIt is pulled with every checksum compared, and nothing in it is executed; weightspace needs its "
        "extra `hub`:\n\n```\nweightspace zoo pull OWNER/NAME --out zoo\n```\n\n"
        + ("" if programs else "```python\nfrom weightspace.zoo.store import Zoo\n\n")
        + ("" if programs else 'networks = Zoo.open("zoo").population("train")\n```\n\n')
        + "Methods are compared on the split of the index, which is by network.",
        f"## What it was asked to be\n\n```json\n{json.dumps(config, indent=1, sort_keys=True)}\n```",
        _licence(license_name),
    )


def model_card(path: str | Path, license_name: str = UNKNOWN) -> str:
    """The card of a saved meta-model, detector or decompiler, as markdown with the front matter of a model.

    Args:
        path: its safetensors file.
        license_name: one of the hub's names, such as apache-2.0.
    Raises:
        NetworkError: if the file is none of these, or damaged.
        ValueError: if that is no name of a licence.
    """
    path = Path(path)
    metadata = read_safetensors(path)[1]
    try:
        record = json.loads(metadata[METADATA_KEY])
        decompiler = record.get("kind") == "decompiler"
        if not decompiler and "targets" not in record:
            raise ValueError
    except (KeyError, ValueError, AttributeError, RecursionError):
        raise NetworkError(
            f"{path} is no model of weightspace: push what `weightspace train` or `weightspace backdoors train` wrote"
        ) from None
    if decompiler:
        return _decompiler_card(path, license_name)
    model = MetaModel.load(path)
    version = record.get("version", UNKNOWN)
    detector = Detector.load(path) if "detector" in model.facts else None
    facts = model.facts if detector is None else dict(detector.card)
    task = "detector of backdoors" if detector is not None else "meta-model"
    return _page(
        _model_front(license_name, ["backdoor-detection"] if detector is not None else []),
        f"A {task}: it answers {', '.join(target.name for target in model.targets)} from a network's weights",
        f"Made with {_HOUSE}, version {version}. The figures are read from the model's own file.",
        "## What it answers\n\n" + "\n".join(f"- {_question(target)}" for target in model.targets),
        "## What it was trained on\n\n" + (_table(facts) or "The file does not say on which networks."),
        f"## What it can be asked about\n\n{_scope(model)}",
        f"## Training\n\n{_table(_history(model))}",
        f"## Use\n\n{_pulling('weightspace predict model network.safetensors' if detector is None else _SCAN)}",
        f"## Configuration\n\n```json\n{json.dumps(record['config'], indent=1, sort_keys=True)}\n```",
        _licence(license_name),
    )


_SCAN = "weightspace scan network.safetensors --detector model/model.safetensors"


def _decompiler_card(path: Path, license_name: str) -> str:
    proposer = Proposer.load(path)
    history = {
        "parameters": proposer.parameters,
        "steps": proposer.history.steps,
        "training": duration(proposer.history.seconds),
    }
    record = json.loads(read_safetensors(path)[1][METADATA_KEY])
    version = record.get("version", UNKNOWN)
    return _page(
        _model_front(license_name, ["rasp", "interpretability"]),
        "A decompiler: it proposes RASP programs for a transformer's weights",
        f"Made with {_HOUSE}, version {version}. The figures are read from the model's own file.",
        "It proposes; only the certificate of `weightspace decompile` proves.",
        "## What it was trained on\n\n" + (_table(proposer.facts) or "The file does not say."),
        f"## Training\n\n{_table(history)}",
        f"## Use\n\n{_pulling('weightspace decompiler evaluate --network model/model.safetensors')}",
        f"## Configuration\n\n```json\n{json.dumps(record['config'], indent=1, sort_keys=True)}\n```",
        _licence(license_name),
    )


def _model_front(license_name: str, tags: Sequence[str]) -> dict[str, Any]:
    shared = ["weightspace", "meta-model", "weight-space-learning"]
    return {"license": license_name, "library_name": "weightspace", "tags": [*shared, *tags]}


def _pulling(command: str) -> str:
    return (
        "It is pulled with its checksum compared, and nothing in it is executed; weightspace needs its extra `hub`:\n\n"
        f"```\nweightspace model pull OWNER/NAME --out model\n{command}\n```"
    )


def _question(target: Target) -> str:
    return f"`{target.name}`: " + ("a number" if target.is_quantity else f"one of {', '.join(target.classes)}")


def _scope(model: MetaModel) -> str:
    """Which networks it judges, as `MetaModel.check_scope` has it."""
    listed = "\n".join(f"- {describe(spec)}" for spec in model.specs[:MOST])
    more = f"\n- and {len(model.specs) - MOST:,} more" if len(model.specs) > MOST else ""
    if model.config.other_widths:
        rule = "networks of the same layers as these, of these widths and others"
    elif len(model.specs) == 1:
        rule = "networks with these arrays alone"
    else:
        rule = f"these {len(model.specs):,} architectures, and others that are no larger than the largest"
    return (
        f"It judges {rule}, and refuses others:\n\n{listed}{more}\n\nOf a network that was trained in another way than "
        "those it has learnt from, an answer means little."
    )


def _history(model: MetaModel) -> dict[str, Any]:
    history = model.history
    facts: dict[str, Any] = {"parameters": model.parameters, "steps": history.steps}
    best = [entry for entry in history.evaluations if entry["step"] == history.best_step]
    for entry in best[:1]:
        facts["step of the lowest validation loss, which is kept"] = history.best_step
        facts |= {f"validation {name} there": value for name, value in entry.items() if name != "step"}
    return {**facts, "training": duration(history.seconds)}


# -- markdown -------------------------------------------------------------------------------------------------------


def _page(front: Mapping[str, Any], title: str, *parts: str) -> str:
    """A card: front matter, title, parts.

    Raises:
        ValueError: if the licence is no name of one.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", front["license"]):
        raise ValueError(
            f"{front['license']!r} is no licence: give a name as the hub has them, such as apache-2.0 or cc-by-4.0"
        )
    # JSON is YAML too, and needs no care with quotes
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in front.items()]
    return "\n".join(("---", *lines, "---", "", f"# {_line(title)}", "", "\n\n".join(filter(None, parts)), ""))


def _table(facts: Mapping[str, Any]) -> str:
    if not facts:
        return ""
    rows = [(_line(str(name)).replace("_", " "), _cell(value)) for name, value in facts.items()]
    return markdown_table((None, None), rows)


def _cell(value: Any) -> str:
    """One fact, on one line and without what markdown would take for a column."""
    match value:
        case bool() | None:
            text = {True: "yes", False: "no", None: "-"}[value]
        case int():
            text = f"{value:,}"
        case float():
            text = f"{value:.4g}"
        case Mapping():
            text = "; ".join(f"{name}: {_cell(inner)}" for name, inner in value.items()) or "none"
        case list() | tuple():
            text = ", ".join(map(_cell, value)) or "none"
        case _:
            text = str(value)
    return _line(text)


def _line(text: str) -> str:
    """On one line, with nothing that markdown or a browser would take for a mark; a name may come from anybody."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def _licence(name: str) -> str:
    return "## Licence\n\n" + ("Nobody has stated one." if name == UNKNOWN else f"{name}.")
