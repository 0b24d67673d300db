"""What went wrong because of what was given: every such error is a `WeightspaceError` with one plain sentence."""

from __future__ import annotations


class WeightspaceError(ValueError):
    """Something given cannot be used; the message says what was given, what was expected and what to do."""


class NetworkError(WeightspaceError):
    """Weights, or a file of weights, that cannot be used."""


class UnreadableError(NetworkError):
    """A file without weights that can be read, or one that is refused."""


class PlaceError(WeightspaceError):
    """A folder or URL that cannot be written to, or into which another run is writing."""


class ZooError(WeightspaceError):
    """A zoo directory that is missing, incomplete, damaged or of another kind."""


class RaspError(WeightspaceError):
    """A program, a function, an input or a file that is not as it has to be; the message says what to do."""


class ScopeError(WeightspaceError):
    """A network that the meta-model was not made for."""


class UnlikeWarning(UserWarning):
    """A network that a meta-model answers about although it is unlike anything that it was trained on."""


class TaskError(WeightspaceError):
    """A task that a zoo cannot answer, or a predictor that does not fit it."""


def printable(text: str) -> str:
    """Somebody else's text as it may stand in a sentence: what is no printable character is escaped.

    >>> printable("a\\nb")
    'a\\\\nb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
