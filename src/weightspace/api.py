"""The functions behind `import weightspace`: each takes what a person has, a path, a text, an object or a module."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from weightspace.errors import NetworkError, RaspError, TaskError, ZooError

if TYPE_CHECKING:
    from weightspace.backdoors.detector import Detector
    from weightspace.backdoors.general_detector import GeneralDetector
    from weightspace.backdoors.verdict import Scan
    from weightspace.circuits.hypothesis import Hypothesis
    from weightspace.decompiler.proof.certificate import Certificate
    from weightspace.decompiler.result import Decompilation
    from weightspace.decompiler.scrub import Scrub
    from weightspace.decompiler.trained.result import TrainedDecompilation
    from weightspace.evaluation.results import Results
    from weightspace.files.checkpoints import Outline
    from weightspace.heads.behaviour import HeadBehaviour
    from weightspace.heads.reading import HeadReading
    from weightspace.metamodels.contract import Examples, Predictor
    from weightspace.provenance.lineage import Lineage
    from weightspace.rasp.compiler.bare import BareTransformer
    from weightspace.rasp.compiler.transformer import CompiledTransformer
    from weightspace.rasp.language import SOp
    from weightspace.rasp.program import Program
    from weightspace.rasp.validate import Mode
    from weightspace.transformers.trained import TrainedTransformer
    from weightspace.weights.inspection import Inspection
    from weightspace.weights.network import Network
    from weightspace.weights.state_dict import Topology
    from weightspace.zoo.importers.imported import Imported
    from weightspace.zoo.programs.program_zoo import ProgramZoo
    from weightspace.zoo.publishing.transfer import Transfer
    from weightspace.zoo.recipes import ProgramZooConfig, ZooConfig
    from weightspace.zoo.store import Zoo


# -- networks ---------------------------------------------------------------------------------------------------------


def load_network(
    source: str | Path | Network | Any, *, example: Any = None, topology: Topology = "unknown", part: str | None = None
) -> Network:
    """A network out of what holds its weights; nothing in a file is executed.

    Args:
        source: a checkpoint (safetensors, a PyTorch state dict, ONNX), a `torch.nn.Module`, or a `Network`. A file that
            `Network.save` wrote knows its own symmetries. Of several state dicts in a file the one that is a network is
            taken, and not pictures or an optimiser's moments beside it.
        example: for a module, a tensor that it can be run on, by which its symmetries are found.
        topology: for a bare file, how its arrays are connected: unknown, chain or transformer.
        part: of a file with several state dicts the one that is meant: the keys that lead to it, with dots between
            them; "." is the file itself.
    Returns:
        its weights as float32; half precision is exact, float64 is rounded.
    Raises:
        NetworkError: if the file is missing, damaged, refused, or holds no weights, or several networks with other
            weights; it names them.

    >>> import weightspace as ws
    >>> network = ws.load_network(ws.EXAMPLES / "example-clean.safetensors")
    >>> network
    <Network: 18,738 weights in 26 arrays>
    """
    from weightspace.files.checkpoints import outlines, read
    from weightspace.files.tensors import METADATA_KEY
    from weightspace.weights.network import Network
    from weightspace.weights.state_dict import load_state_dict, natural_order

    if isinstance(source, Network):
        return source
    if not isinstance(source, str | Path):
        if not hasattr(source, "state_dict"):
            raise NetworkError(f"{type(source).__name__} holds no network: give a path, a torch.nn.Module or a Network")
        if example is None:
            raise NetworkError("a module needs an example: a tensor that it can be run on, such as torch.zeros(1, 784)")
        from weightspace.weights.modules import network_of_module

        return network_of_module(source, example=example)
    held = outlines(source)
    found = held[0] if len(held) == 1 and part is None else _part(Path(source), part)
    if METADATA_KEY in found.metadata:
        return Network.load(source)
    if found.kind == "safetensors":
        return load_state_dict(source, topology=topology)
    return load_state_dict(read(found, natural_order(found.floating)), topology=topology)


def _part(path: Path, part: str | None) -> Outline:
    """The state dict of a file that is a network, by the evidence that imports go by, or the one that is named."""
    from weightspace.zoo.importers.foreign import Unfit
    from weightspace.zoo.importers.state_dicts import network_in

    try:
        return network_in(path, part)
    except Unfit as error:
        said = re.sub(r"\(--part (.*)\)$", lambda found: f"(part={found[1]!r})", str(error))
        raise NetworkError(said) from None


def inspect(path: str | Path) -> Inspection:
    """What a checkpoint file holds, without a verdict; nothing in it is executed.

    Returns:
        its kinds, size and hash; of each state dict in it the arrays, the number of weights, how they could be
        connected, and the metadata. Of a file that is refused or damaged, why.
    Raises:
        UnreadableError: if there is no such file, or it is no ordinary one.

    >>> import weightspace as ws
    >>> found = ws.inspect(ws.EXAMPLES / "example-clean.safetensors")
    >>> found.kinds, found.parts[0].weights
    (('safetensors',), 18738)
    """
    from weightspace.weights.inspection import inspect

    if not isinstance(path, str | Path):
        raise NetworkError(f"{type(path).__name__} cannot be inspected: give the path of a file")
    return inspect(path)


def permute(network: Network, by: int | Mapping[str, np.ndarray] = 0) -> Network:
    """The same function with its neurons in another order.

    Args:
        by: a seed for a random order, or an order for each group of neurons: (n,) places by the group's name.
    Raises:
        SpecError: if an order does not fit the network.

    >>> import numpy as np, weightspace as ws
    >>> network = ws.load_network(ws.EXAMPLES / "example-clean.safetensors")
    >>> other = ws.permute(network, by=1)
    >>> bool(np.allclose(np.sort(other.weights), np.sort(network.weights)))
    True
    """
    from weightspace.weights.symmetry import permute, random_permutation

    if not isinstance(by, int | Mapping):
        raise NetworkError(f"neurons are put in order by a seed or an order for each group, not {by!r}")
    chosen = random_permutation(network.spec, np.random.default_rng(by)) if isinstance(by, int) else by
    return permute(network, chosen)


# -- zoos -------------------------------------------------------------------------------------------------------------


def make_zoo(
    recipe: str | ZooConfig | ProgramZooConfig, folder: str | Path, *, show: bool = True, **choices: Any
) -> Zoo | ProgramZoo:
    """A population of networks with known truth, made in a folder; killed and called again, it goes on.

    Args:
        recipe: a name (`zoo_recipe` lists them), or a configuration.
        choices: in place of the recipe's own, such as `count`, `seed`, `images`, `data`.
        show: a line with progress, rate and time left on stderr.
    Raises:
        RecipeError: on an unknown name or choice.
        ZooError: if the folder holds another zoo.
        PlaceError: if another run is writing into it.

    >>> import weightspace as ws
    >>> zoo = ws.make_zoo("rasp-typed", "programs", count=8, show=False)
    >>> len(zoo)
    8
    """
    from weightspace.zoo.making import make_zoo
    from weightspace.zoo.plan import ZooConfig
    from weightspace.zoo.programs.config import ProgramZooConfig
    from weightspace.zoo.programs.making import make_program_zoo
    from weightspace.zoo.recipes import PROGRAM_RECIPES, program_recipe, zoo_recipe

    if isinstance(recipe, str):
        recipe = program_recipe(recipe, **choices) if recipe in PROGRAM_RECIPES else zoo_recipe(recipe, **choices)
    elif choices:
        raise ZooError(f"choices ({', '.join(choices)}) go with a recipe's name: put them into the configuration")
    if isinstance(recipe, ZooConfig):
        return make_zoo(recipe, folder, show=show)
    if not isinstance(recipe, ProgramZooConfig):
        raise ZooError(f"a recipe is a name or a configuration, not {recipe!r}")
    return make_program_zoo(recipe, Path(folder), show=show)


def import_zoo(kind: str, sources: str | Path | Sequence[str], folder: str | Path, **options: Any) -> Imported:
    """A zoo that somebody else made, written as one of ours; docs/importing.md has the kinds and the options.

    Args:
        kind: modelzoos, small-cnn-zoo, eilertsen, model-jungle, state-dicts or huggingface.
        sources: its folder, or hf://OWNER/NAME@REVISION, or several of these.
    Raises:
        SourceError, ZooError: if there is none, or the folder holds another zoo.
    """
    from weightspace.zoo.importers.imported import import_zoo

    several = [str(sources)] if isinstance(sources, str | Path) else list(sources)
    return import_zoo(kind, several, folder, **options)


def push(source: str | Path | Zoo, to: str, **options: Any) -> Transfer:
    """Publish a zoo or a model with its card, to the Hugging Face hub or a folder; killed and called again, it goes on.

    Args:
        source: a zoo or its folder, or the file or folder of a meta-model, a detector or a decompiler.
        to: OWNER/NAME on the hub (set HF_TOKEN), or ./FOLDER.
        options: license_name, private, replace, show.
    Raises:
        ZooError, NetworkError, PublishingError: if it is not whole, or the place holds something else.
        HubError: if the hub does not let it.
    """
    from weightspace.experiments.publications import push_model, push_zoo
    from weightspace.zoo.store import DESCRIPTION

    folder = Path(source) if isinstance(source, str | Path) else source.folder
    return (push_zoo if (folder / DESCRIPTION).is_file() else push_model)(folder, to, **options)


def pull(source: str, out: str | Path, *, kind: str = "zoo", show: bool = True) -> Transfer:
    """Fetch what `push` published, every checksum compared; killed and called again, it goes on.

    Args:
        source: OWNER/NAME or OWNER/NAME@REVISION on the hub, or ./FOLDER.
        out: folder for it.
        kind: `zoo` or `model`.
    Raises:
        PublishingError: if it is damaged, or `out` holds something else.
        HubError: if it cannot be fetched.
    """
    from weightspace.experiments.publications import pull_model, pull_zoo

    if kind not in ("zoo", "model"):
        raise ZooError(f"there are two kinds to pull, zoo and model, not {kind!r}")
    return (pull_zoo if kind == "zoo" else pull_model)(source, out, show=show)


# -- meta-models ------------------------------------------------------------------------------------------------------


def examples(zoo: Zoo | str | Path, split: str = "train", targets: Sequence[str] | None = None) -> Examples:
    """The networks of a zoo's split with the answers to be learnt.

    Args:
        zoo: a zoo or its folder.
        split: train, validation or test; splits are by network.
        targets: which properties; all with classes unless given.
    Returns:
        networks (n of them), and for each target its labels (n,), -1 where one is not known.
    Raises:
        ZooError, TaskError: if there is no such zoo, split or property.
    """
    from weightspace.metamodels.properties import categorical_targets, hyperparameter_examples

    opened = _zoo(zoo)
    return hyperparameter_examples(opened, split, categorical_targets(opened, targets))


def compare(
    predictors: Sequence[Predictor],
    zoo: Zoo | str | Path,
    *,
    targets: Sequence[str] | None = None,
    seed: int = 0,
    show: bool = False,
) -> Results:
    """Fit every method on a zoo's training split and score all of them on its test split, side by side.

    Args:
        predictors: whatever has `name`, `fit` and `predict`; `check_predictor` tests one.
        targets: which properties; all with classes unless given.
        seed: of the bootstrap over networks.
    Returns:
        a row for each target and method: accuracy with its 95% interval; `print` shows the table.
    Raises:
        TaskError: if nothing can be learnt or scored there.
    """
    import time

    from weightspace.evaluation.compare import compare, results_of

    started = time.perf_counter()
    if not isinstance(predictors, Sequence) or not predictors:
        raise TaskError("there is nothing to compare: give methods in a list, each with name, fit and predict")
    opened = _zoo(zoo)
    training, validation, test = (examples(opened, split, targets) for split in ("train", "validation", "test"))
    rows, answers = compare(predictors, training, validation, test, seed=seed, show=show)
    name = f"Properties from weights ({opened.description['config']['recipe']})"
    return results_of(name, opened, rows, answers, test, {}, seconds=time.perf_counter() - started)


def _zoo(zoo: Zoo | str | Path) -> Zoo:
    from weightspace.zoo.store import Zoo

    return zoo if isinstance(zoo, Zoo) else Zoo.open(zoo)


# -- programs ---------------------------------------------------------------------------------------------------------


def compile_program(
    program: Program | SOp | str | Path | Mapping[str, Any],
    *,
    vocab: str | Sequence[Any] | None = None,
    max_seq_len: int | None = None,
    mode: Mode = "fixed",
) -> CompiledTransformer:
    """The transformer that computes a RASP program, by Tracr's construction.

    Args:
        program: a `Program`, the S-op that it computes, its text, its JSON record, or the path of a file with either.
        vocab: the tokens, a list or a text of single characters; unless given those that the program says.
        max_seq_len: longest input, BOS not counted; unless given the program's.
        mode: `fixed`, or `tracr_compat`, which gives Tracr's own weights.
    Raises:
        RaspError: with every reason why it cannot be compiled.

    >>> import weightspace as ws
    >>> text = "same = Select(PRED_EQ, tokens, tokens)\\nreturn SelectorWidth(same)"
    >>> transformer = ws.compile_program(text, vocab="ehlo", max_seq_len=5)
    >>> transformer.run(["hello"])
    [[1, 1, 2, 2, 1]]
    """
    from weightspace.rasp.compiler.assemble import compile_program

    return compile_program(_program(program), vocab=_vocabulary(vocab), max_seq_len=max_seq_len, mode=mode)


def run(program: Program | SOp | str | Path | Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    """What a RASP program answers, by its definition and without weights.

    Args:
        program: as for `compile_program`.
        inputs: one input: a text of single-character tokens, or a list of tokens.
    Returns:
        a value for each place.
    Raises:
        RaspError: if a token is unknown or the input is too long; the message names the variable.

    >>> import weightspace as ws
    >>> ws.run("return Map(x + 1, indices)", "abc")
    [1, 2, 3]
    """
    from weightspace.rasp.interpreter import evaluate

    if not isinstance(inputs, Sequence):
        raise RaspError(f"an input is a text or a list of tokens, not {inputs!r}")
    return list(evaluate(_program(program), list(inputs)))


def load_transformer(
    source: Any,
    *,
    vocab: str | Sequence[Any] | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    num_heads: int | None = None,
    causal: bool = False,
    identifier: str | None = None,
    bos: str | None = None,
    pad: str | None = None,
) -> TrainedTransformer | BareTransformer:
    """A transformer out of what holds its weights, trained or compiled; nothing in a file is executed.

    Args:
        source: of a trained one a folder of Hugging Face's (GPT-2, Llama, Mistral, Qwen2, BERT), its file with a
            config.json beside it, a GGUF file, or a state dict of TransformerLens; of a compiled one our safetensors,
            an npz, a PyTorch file or another checkpoint of Tracr's parameters, arrays by Tracr's names, flat or as
            Haiku nests them, the model that Tracr has assembled, or a compiled transformer, of which everything but its
            weights and its readout is forgotten.
        vocab: the texts of the tokens: of a trained one all of them, of a compiled one without BOS and PAD.
        config: settings of a trained one, or their file; settings replace those of a config.json one by one.
        num_heads, causal: of a compiled one, where the file does not say.
        identifier: which of several transformers in one file.
        bos, pad: of a compiled one, what the two are called, where the weights do not show which rows they are.
    Returns:
        a `TrainedTransformer`, which is run and looked into, or a `BareTransformer`, which is decompiled.
    Raises:
        NetworkError: if a file is damaged, not whole, or of an architecture that is not known; it names those that are.
        RaspError: if there is no compiled transformer in what looks like one.
    """
    from weightspace.transformers.loading import is_trained, load_trained
    from weightspace.transformers.trained import TrainedTransformer

    if isinstance(source, TrainedTransformer):
        return source
    if isinstance(source, str | Path | Mapping) and (config is not None or is_trained(source)):
        return load_trained(source, config=config, vocab=_vocabulary(vocab))
    return _load_bare(source, vocab, num_heads, causal, identifier, bos, pad)


def _load_bare(
    source: Any,
    vocab: str | Sequence[Any] | None = None,
    num_heads: int | None = None,
    causal: bool = False,
    identifier: str | None = None,
    bos: str | None = None,
    pad: str | None = None,
) -> BareTransformer:
    """A compiled transformer by its weights alone, as a decompiler gets it."""
    from weightspace.rasp.compiler.bare import BareTransformer
    from weightspace.rasp.compiler.parameters import of_assembled
    from weightspace.rasp.compiler.storage import bare_of, load_bare
    from weightspace.rasp.compiler.transformer import CompiledTransformer

    tokens = _vocabulary(vocab)
    if isinstance(source, BareTransformer):
        return source
    if isinstance(source, CompiledTransformer):
        return BareTransformer.of(source)
    names: dict[str, Any] = {"bos": bos, "pad": pad}
    if isinstance(source, str | Path):
        return load_bare(source, vocab=tokens, num_heads=num_heads, causal=causal, identifier=identifier, **names)
    if isinstance(source, Mapping):
        return bare_of(source, tokens, num_heads=num_heads, causal=causal, **names)
    said = of_assembled(source)
    return bare_of(
        said.params,
        tokens if tokens is not None else said.vocab,
        num_heads=num_heads or said.num_heads,
        causal=causal or bool(said.causal),
        bos=bos or said.bos,
        pad=pad or said.pad,
    )


def decompile(
    source: Any,
    *,
    vocab: str | Sequence[Any] | None = None,
    budget: float | int = 30.0,
    num_heads: int | None = None,
    causal: bool = False,
    identifier: str | None = None,
    bos: str | None = None,
    pad: str | None = None,
    inputs: str | Path | None = None,
    task: Literal["sets", "answers"] | None = None,
    offset: int = 0,
    seed: int = 0,
) -> Decompilation | TrainedDecompilation:
    """The RASP program in a transformer's weights, and how far it is proved to be the one.

    Args:
        source, vocab, num_heads, causal, identifier, bos, pad: see `load_transformer`.
        budget: seconds; of a trained transformer those of each proof.
        inputs: of a trained one, a file with an object of JSON a line: `input`, and `follow` (sets of next tokens) or
            `next` (answers); unless given, inputs.jsonl in its folder.
        task: what a trained one is asked where there are no inputs: `sets` or `answers`.
        offset: position of the first place of a trained one's inputs.
        seed: of whatever is drawn.
    Returns:
        `program`, and its `status`: of a compiled one certified (its own weights are these, up to the order of
        directions, units and heads), behaviour_equal (it answers as these weights do), best_guess or none; of a trained
        one equal_on_all (on every input up to a length), matches (on at least 90% of inputs), best_guess or none.
    Raises:
        RaspError: if there is no transformer in `source`, or its tokens are not known.
        NetworkError: if a trained one, its vocabulary or its inputs cannot be used.

    >>> import weightspace as ws
    >>> transformer = ws.compile_program("return Map(x + 1, tokens)", vocab=[0, 1, 2], max_seq_len=3)
    >>> found = ws.decompile(transformer)
    >>> found.status
    'certified'
    """
    from weightspace.decompiler.decompile import decompile

    if not isinstance(budget, int | float) or not budget > 0:
        raise RaspError(f"a budget is a number of seconds above 0, not {budget!r}")
    from weightspace.transformers.loading import is_trained
    from weightspace.transformers.trained import TrainedTransformer

    if isinstance(source, TrainedTransformer) or (isinstance(source, str | Path) and is_trained(source)):
        from weightspace.decompiler.trained.decompile import settings_for
        from weightspace.decompiler.trained.entry import decompile_file

        tokens = _vocabulary(vocab)
        return decompile_file(
            source,
            vocab=None if tokens is None else [str(token) for token in tokens],
            inputs=None if inputs is None else Path(inputs),
            kind=task,
            offset=offset,
            settings=settings_for(float(budget), seed),
        )
    bare = _load_bare(source, vocab, num_heads, causal, identifier, bos, pad)
    return decompile(bare, float(budget), seed=seed)


def certify(
    program: Program | SOp | str | Path | Mapping[str, Any],
    source: Any,
    *,
    vocab: str | Sequence[Any] | None = None,
) -> Certificate | None:
    """The proof that a program's transformer is the given one, every parameter compared, or None if there is none.

    Args:
        program: as for `compile_program`.
        source, vocab: as for `load_transformer`.

    >>> import weightspace as ws
    >>> transformer = ws.compile_program("return Map(x + 1, tokens)", vocab=[0, 1, 2], max_seq_len=3)
    >>> ws.certify("return Map(x + 1, tokens)", transformer) is not None
    True
    >>> ws.certify("return Map(x + 2, tokens)", transformer) is None
    True
    """
    from weightspace.decompiler.lifting.align import align
    from weightspace.decompiler.proof.certificate import certify, certify_rewritten

    bare = _load_bare(source, vocab)
    aligned = align(bare)
    if aligned.rewrite is None:
        return certify(_program(program), bare)
    return certify_rewritten(_program(program), bare, aligned.bare, aligned.rewrite)


def scrub(
    program: Program | SOp | str | Path | Mapping[str, Any],
    source: Any,
    *,
    vocab: str | Sequence[Any] | None = None,
    inputs: int = 128,
    pairs: int = 64,
    mutants: int = 0,
    seed: int = 0,
    hypothesis: Hypothesis | None = None,
) -> Scrub:
    """Whether a transformer computes a program as the compiler would have it, judged by interventions per input.

    Each variable is swapped with its values on other inputs, and everything that should not matter is resampled: every
    answer has to be the program's.

    Args:
        program: as for `compile_program`.
        source, vocab: as for `load_transformer`; a compiled transformer with other weights (noise, training) is judged
            as it is, weights in another order have to be the compiler's.
        inputs: on which it is judged, drawn at random; all if there are no more.
        pairs: of inputs for each variable, of any and of such whose answer changes.
        mutants: wrong hypotheses that are judged too; the share of them that is rejected is the power.
        seed: of all that is drawn.
        hypothesis: another one about the same program, judged instead of the compiler's.
    Returns:
        `judgement`, with `accepted`; `hypothesis`, where each variable stands; `power`.
    Raises:
        RaspError: if the program does not fit the transformer.

    >>> import weightspace as ws
    >>> text = "return Map(x + 1, tokens)"
    >>> ws.scrub(text, ws.compile_program(text, vocab=[0, 1, 2], max_seq_len=3)).judgement.accepted
    True
    """
    from weightspace.decompiler.scrub import load_target, scrub
    from weightspace.rasp.compiler.transformer import CompiledTransformer

    if isinstance(source, CompiledTransformer):
        target = source
    elif isinstance(source, str | Path):
        tokens = _vocabulary(vocab)
        target = load_target(Path(source), None if tokens is None else tuple(tokens))
    else:
        target = _load_bare(source, vocab)
    return scrub(
        _program(program), target, inputs=inputs, pairs=pairs, mutants=mutants, seed=seed, hypothesis=hypothesis
    )


def to_transformer_lens(source: CompiledTransformer | Program | SOp | str | Path | Mapping[str, Any]) -> Any:
    """A compiled transformer, or a program that is compiled for it, as a model of TransformerLens.

    Its tokens are rows of the token embedding, and each input begins with BOS; its logits are the residual stream along
    the directions that hold the answer, so that the unembedding's columns are unit vectors.

    Args:
        source: what `compile_program` gives, or takes.
    Returns:
        a model on the CPU, in evaluation mode: a `TransformerBridge` of TransformerLens 4 or newer, before that a
        `HookedTransformer`. Hooks have the same names in both.
    Raises:
        RaspError: if TransformerLens is not installed, or the program cannot be compiled.
    """
    from weightspace.decompiler.lens import model
    from weightspace.rasp.compiler.transformer import CompiledTransformer

    return model(source if isinstance(source, CompiledTransformer) else compile_program(source))


def _program(given: Program | SOp | str | Path | Mapping[str, Any]) -> Program:
    """The program that a person has given: an object, a record, a text, or a file."""
    from weightspace.rasp.language import SOp
    from weightspace.rasp.program import Program
    from weightspace.rasp.reading import program_in, read_program

    if isinstance(given, Program):
        return given
    if isinstance(given, SOp):
        return Program.of(given)
    if isinstance(given, Mapping):
        return Program.from_record(given)
    if isinstance(given, Path):
        return read_program(given)
    if not isinstance(given, str):
        raise RaspError(f"{type(given).__name__} is no program: give its text, a path, a record or a Program")
    if "\n" not in given and given.strip().endswith((".rasp", ".json", ".txt")):
        return read_program(Path(given))
    return program_in(given)


def _vocabulary(vocab: str | Sequence[Any] | None) -> tuple[Any, ...] | None:
    """Tokens as a person gives them: a list, or a text each of whose characters is one."""
    if vocab is not None and not isinstance(vocab, Sequence):
        raise RaspError(f"vocab is a list of tokens, or a text of single characters, not {vocab!r}")
    return None if vocab is None else tuple(vocab)


# -- attention heads --------------------------------------------------------------------------------------------------


def read_heads(
    source: Any,
    *,
    labels: str | Path | Mapping[str, Mapping[tuple[int, int], bool]] | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    reader: str | Path | None = None,
) -> HeadReading:
    """What the attention heads of a causal language model do, read from its weights; the model is not run.

    Args:
        source, config: as for `load_transformer`, of a trained one.
        labels: of some heads, by behaviour and (layer, head), or a CSV with the columns layer, head and one for each
            behaviour: a behaviour that the reader does not know, or corrections of one that it knows.
        reader: the one that comes with the package unless given.
    Returns:
        scores from 0 to 1 for every head, how sure they are, the labelled heads that it is most like, and which heads
        read what others wrote.
    Raises:
        NetworkError: if the model cannot be read, is an encoder, or labels do not fit.

    >>> import weightspace as ws
    >>> ws.read_heads("SmolLM2-135M-Instruct.Q4_1.gguf").top("induction", 1)[0].layer  # doctest: +SKIP
    18
    """
    from weightspace.heads.head_reader import HeadReader
    from weightspace.heads.label_table import read_labels
    from weightspace.heads.reading import read_heads

    given = labels if labels is None or isinstance(labels, Mapping) else read_labels(Path(labels))
    judge = None if reader is None else HeadReader.load(Path(reader))
    return read_heads(_trained(source, config), given, judge)


def label_heads(source: Any, *, config: str | Path | Mapping[str, Any] | None = None, seed: int = 0) -> HeadBehaviour:
    """What the attention heads of a causal language model do when it runs, on short texts and random ones said twice.

    Args:
        source, config: as for `load_transformer`, of a trained one; a tokenizer is looked for in or beside its file.
        seed: of the random texts.
    Returns:
        a score of each behaviour for every head, and the inputs in words.
    Raises:
        NetworkError: if the model cannot be read, or is an encoder.
    """
    from weightspace.heads.behaviour import head_behaviour
    from weightspace.heads.inputs import inputs_of

    transformer = _trained(source, config)
    path = Path(source) if isinstance(source, str | Path) else None
    return head_behaviour(transformer, inputs_of(transformer, path, seed=seed))


def _trained(source: Any, config: str | Path | Mapping[str, Any] | None) -> TrainedTransformer:
    from weightspace.transformers.loading import load_trained
    from weightspace.transformers.trained import TrainedTransformer

    if isinstance(source, TrainedTransformer):
        return source
    if not isinstance(source, str | Path | Mapping):
        raise NetworkError(f"{type(source).__name__} has no heads that are read: give a path, arrays or a transformer")
    return load_trained(source, config=config)


# -- provenance -------------------------------------------------------------------------------------------------------


def lineage(
    network: str | Path | Network,
    other: str | Path | Network,
    *,
    alarms: float = 0.01,
    cache: str | Path | None = None,
    seed: int = 0,
) -> Lineage:
    """Whether two networks are related, one derived from the other or both from a third; their weights alone are read.

    Filters are matched under any order and scale of neurons, so finetuning, pruning, quantising, reordering and
    rescaling do not hide it.

    Args:
        network: a checkpoint of any kind that is read, or a `Network`.
        other: another one; or a folder of checkpoints, or a zoo, of which the most alike is looked for.
        alarms: share of unrelated networks that may be called related.
        cache: of a folder, where what is read of files is kept by their hashes.
        seed: of the random networks that say how alike unrelated ones are.
    Returns:
        `related`, and `relations`: of each network its likeness, layer by layer, and a p-value.
    Raises:
        NetworkError: if they cannot be compared; it says the first difference.

    >>> import weightspace as ws
    >>> network = ws.load_network(ws.EXAMPLES / "example-clean.safetensors")
    >>> found = ws.lineage(network, ws.permute(network, by=1))
    >>> found.related, round(found.best.likeness, 3)
    (True, 1.0)
    >>> ws.lineage(network, ws.EXAMPLES / "example-backdoored.safetensors").related
    False
    """
    from weightspace.provenance.lineage import lineage, lineage_among
    from weightspace.weights.network import Network

    for one in (network, other):
        if not isinstance(one, str | Path | Network):
            raise NetworkError(f"{type(one).__name__} cannot be compared: give a path or a Network")
    if isinstance(other, str | Path) and Path(other).is_dir():
        kept = None if cache is None else Path(cache)
        return lineage_among(network, other, alarms=alarms, cache=kept, seed=seed)
    return lineage(network, other, alarms=alarms, seed=seed)


# -- backdoors --------------------------------------------------------------------------------------------------------


def scan(
    targets: str | Path | Network | Sequence[str | Path | Network],
    *,
    detector: Detector | GeneralDetector | str | Path | None = None,
    false_alarms: float = 0.05,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    allow: str | Path | None = None,
    cache: str | Path | None = None,
    show: bool = False,
) -> Scan:
    """Whether checkpoints look like networks with a backdoor; nothing in a file is executed.

    Args:
        targets: files, folders (everything below them), hf://OWNER/NAME@REVISION, or networks, which are judged as the
            files that they would be saved as.
        detector: for one architecture or a general one, in place of that of its kind which comes with the package.
        false_alarms: share of clean networks that may be called suspicious, up to 0.5.
        include, exclude: globs that choose among the files of folders and repositories.
        allow: a file of SHA-256 hashes, one a line, of files that are known and not judged.
        cache: a folder in which results are kept by the hashes of file and detector.
    Returns:
        a finding for each file: verdict, how sure it is, which neurons it blames.
    Raises:
        NetworkError: if the detector cannot be read, or a target is missing.
        ValueError: if there is nothing to scan. What is wrong with a file is its finding.

    >>> import weightspace as ws
    >>> ws.scan(ws.EXAMPLES / "example-backdoored.safetensors").findings[0].verdict
    'suspicious'
    """
    from weightspace.backdoors.allow_list import read_allow_list
    from weightspace.backdoors.general_detector import detectors_for
    from weightspace.backdoors.scan import scan
    from weightspace.weights.network import Network

    options: dict[str, Any] = {
        "include": (include,) if isinstance(include, str) else tuple(include),
        "exclude": (exclude,) if isinstance(exclude, str) else tuple(exclude),
        "allowed": frozenset() if allow is None else read_allow_list(allow),
        "results": None if cache is None else Path(cache),
    }
    several = list(targets) if isinstance(targets, Sequence) and not isinstance(targets, str) else [targets]
    judge, general = detectors_for(detector)
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for number, target in enumerate(several):
            if isinstance(target, Network):
                target.save(place := Path(folder) / f"network-{number}.safetensors")
                names.append(str(place))
            elif isinstance(target, str | Path):
                names.append(str(target))
            else:
                raise NetworkError(
                    f"{type(target).__name__} cannot be scanned: give a path or a Network (ws.load_network(PATH))"
                )
        found = scan(names, judge, general=general, false_alarms=false_alarms, show=show, **options)
    numbered = enumerate(zip(names, several, strict=True), 1)
    given = {name: f"network {number}" for number, (name, one) in numbered if isinstance(one, Network)}
    findings = (replace(finding, file=given.get(finding.file, finding.file)) for finding in found.findings)
    return replace(found, findings=tuple(findings))
