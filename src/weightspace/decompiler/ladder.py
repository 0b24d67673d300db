"""The ladder: the same programs' weights, step by step further from what the compiler wrote, file by file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from weightspace.decompiler.distortion import clean, compressed, noisy, permuted, rotated
from weightspace.decompiler.examples import answers_of, input_codes, share_right
from weightspace.decompiler.rung import Rung, about_rung, save_rung
from weightspace.decompiler.training import FINETUNING, FROM_SCRATCH, RungTraining, finetuned, trained
from weightspace.errors import RaspError
from weightspace.files.progress import progress
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.compiler.transformer import CompiledTransformer
from weightspace.rasp.program import Program
from weightspace.rasp.validate import Mode

RUNGS = (
    "clean", "permuted", "rotated", "noisy-0.01", "noisy-0.03", "noisy-0.1", "compressed-0.9", "compressed-0.75",
    "compressed-0.5", "finetuned-0.9", "finetuned-0.75", "finetuned-0.5", "trained",
)  # fmt: skip
"""The ladder, from the top."""


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
        elif (found := about_rung(path))["program"] != texts[number] or found["seed"] != seed or found["rung"] != rung:
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
