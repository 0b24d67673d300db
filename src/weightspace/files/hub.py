"""Repositories of the Hugging Face hub, pinned to a commit before anything is fetched."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from weightspace.errors import WeightspaceError
from weightspace.files.extras import install_command

SCHEME = "hf://"
Kind = Literal["model", "dataset"]
"""Kinds of repositories: on the hub a zoo is a data set."""
TOKEN = "make one that may write at https://huggingface.co/settings/tokens, and set HF_TOKEN to it"
_NAMES_NONE = "that names no repository: give hf://OWNER/NAME@REVISION"
_WHY = {
    400: "the hub does not accept it",
    401: "it does not exist, or needs a token (HF_TOKEN)",
    403: "it is not open to you: the owner has to let you in, and HF_TOKEN has to be a token of yours",
    404: "it does not exist",
    412: "somebody has changed it meanwhile: run the same command again",
    429: "the hub has had too many requests: wait a while and run the same command again",
}


class HubError(WeightspaceError):
    """A name that is no repository's, or one that cannot be fetched or written."""


class MissingError(HubError):
    """There is no such repository, or none that the token may see."""


@dataclass(frozen=True)
class Stored:
    """What the hub knows of a file.

    Attributes:
        size: bytes.
        sha256: of its content, hexadecimal; None if it is kept in git itself, as small texts are.
        blob: hash by which git knows it.
    """

    size: int
    sha256: str | None
    blob: str


@dataclass(frozen=True)
class Repository:
    """A repository at one commit.

    Attributes:
        name: OWNER/NAME.
        commit: its full hash.
        files: names of all its files, sorted.
        kind: model or dataset.
        stored: what is known of each file, by its name; empty unless it was asked for.
    """

    name: str
    commit: str
    files: tuple[str, ...]
    kind: Kind = "model"
    stored: dict[str, Stored] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}@{self.commit}"

    def fetch(self, file: str, cache: Path | None = None, *, into: Path | None = None) -> Path:
        """One of its files on this machine; a transfer that broke off goes on where it was.

        Args:
            cache: where files are kept; the hub's own cache unless given.
            into: folder in which the file is put instead, under its name.
        Raises:
            HubError: if it cannot be fetched.
            OSError: if the disk is full.
        """
        from huggingface_hub import hf_hub_download

        place: dict[str, Any] = {"cache_dir": cache} if into is None else {"local_dir": into}
        with answering("fetched"):
            return Path(hf_hub_download(self.name, file, repo_type=self.kind, revision=self.commit, **place))


def repository(target: str, kind: Kind = "model", *, stored: bool = False) -> Repository:
    """The repository that hf://OWNER/NAME or hf://OWNER/NAME@REVISION names, as it is now or at that revision.

    Args:
        stored: ask for the sizes and hashes of its files too.
    Raises:
        HubError: if it names none, cannot be had, or the hub's library is missing; without the target, which the caller
            names.
    """
    if not re.fullmatch(rf"{SCHEME}[^/@\s]+/[^/@\s]+(@[^@\s]+)?", target):
        raise HubError(_NAMES_NONE)
    name, _, revision = target.removeprefix(SCHEME).partition("@")
    asked: dict[str, Any] = {"repo_type": kind, "revision": revision or None}
    with answering("fetched"):
        found: Any = api().repo_info(name, **asked, timeout=20, files_metadata=stored)
    siblings = found.siblings or ()
    known = {s.rfilename: _stored(s) for s in siblings} if stored else {}
    return Repository(name, str(found.sha), tuple(sorted(s.rfilename for s in siblings)), kind, known)


def _stored(sibling: Any) -> Stored:
    lfs = sibling.lfs
    return Stored(int(sibling.size or 0), None if lfs is None else str(lfs.sha256), str(sibling.blob_id))


def api() -> Any:
    """The hub's library, which is an extra.

    Raises:
        HubError: if it is not installed.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise HubError(f"the hub's library is not installed: {install_command('hub')}") from None
    return HfApi()


@contextmanager
def answering(done: str) -> Iterator[None]:
    """Turn whatever the hub's library raises inside into one sentence; the caller names the repository.

    Args:
        done: what could not be done to it: fetched or written.
    Raises:
        HubError: of what was wrong; a MissingError if there is no such repository.
        OSError: if the disk is full.
    """
    try:
        yield
    except HubError:
        raise
    except Exception as error:  # the hub's library changes the kind of its errors from version to version
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        kind = type(error).__name__
        missing = kind == "RepositoryNotFoundError"
        raise (MissingError if missing else HubError)(_failure(error, kind, done)) from None


def _failure(error: Exception, kind: str, done: str) -> str:
    if kind == "HFValidationError":
        return _NAMES_NONE
    status = getattr(getattr(error, "response", None), "status_code", None)
    if kind == "RevisionNotFoundError":
        why = "it has no such revision"
    elif kind == "LocalTokenNotFoundError":
        why = f"there is no token: {TOKEN}"
    elif done == "written" and status in (401, 403):
        why = f"the hub refuses the token, which is wrong, has expired or may not write there: {TOKEN}"
    elif kind == "OfflineModeIsEnabled":
        why = "HF_HUB_OFFLINE is set, so the hub is not asked"
    elif status is None:
        why = f"the hub does not answer ({kind}): is there a network?"
    else:
        why = _WHY.get(status, f"the hub answers {status}: try again later")
    return f"it could not be {done}: {why}"
