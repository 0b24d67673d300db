"""The demo: first what shipped files show, in seconds, then a zoo, a meta-model and a report; and a page of links."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from weightspace.backdoors.detector import PRETRAINED
from weightspace.backdoors.summary import summary as verdicts
from weightspace.decompiler.result import summary as decompiled
from weightspace.evaluation.results import Results, format_table
from weightspace.experiments.comparison import compare_on_zoo, decompile_demo, predict_files, scan_demo
from weightspace.files.atomic import write_atomically
from weightspace.files.progress import stage
from weightspace.weights.network import Network
from weightspace.zoo.engine import Engine
from weightspace.zoo.making import make_zoo
from weightspace.zoo.recipes import zoo_recipe

PREDICTOR = PRETRAINED.with_name("hyperparameters.safetensors")
"""What the demo itself makes, trained before: pretrained/hyperparameters.md."""
MODEL = (100, 0)
"""Seed and number of a planted model; the shipped reader has learnt from those of seed 0."""
INDEX = "index.html"


@dataclass(frozen=True)
class Shown:
    """What a part of the demo has to show.

    Attributes:
        title: a heading.
        text: what is printed.
        pages: files in the folder of the demo, and what each of them is.
        record: the same for programs.
    """

    title: str
    text: str
    pages: dict[str, str]
    record: dict[str, Any]


def _decompile(out: Path) -> Shown:
    found = decompile_demo(out)
    pages = {"decompiled.html": "the program, its proof, and where each line sits in the weights"}
    return Shown("Decompiled, a transformer of unknown code", decompiled(found), pages, found.to_json())


def _scan(out: Path) -> Shown:
    found = scan_demo(out)
    pages = {"scan.html": "the verdicts, how sure they are, and the neurons that are blamed"}
    title = "Scanned, four checkpoints of which two have a backdoor; two are from a plain PyTorch script"
    return Shown(title, verdicts(found), pages, {"findings": found.to_json()})


def _predict(out: Path) -> Shown:
    """The shipped predictor asked about a test network, whose file says how it was really trained."""
    source = PRETRAINED.with_name("example-digits.safetensors")
    file = out / "network.safetensors"
    write_atomically(file, source.read_bytes())
    (answer,) = predict_files(PREDICTOR, [file])
    truth = Network.load(file).metadata
    lines = []
    for name, classes in answer["targets"].items():
        said, sure = max(classes.items(), key=lambda item: item[1])
        right = "right" if said == truth[name] else f"in truth {truth[name]}"
        lines.append(f"{name:<16}{said} ({sure:.0%}): {right}")
    record = {**answer, "truth": {name: truth[name] for name in answer["targets"]}}
    return Shown("Asked of a network's weights alone: how it was trained", "\n".join(lines), {}, record)


def _heads(out: Path) -> Shown:
    """A small model whose heads are built and not trained: what each does, from weights alone, and when it is run."""
    from weightspace.heads.behaviour import head_behaviour
    from weightspace.heads.grid import agreeing, grid_measured, grid_read, grid_text
    from weightspace.heads.inputs import inputs_of
    from weightspace.heads.page import write_heads
    from weightspace.heads.planted import planted
    from weightspace.heads.reading import read_heads

    model = planted(*MODEL)[1]
    found = read_heads(model)
    read, measured = grid_read(found), grid_measured(head_behaviour(model, inputs_of(model, None)))
    write_heads(found, out / "heads.html", name="a small model")
    pages = {"heads.html": "every head, what it attends to, and which heads read which"}
    record = {"read": read, "measured": measured, "agreeing": agreeing(read, measured), "heads": len(found.heads)}
    return Shown("Read, what the attention heads of a small model do", grid_text(read, measured), pages, record)


def _provenance(out: Path) -> Shown:
    """The shipped reader asked what two test networks were trained on, whose files say it."""
    from weightspace.provenance.answer import provenance
    from weightspace.provenance.page import write_page
    from weightspace.provenance.reader import ProvenanceReader

    reader = ProvenanceReader.load(PRETRAINED.with_name("provenance-reader.safetensors"))
    lines, pages, record = [], {}, {}
    for number in (1, 2):
        file = out / f"classes-{number}.safetensors"
        write_atomically(file, PRETRAINED.with_name(f"example-classes-{number}.safetensors").read_bytes())
        found = provenance(file, reader)
        truth = {reader.classes[k] for k in Network.load(file).metadata["class_subset"]}
        said = [one.name for one in found.classes[: len(truth)]]
        right = sum(name in truth for name in said)
        lines.append(f"network {number}   {', '.join(said)}: {right} of {len(truth)} right")
        write_page(found, out / f"classes-{number}.html")
        pages[f"classes-{number}.html"] = f"network {number}: every class, and a picture for each output"
        record[f"network {number}"] = {**found.to_json(), "truth": sorted(truth)}
    return Shown(
        "Asked of two networks: which classes of Fashion-MNIST were they trained on", "\n".join(lines), pages, record
    )


PARTS: dict[str, Callable[[Path], Shown]] = {
    "decompiling a transformer": _decompile,
    "scanning checkpoints": _scan,
    "reading attention heads": _heads,
    "asking how a network was trained": _predict,
    "asking what two networks were trained on": _provenance,
}
"""What `demo --quick` does, from shipped files alone, in this order; a new part is one more line."""


def quick_demo(out: str | Path) -> Iterator[Shown]:
    """Each part of the quick demo when it is ready; the page of links is written at the end."""
    out, found = Path(out), []
    for number, (name, part) in enumerate(PARTS.items(), 1):
        with stage(f"stage {number} of {len(PARTS)} ({name})", 3.0, 3.0 * (len(PARTS) - number)):
            found.append(part(out))
        yield found[-1]
    write_index(out, found)


ZOO_SECONDS, FIT_SECONDS = 60.0, 60.0
"""What the two long stages of the demo take on two cores; what is measured takes over as soon as there is any."""


def demo(out: str | Path, engine: Engine | None = None, *, show: bool = True) -> Results:
    """The first light: scikit-learn's digits, 800 small CNNs, a meta-model, the baselines, a report.

    The page of links is written again, with all that is in the folder.
    """
    start, out = time.perf_counter(), Path(out)
    with stage("stage 1 of 2 (a zoo of 800 networks)", ZOO_SECONDS, FIT_SECONDS):
        zoo = make_zoo(zoo_recipe("digits-small"), out / "zoo", engine, show=show)
    with stage("stage 2 of 2 (a meta-model and its rivals)", FIT_SECONDS, 0.0):
        return compare_on_zoo(zoo.folder, out, show=show, started=start)


def shown_results(results: Results) -> Shown:
    """The comparison as a part of the demo."""
    pages = {
        "report.html": "tables, curves and confusions of every method",
        "results.json": "the same for programs",
    }
    title = "Compared, methods that say how unseen networks were trained"
    return Shown(title, format_table(results), pages, results.to_json())


def write_index(out: Path, parts: list[Shown]) -> None:
    """`index.html`: what each part printed, with links to its pages."""
    template = resources.files("weightspace.experiments").joinpath("demo.html").read_text("utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(template)
    write_atomically(out / INDEX, page.render(parts=parts).encode())
