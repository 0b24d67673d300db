"""Repositories of the Hugging Face hub, pinned to a commit before anything is fetched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SCHEME = "hf://"
_WHY = {401: "it does not exist, or needs a token", 403: "it is not open to you", 404: "it does not exist"}


class HubError(ValueError):
    """A name that is no repository's, or one that cannot be fetched."""


@dataclass(frozen=True)
class Repository:
    """A repository at one commit.

    Attributes:
        name: OWNER/NAME.
        commit: its full hash.
        files: names of all its files, sorted.
    """

    name: str
    commit: str
    files: tuple[str, ...]

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}@{self.commit}"

    def fetch(self, file: str, cache: Path | None = None) -> Path:
        """One of its files on this machine.

        Args:
            cache: where files are kept; the hub's own cache unless given.
        Raises:
            HubError: if it cannot be fetched.
        """
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(self.name, file, revision=self.commit, cache_dir=cache))
        except Exception as error:  # the hub's library changes the kind of its errors from version to version
            raise HubError(_failure(error)) from None


def repository(target: str) -> Repository:
    """The repository that hf://OWNER/NAME or hf://OWNER/NAME@REVISION names, as it is now or at that revision.

    Raises:
        HubError: if it names none, cannot be had, or the hub's library is missing; without the target, which the caller
            names.
    """
    if not re.fullmatch(rf"{SCHEME}[^/@\s]+/[^/@\s]+(@[^@\s]+)?", target):
        raise HubError("that names no repository: give hf://OWNER/NAME@REVISION")
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise HubError("to read from the hub install weightspace[hub]") from None
    name, _, revision = target.removeprefix(SCHEME).partition("@")
    try:
        found = HfApi().model_info(name, revision=revision or None, timeout=20)
    except Exception as error:  # the hub's library changes the kind of its errors from version to version
        raise HubError(_failure(error)) from None
    files = sorted(sibling.rfilename for sibling in found.siblings or ())
    return Repository(name, str(found.sha), tuple(files))


def _failure(error: Exception) -> str:
    if type(error).__name__ == "HFValidationError":
        return "that names no repository: give hf://OWNER/NAME@REVISION"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is None:
        return f"it could not be fetched: the hub does not answer ({type(error).__name__})"
    return f"it could not be fetched: {_WHY.get(status, f'the hub answers {status}')}"
