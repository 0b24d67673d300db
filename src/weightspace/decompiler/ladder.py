"""The same programs' weights, step by step further from what the compiler wrote."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.decompiler.lifting.align import WRITING, with_stream
from weightspace.decompiler.proof.certificate import permuted as reordered
from weightspace.errors import RaspError
from weightspace.files.atomic import write_atomically
from weightspace.files.progress import progress
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import MATRICES, POSITIONS, TOKENS, BareTransformer, Readout
from weightspace.rasp.compiler.transformer import CompiledTransformer
from weightspace.rasp.interpreter import all_inputs
from weightspace.rasp.language import BOS, PAD, Program
from weightspace.rasp.validate import Mode
from weightspace.weights.network import read_safetensors

MOST_INPUTS = 4_000
"""So many inputs are all used, to find directions, to train and to judge; of more, a seeded sample."""
NEAR = 0.01
"""Numbers that an answer can be count as one where they are nearer than this share of the larger of 1 and the number:
what rounding and leaking attention make of one value."""

# -- inputs, and what is right on them -------------------------------------------------------------------------------


def input_codes(bare: BareTransformer, seed: int = 0, most: int = MOST_INPUTS) -> list[np.ndarray]:
    """Every input of a transformer, or a sample of them, by length: arrays (inputs, length + 1) with BOS first.

    Args:
        seed: of the sample, in which all lengths are equally likely.
        most: so many inputs are all given; of more, so many are drawn.
    """
    vocab, longest = len(bare.vocab), bare.max_seq_len
    rows = np.array([row for row, value in enumerate(bare.space) if value not in (BOS, PAD)])
    bos = bare.space.index(BOS)
    if sum(vocab**length for length in range(1, longest + 1)) <= most:
        by_length: dict[int, list[Any]] = {}
        for entry in all_inputs(range(vocab), longest):
            by_length.setdefault(len(entry), []).append(entry)
        groups = [rows[np.array(group)] for group in by_length.values()]
    else:
        random = np.random.default_rng([seed, 1])
        lengths = random.integers(1, longest + 1, most)
        drawn = rows[random.integers(0, vocab, (most, longest))]
        groups = [drawn[lengths == length, :length] for length in range(1, longest + 1)]
    return [np.insert(group, 0, bos, axis=1) for group in groups if len(group)]


@dataclass(frozen=True)
class Answers:
    """What a transformer answers, place by place, as classes that can be compared and learnt.

    Attributes:
        codes: of the inputs, by length, as `input_codes` gives them.
        classes: (inputs, length) of each: the place of a categorical answer among the readout's values, of a numerical
            one among `numbers`; -1 for None.
        targets: (inputs, length) of each, the numbers of a numerical answer; 0 where None. Empty for a categorical one.
        numbers: (n,) the different numbers that are answered, in order; None for a categorical answer.
    """

    codes: list[np.ndarray]
    classes: list[np.ndarray]
    targets: list[np.ndarray]
    numbers: np.ndarray | None


def answers_of(bare: BareTransformer, codes: Sequence[np.ndarray]) -> Answers:
    """What a transformer answers at each place but BOS.

    Args:
        codes: as `input_codes` gives them.
    Raises:
        RaspError: if it is not known where its answer stands.
    """
    readout = _readout_of(bare)
    streams = [bare.forward(group)[:, 1:] for group in codes]
    if readout.values is not None:
        return Answers([*codes], [_chosen(readout, stream) for stream in streams], [], None)
    missing = [_is_none(readout, stream) for stream in streams]
    given = [(stream @ readout.directions)[..., 0] for stream in streams]
    some = np.concatenate([numbers[~none] for numbers, none in zip(given, missing, strict=True)])
    numbers = distinct(some)
    classes = [np.where(none, -1, nearest(numbers, found)) for found, none in zip(given, missing, strict=True)]
    targets = [np.where(none, 0, found) for found, none in zip(given, missing, strict=True)]
    return Answers([*codes], classes, targets, numbers)


def share_right(bare: BareTransformer, wanted: Answers) -> float:
    """The share of inputs on which a transformer answers as wanted at every place.

    A number is right if no other of the wanted numbers is nearer to it.
    """
    readout = _readout_of(bare)
    right = total = 0
    for group, classes in zip(wanted.codes, wanted.classes, strict=True):
        stream = bare.forward(group)[:, 1:]
        if wanted.numbers is None:
            found = _chosen(readout, stream)
        else:
            found = nearest(wanted.numbers, (stream @ readout.directions)[..., 0])
            found = np.where(_is_none(readout, stream), -1, found)
        right += int((found == classes).all(1).sum())
        total += len(group)
    return right / total


def _readout_of(bare: BareTransformer) -> Readout:
    if bare.readout is None:
        raise RaspError("it is not known where the answer of this transformer stands: give it a readout")
    return bare.readout


def _chosen(readout: Readout, stream: np.ndarray) -> np.ndarray:
    read = stream @ readout.directions
    best = read.argmax(-1)
    return np.where(read.max(-1) > 0.5, best, -1) if readout.strict else best


def _is_none(readout: Readout, stream: np.ndarray) -> np.ndarray:
    if readout.none is None:
        return np.zeros(stream.shape[:-1], bool)
    return stream @ readout.none > 0.5


def distinct(numbers: np.ndarray) -> np.ndarray:
    """The different ones among numbers, in order; of those nearer than `NEAR` the mean."""
    ordered = np.sort(numbers.astype(float).ravel())
    if not len(ordered):
        return np.zeros(1)
    apart = np.diff(ordered) > NEAR * np.maximum(1, np.abs(ordered[1:]))
    return np.array([group.mean() for group in np.split(ordered, np.flatnonzero(apart) + 1)])


def nearest(numbers: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Which of `numbers` (n,), in order, each of some given ones is nearest to."""
    return np.searchsorted((numbers[1:] + numbers[:-1]) / 2, given)


# -- rungs -----------------------------------------------------------------------------------------------------------


def clean(transformer: CompiledTransformer | BareTransformer, seed: int = 0) -> BareTransformer:  # noqa: ARG001
    """The weights as they were compiled, without the names of directions."""
    return transformer if isinstance(transformer, BareTransformer) else BareTransformer.of(transformer)


def permuted(transformer: CompiledTransformer | BareTransformer, seed: int) -> BareTransformer:
    """Directions, hidden units, heads and the columns within heads in a random order; nothing else changes."""
    return reordered(clean(transformer), seed)


def rotated(transformer: CompiledTransformer | BareTransformer, seed: int) -> BareTransformer:
    """Permuted weights, the residual stream turned by a random orthogonal matrix Q, evenly drawn (Haar).

    Every matrix W that reads the stream becomes Q^T W, every one that writes to it W Q, the embeddings too; the readout
    follows.
    """
    bare = permuted(transformer, seed)
    random = np.random.default_rng([seed, 2])
    q, r = np.linalg.qr(random.standard_normal((bare.width, bare.width)))
    return with_stream(bare, q * np.sign(np.diag(r)))


def noisy(transformer: CompiledTransformer | BareTransformer, seed: int, share: float) -> BareTransformer:
    """Permuted weights with Gaussian noise.

    Args:
        share: standard deviation of the noise in a matrix as a share of that matrix's own, which is taken over all of
            its entries, zeros (most of them) included. Each layer's matrix, all heads, is one. Matrices that are all
            zero stay so, and so do biases and the readout.
    """
    bare = permuted(transformer, seed)
    random = np.random.default_rng([seed, 3])
    params = {}
    for name, array in bare.params.items():
        noise = random.standard_normal(array.shape)  # drawn in any case: one matrix's noise hangs on no other
        scale = share * float(array.std()) if array.ndim == 2 and array.any() else 0.0
        params[name] = (array + scale * noise).astype(np.float32) if scale else array
    return replace(bare, params=params)


def compressed(transformer: CompiledTransformer | BareTransformer, seed: int, share: float) -> BareTransformer:
    """Permuted weights, the residual stream compressed to its principal directions; nothing is trained.

    The stream's activations at all half-layers and places, over all inputs or a sample of them, have the (uncentred)
    principal directions V (width, ceil(share * width)). Every matrix W that reads becomes V^T W, every one that writes
    W V, embeddings and readout too. Much of a compiled stream is redundant (the tokens' directions sum up to `one`, PAD
    is never there), so that 0.9 often loses nothing.

    Args:
        seed: of the sample.
        share: of the directions that are kept, in (0, 1].
    """
    if not 0 < share <= 1:
        raise RaspError(f"a stream is compressed to a share of its directions in (0, 1], not {share}")
    bare = permuted(transformer, seed)
    gram = np.zeros((bare.width, bare.width))
    for group in input_codes(bare, seed):
        for stream in bare.activations(group).stream:
            flat = stream.reshape(-1, bare.width).astype(float)
            gram += flat.T @ flat
    _, vectors = np.linalg.eigh(gram)
    kept = vectors[:, ::-1][:, : math.ceil(share * bare.width - 1e-9)]
    largest = np.abs(kept).argmax(0)
    return with_stream(bare, kept * np.sign(kept[largest, np.arange(kept.shape[1])]))


# -- rungs that are trained ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RungTraining:
    """How a rung is trained: Adam with a cosine schedule, all matrices and embeddings, no biases.

    Attributes:
        steps: at most so many; training ends sooner where every input is right, but not before `least`.
        least: at least so many, however right the network is.
        batch: inputs a step, drawn with replacement.
        rate: the first step size, as a share of each matrix's root mean square.
        check: every so many steps all inputs are tried.
        sharpness: what a categorical readout, 0 or 1 where it is compiled, is multiplied by to make logits.
    """

    steps: int = 1_500
    least: int = 300
    batch: int = 128
    rate: float = 0.01
    check: int = 100
    sharpness: float = 10.0

    def __post_init__(self) -> None:
        for name in ("steps", "least", "batch", "check"):
            if getattr(self, name) < 1:
                raise RaspError(f"{name} is at least 1, not {getattr(self, name)}")
        for name in ("rate", "sharpness"):
            if not 0 < getattr(self, name) < math.inf:
                raise RaspError(f"{name} is a positive number, not {getattr(self, name)}")


FINETUNING = RungTraining()
FROM_SCRATCH = RungTraining(steps=4_000, rate=0.02)


def finetuned(
    transformer: CompiledTransformer | BareTransformer,
    seed: int,
    share: float,
    config: RungTraining = FINETUNING,
) -> BareTransformer:
    """Compressed, and then trained to answer as the original does.

    Lindner et al. (section 5.2) train one projection of the stream, shared by all matrices and with its transpose to
    read, by SGD on the output and on every layer's activations, and keep the compiled weights as they are. Here the
    projection begins at the principal directions, and then every matrix is free and is trained on the output alone:
    nothing ties what reads a direction to what writes it, which is how a network that was pruned and trained on looks.

    Args:
        share: of the directions that are kept.
    """
    bare = clean(transformer)
    wanted = answers_of(bare, input_codes(bare, seed))
    return _fitted(compressed(transformer, seed, share), wanted, seed, config)


def trained(
    transformer: CompiledTransformer | BareTransformer,
    seed: int,
    config: RungTraining = FROM_SCRATCH,
) -> BareTransformer:
    """A transformer of the compiled one's shape, trained from scratch on what that one answers.

    It answers on the same directions; all else about it is its own.
    """
    bare = clean(transformer)
    wanted = answers_of(bare, input_codes(bare, seed))
    random = np.random.default_rng([seed, 4])
    params = {}
    for name, array in bare.params.items():
        drawn = random.standard_normal(array.shape)
        if array.ndim == 1:
            params[name] = np.zeros_like(array)
            continue
        scale = 0.5 if name in (TOKENS, POSITIONS) else 1 / math.sqrt(len(array))
        if name.rsplit("/", 1)[0].endswith(WRITING):
            scale /= math.sqrt(2 * bare.num_layers)
        params[name] = (scale * drawn).astype(np.float32)
    return _fitted(replace(bare, params=params), wanted, seed, config)


def _fitted(bare: BareTransformer, wanted: Answers, seed: int, config: RungTraining) -> BareTransformer:
    """A transformer trained to answer as is wanted; the best of those that were tried on all inputs is kept."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the order of sums, and so every weight, must not hang on the number of cores
    try:
        network, data = _Network(bare), _data(bare, wanted)
        optimiser = torch.optim.Adam(
            [{"params": [p], "lr": config.rate * float(p.detach().square().mean().sqrt())} for p in network.trained],
            betas=(0.9, 0.98),
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        )
        random = np.random.default_rng([seed, 5])
        best, kept = share_right(bare, wanted), bare
        for step in range(config.steps):
            if step % config.check == 0 and step:
                found = network.bare()
                share = share_right(found, wanted)
                if share >= best:
                    best, kept = share, found
                if share == 1.0 and step >= config.least:
                    return kept
            rows = torch.from_numpy(random.integers(0, len(data.codes), config.batch))
            loss = network.loss(data, rows, config.sharpness)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        found = network.bare()
        return found if share_right(found, wanted) >= best else kept
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class _Data:
    """All inputs in one array, the short ones filled up with BOS, which nothing then sees.

    Attributes:
        codes: (n, places) tensor.
        hidden: (n, places) tensor, 0 or minus infinity where there is no place.
        classes: (n, places - 1) tensor of what is answered; -1 for None, -2 where there is no place.
        targets: (n, places - 1) tensor of numbers in units of `scale`, or None.
        scale: standard deviation of the numbers.
    """

    codes: Any
    hidden: Any
    classes: Any
    targets: Any
    scale: float


def _data(bare: BareTransformer, wanted: Answers) -> _Data:
    import torch

    places = bare.max_seq_len + 1

    def joined(groups: Sequence[np.ndarray], width: int, fill: int) -> np.ndarray:
        return np.concatenate([np.pad(g, ((0, 0), (0, width - g.shape[1])), constant_values=fill) for g in groups])

    bos = bare.space.index(BOS)
    codes = joined(wanted.codes, places, bos)
    classes = joined(wanted.classes, places - 1, -2)
    there = np.insert(classes > -2, 0, True, axis=1)
    hidden = np.where(there, 0.0, -np.inf).astype(np.float32)
    targets, scale = None, 1.0
    if wanted.numbers is not None:
        numbers = joined(wanted.targets, places - 1, 0).astype(np.float32)
        scale = max(1e-3, float(numbers[classes > -1].std())) if (classes > -1).any() else 1.0
        targets = torch.from_numpy(numbers)
    return _Data(torch.from_numpy(codes), torch.from_numpy(hidden), torch.from_numpy(classes), targets, scale)


class _Network:
    """The parameters of a transformer as tensors that are trained, without the columns that do nothing."""

    def __init__(self, bare: BareTransformer) -> None:
        import torch

        self.start = bare
        self.readout = _readout_of(bare)
        self.directions = torch.from_numpy(np.ascontiguousarray(self.readout.directions, np.float32))
        self.tensors: dict[str, Any] = {}
        self.parts: dict[str, tuple[Any, ...]] = {}
        self.heads: list[list[int]] = []
        for name in (TOKENS, POSITIONS):
            self._take(name, np.s_[:])
        for layer in range(bare.num_layers):
            prefix = f"transformer/layer_{layer}/"
            heads = [n for n in range(bare.num_heads) if bare.linear[layer][bare.head(n)].any()]
            self.heads.append(heads)
            columns = np.concatenate([np.arange(bare.key_size) + n * bare.key_size for n in heads] or [[]]).astype(int)
            units = np.flatnonzero(bare.second[layer].any(1))
            for matrix in MATRICES:
                chosen = columns if matrix.startswith("attn") else units
                if len(chosen):
                    self._take(f"{prefix}{matrix}/w", np.s_[chosen] if matrix in WRITING else np.s_[:, chosen])
        self.trained = [tensor for tensor in self.tensors.values() if bool(tensor.detach().any())]

    def _take(self, name: str, part: Any) -> None:
        import torch

        self.parts[name] = part
        self.tensors[name] = torch.tensor(self.start.params[name][part], requires_grad=True)

    def bare(self) -> BareTransformer:
        """The transformer as it is now."""
        params = dict(self.start.params)
        for name, tensor in self.tensors.items():
            array = params[name].copy()
            array[self.parts[name]] = tensor.detach().numpy()
            params[name] = array
        return replace(self.start, params=params)

    def stream(self, codes: Any, hidden: Any) -> Any:
        """(batch, places, width) the final stream."""
        import torch

        batch, places = codes.shape
        size, p = self.start.key_size, self.tensors
        mask = hidden[:, None, None]
        if self.start.causal:
            mask = mask + torch.full((places, places), -torch.inf).triu(1)
        stream = p[TOKENS][codes] + p[POSITIONS][:places]
        for layer in range(self.start.num_layers):
            prefix = f"transformer/layer_{layer}/"
            if self.heads[layer]:
                query, key, value = (
                    (stream @ p[f"{prefix}attn/{which}/w"]).view(batch, places, -1, size).transpose(1, 2)
                    for which in ("query", "key", "value")
                )
                scores = query @ key.transpose(2, 3) / math.sqrt(size) + mask
                mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, places, -1)
                stream = stream + mixed @ p[f"{prefix}attn/linear/w"]
            if f"{prefix}mlp/linear_1/w" in p:
                stream = stream + (stream @ p[f"{prefix}mlp/linear_1/w"]).relu() @ p[f"{prefix}mlp/linear_2/w"]
        return stream

    def loss(self, data: _Data, rows: Any, sharpness: float) -> Any:
        """How far the answers on some inputs are from what is wanted."""
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

        stream = self.stream(data.codes[rows], data.hidden[rows])[:, 1:]
        classes = data.classes[rows]
        read = stream @ self.directions
        if data.targets is None:
            if self.readout.strict:  # None is where nothing reaches 1/2
                read = torch.cat([read, torch.full_like(read[..., :1], 0.5)], -1)
            classes = torch.where(classes == -1, read.shape[-1] - 1, classes)
            return cross_entropy((sharpness * read).flatten(0, 1), classes.flatten(), ignore_index=-2)
        some = classes > -1
        errors = (read[..., 0] - data.targets[rows]) / data.scale
        loss = (errors.square() * some).sum() / some.sum().clamp(min=1)
        if self.readout.none is not None:
            there = classes > -2
            missing = sharpness * (stream @ torch.from_numpy(self.readout.none) - 0.5)
            loss = loss + binary_cross_entropy_with_logits(missing[there], (classes[there] == -1).float())
        return loss


# -- a folder of rungs -----------------------------------------------------------------------------------------------

RUNGS = (
    "clean", "permuted", "rotated", "noisy-0.01", "noisy-0.03", "noisy-0.1", "compressed-0.9", "compressed-0.75",
    "compressed-0.5", "finetuned-0.9", "finetuned-0.75", "finetuned-0.5", "trained",
)  # fmt: skip
"""The ladder, from the top."""
SOUND = 0.99
"""A network that is right on so large a share of inputs still does what its program does."""
METADATA_KEY = "weightspace.ladder"
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Rung:
    """One program's weights on one rung.

    Attributes:
        name: of the rung, as in `RUNGS`.
        bare: the weights, with where the answer stands.
        program: its text.
        seed: with which it was made.
        right: the share of inputs on which every place is answered as the compiled transformer answers it.
    """

    name: str
    bare: BareTransformer
    program: str
    seed: int
    right: float

    @property
    def sound(self) -> bool:
        """Whether the network itself still does what the program does; otherwise nobody can read it off."""
        return self.right >= SOUND


def make_rung(
    transformer: CompiledTransformer | BareTransformer,
    name: str,
    seed: int,
    *,
    finetuning: RungTraining = FINETUNING,
    from_scratch: RungTraining = FROM_SCRATCH,
) -> BareTransformer:
    """A transformer's weights on a rung.

    Args:
        name: `clean`, `permuted`, `rotated`, `trained`, or `noisy-`, `compressed-` or `finetuned-` and a share.
    Raises:
        RaspError: if there is no such rung.
    """
    kind, share = _rung(name)
    if kind == "noisy":
        return noisy(transformer, seed, share)
    if kind == "compressed":
        return compressed(transformer, seed, share)
    if kind == "finetuned":
        return finetuned(transformer, seed, share, finetuning)
    if kind == "trained":
        return trained(transformer, seed, from_scratch)
    return {"clean": clean, "permuted": permuted, "rotated": rotated}[kind](transformer, seed)


def _rung(name: str) -> tuple[str, float]:
    kind, dash, text = name.partition("-")
    with suppress(ValueError):
        share = float(text) if dash else 1.0
        wanted = kind in ("noisy", "compressed", "finetuned")
        if wanted == bool(dash) and 0 < share <= 1 and (wanted or kind in RUNGS):
            return kind, share
    raise RaspError(f"there is no rung {name!r}: they are {', '.join(RUNGS)}, with any share in (0, 1]")


def make_ladder(
    programs: Sequence[Program],
    rungs: Sequence[str],
    out: str | Path,
    seed: int,
    *,
    mode: Mode = "tracr_compat",
    finetuning: RungTraining = FINETUNING,
    from_scratch: RungTraining = FROM_SCRATCH,
    show_progress: bool = True,
) -> list[Path]:
    """Write programs' weights on rungs as `OUT/RUNG/NUMBER.safetensors`; what is there already is left.

    Each file is a pure function of program, rung, seed and configuration, and appears whole or not at all.

    Args:
        programs: that say for which vocabulary and length they are meant.
        rungs: names, as `make_rung` takes them.
        mode: how the programs are compiled.
    Returns:
        the files, rung by rung.
    Raises:
        RaspError: if a rung is not known, a program cannot be compiled, or a file there holds another program or was
            made with another seed.
    """
    for rung in rungs:
        _rung(rung)
    jobs = [(rung, number, program) for rung in rungs for number, program in enumerate(programs)]
    paths = [rung_path(out, rung, number) for rung, number, _ in jobs]
    texts = [str(program) for program in programs]
    missing = []
    for (rung, number, program), path in zip(jobs, paths, strict=True):
        if not path.exists():
            missing.append((rung, number, program, path))
        elif (found := _about(path))["program"] != texts[number] or found["seed"] != seed or found["rung"] != rung:
            raise RaspError(f"{path} holds another program, rung or seed: choose another folder, or delete it")
    done = len(jobs) - len(missing)
    with progress("ladder", len(jobs), "networks", show_progress, done=done) as advance:
        for rung, number, program, path in missing:
            bare = BareTransformer.of(compile_program(program, mode=mode))
            own = seed_of(seed, rung, texts[number])
            made = make_rung(bare, rung, own, finetuning=finetuning, from_scratch=from_scratch)
            right = share_right(made, answers_of(bare, input_codes(bare, own)))
            save_rung(Rung(rung, made, texts[number], seed, right), path)
            advance(1, rung)
    return paths


def rung_path(out: str | Path, rung: str, number: int) -> Path:
    """Where the weights of a program stand in a folder of a ladder."""
    return Path(out) / rung / f"{number:05d}.safetensors"


def seed_of(seed: int, rung: str, text: str) -> int:
    """The seed of one program on one rung, whatever else is made beside it."""
    return int.from_bytes(blake2b(f"{seed} {rung} {text}".encode(), digest_size=7).digest(), "big")


def save_rung(rung: Rung, path: str | Path) -> None:
    """Write a rung as safetensors: the parameters by Tracr's names, and all else as JSON in the metadata."""
    from safetensors.numpy import save

    bare, readout = rung.bare, _readout_of(rung.bare)
    about = {
        "format": FORMAT,
        "program": rung.program,
        "rung": rung.name,
        "seed": rung.seed,
        "right": rung.right,
        "vocab": list(bare.vocab),
        "num_heads": bare.num_heads,
        "causal": bare.causal,
        "mode": bare.mode,
        "readout": {
            "directions": readout.directions.tolist(),
            "values": None if readout.values is None else list(readout.values),
            "none": None if readout.none is None else readout.none.tolist(),
            "strict": readout.strict,
        },
    }
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in bare.params.items()}
    write_atomically(Path(path), save(arrays, {METADATA_KEY: json.dumps(about)}))


def load_rung(path: str | Path) -> Rung:
    """Read what `save_rung` has written.

    Raises:
        RaspError: if the file is missing, damaged, or holds something else.
    """
    about = _about(path)
    try:
        arrays, _ = read_safetensors(path)
        given = about["readout"]
        values, none = given["values"], given["none"]
        readout = Readout(
            np.array(given["directions"], np.float32),
            None if values is None else tuple(values),
            None if none is None else np.array(none, np.float32),
            given["strict"],
        )
        bare = BareTransformer.of_params(
            arrays,
            about["vocab"],
            num_heads=about["num_heads"],
            causal=about["causal"],
            mode=about["mode"],
            readout=readout,
        )
        if len(readout.directions) != bare.width:
            raise RaspError(f"its readout is of width {len(readout.directions)}, its stream of {bare.width}")
        return Rung(about["rung"], bare, about["program"], about["seed"], about["right"])
    except (KeyError, TypeError, ValueError) as error:
        raise RaspError(f"{path} does not fit its own description: {error}") from error


def _about(path: str | Path) -> dict[str, Any]:
    """What a rung's file says about itself."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            about = json.loads((file.metadata() or {})[METADATA_KEY])
        if about["format"] != FORMAT:
            raise RaspError(f"{path} is of format {about['format']!r}, this version reads {FORMAT}")
        return about
    except (SafetensorError, OSError) as error:
        raise RaspError(f"{path} is not a whole safetensors file: {error}") from error
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise RaspError(f"{path} holds no rung of a ladder: it was not written by make_ladder") from error
