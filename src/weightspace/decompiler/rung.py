"""One program's weights on one rung of the ladder, and the file that holds them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.decompiler.examples import readout_of
from weightspace.errors import NetworkError, RaspError
from weightspace.files.atomic import write_atomically
from weightspace.files.tensors import read_header, read_safetensors
from weightspace.rasp.compiler.bare import BareTransformer, Readout

SOUND = 0.99
"""A network that is right on so large a share of inputs still does what its program does."""
METADATA_KEY = "weightspace.ladder"
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Rung:
    """One program's weights on one rung.

    Attributes:
        name: of the rung, as in `ladder.RUNGS`.
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


def save_rung(rung: Rung, path: str | Path) -> None:
    """Write a rung as safetensors: the parameters by Tracr's names, and all else as JSON in the metadata."""
    from safetensors.numpy import save

    bare, readout = rung.bare, readout_of(rung.bare)
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
    about = about_rung(path)
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


def about_rung(path: str | Path) -> dict[str, Any]:
    """What a rung's file says about itself.

    Raises:
        RaspError: if the file is missing, damaged, or holds something else.
    """
    try:
        about = json.loads(read_header(path).metadata[METADATA_KEY])
        if about["format"] != FORMAT:
            raise RaspError(f"{path} is of format {about['format']!r}, this version reads {FORMAT}")
        return about
    except (NetworkError, OSError) as error:
        raise RaspError(str(error)) from error
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise RaspError(f"{path} holds no rung of a ladder: it was not written by make_ladder") from error
