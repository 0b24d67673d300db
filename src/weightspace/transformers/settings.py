"""The settings of a checkpoint, each read with its type and a sentence where it is missing or of another kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightspace.errors import NetworkError, UnreadableError
from weightspace.files.json_text import json_object

LARGEST = 16 * 2**20
"""Bytes of a file of settings."""
_MISSING = object()


@dataclass(frozen=True)
class Settings:
    """Names and values out of config.json, a GGUF header, or a mapping.

    Attributes:
        said: the values; never executed, only compared.
        where: whose they are, for messages.
    """

    said: Mapping[str, Any]
    where: str

    @classmethod
    def read(cls, path: Path) -> Settings:
        """A file of JSON.

        Raises:
            UnreadableError: if it cannot be read, or holds no object.
        """
        try:
            with path.open("rb") as file:
                raw = file.read(LARGEST + 1)
            if len(raw) > LARGEST:
                raise ValueError(f"it is larger than {LARGEST:,} bytes")
            return cls(json_object(raw), str(path))
        except OSError as error:
            raise UnreadableError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
        except ValueError as error:
            raise UnreadableError(f"{path} holds no settings: {error}") from None

    def __contains__(self, name: str) -> bool:
        return self.said.get(name) is not None

    def _value(self, name: str, default: Any) -> Any:
        value = self.said.get(name)
        if value is not None:
            return value
        if default is _MISSING:
            raise NetworkError(f"{self.where} does not say {name}: give it in config")
        return default

    def integer(self, name: str, default: Any = _MISSING, *, least: int = 1) -> int:
        """A whole number of at least `least`."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 2**31:
            raise NetworkError(f"{self.where} says {name} {value!r}: expected a whole number from {least}")
        return value

    def number(self, name: str, default: Any = _MISSING) -> float:
        """A finite number above 0."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            raise NetworkError(f"{self.where} says {name} {value!r}: expected a number above 0")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """Yes or no."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise NetworkError(f"{self.where} says {name} {value!r}: expected true or false")
        return value

    def text(self, name: str, default: Any = _MISSING) -> str:
        """A word."""
        value = self._value(name, default)
        if not isinstance(value, str):
            raise NetworkError(f"{self.where} says {name} {value!r}: expected a word")
        return value

    def inner(self, name: str) -> Settings:
        """Settings within these; empty if there are none."""
        value = self.said.get(name)
        if value is None:
            return Settings({}, self.where)
        if not isinstance(value, Mapping):
            raise NetworkError(f"{self.where} says {name} {value!r}: expected an object")
        return Settings(value, f"{self.where} ({name})")

    def refuse(self, name: str, why: str) -> None:
        """Stop where something is set that is not done here."""
        if self.said.get(name):
            raise NetworkError(f"{self.where} says {name} {self.said[name]!r}: {why}")
