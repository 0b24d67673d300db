"""Options from a TOML file: `--config FILE.toml` gives what could stand on the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weightspace.cli.arguments import Argument
from weightspace.cli.words import SPOKEN, Values, converted, nearest

MOST = 2**20
"""Bytes of a file that is read."""


def options_of(file: Path, known: Sequence[Argument], name: str) -> Values:
    """What a TOML file says: a key is the name of an option of the verb, with dashes or underscores.

    Args:
        file: one value a key, or a list where the option takes several; true and false for flags.
        known: the arguments of the verb.
        name: of the command, for sentences.
    Raises:
        ValueError: if it is no TOML, or names an option that the verb does not have; the nearest is named.
    """
    with file.open("rb") as stream:
        content = stream.read(MOST + 1)
    if len(content) > MOST:
        raise ValueError(f"--config {file} is larger than {MOST:,} bytes: it has to be a TOML file of options")
    try:
        said = tomllib.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"--config {file} is no TOML: {error}") from None
    options = {argument.name: argument for argument in known if not argument.operand}
    values: Values = {}
    for key, value in said.items():
        argument = options.get(key.replace("_", "-"))
        if argument is None:
            meant = nearest(key.replace("_", "-"), options) or f": see {name} --help"
            raise ValueError(f"--config {file} has the key {key!r}, which is no option of {name}{meant}")
        values[argument] = _value(value, argument, name, f"{key!r} in {file}")
    return values


def _value(value: Any, argument: Argument, name: str, where: str) -> Any:
    if argument.kind is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{where} takes true or false, not {value!r}: see {name} --help")
        return value
    several = value if isinstance(value, list) else [value]
    if isinstance(value, bool) or not all(isinstance(one, str | int | float) for one in several):
        raise ValueError(f"{where} takes {SPOKEN[argument.kind]}, not {value!r}: see {name} --help")
    if argument.count is not None and len(several) != argument.count and not argument.repeated:
        raise ValueError(f"{where} takes {argument.count} value{'s' * (argument.count > 1)}, not {len(several)}")
    return converted([str(one) for one in several], argument, name, where)
