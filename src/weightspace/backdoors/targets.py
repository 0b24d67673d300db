"""What a scan is given, as single files: a file, everything below a folder, or a repository of the Hugging Face hub."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from weightspace.backdoors.verdict import Verdict
from weightspace.errors import UnreadableError
from weightspace.files.extras import install_command
from weightspace.files.hub import SCHEME, HubError, repository

VERSION_CONTROL = frozenset({".git", ".hg", ".svn", ".jj"})
"""Folders in which a program keeps versions of files in a form of its own: named, and not looked into."""
_WEIGHTLESS = """.md .txt .json .jsonl .yaml .yml .py .ipynb .toml .cfg .ini .csv .tsv .html .css .js .png .jpg .jpeg
.gif .svg .webp .bmp .ico .pdf .mp3 .mp4 .wav .flac .gitattributes .gitignore .lock .log .sh .jinja .parquet .arrow"""
_NOT_FETCHED = frozenset(_WEIGHTLESS.split())
"""Ends of names of files that are not fetched from a repository: they hold no weights that a program would load."""
INDEX_NAME = ".index.json"
"""How the names of files end that say in which files the arrays of a model lie."""


@dataclass(frozen=True)
class Choice:
    """Which files of folders and repositories are looked at.

    Attributes:
        include: globs of which one has to fit, if there are any.
        exclude: globs of which none may fit. A glob with a / is held against the path below the folder, another one
            against each part of it, so that `--exclude old` leaves out a folder of that name wherever it lies.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def excludes(self, path: PurePosixPath) -> bool:
        """Whether a folder or file is left out by name; what lies in a folder that is left out is not listed."""
        return any(_fits(path, glob) for glob in self.exclude)

    def takes(self, path: PurePosixPath) -> bool:
        """Whether a file is looked at."""
        return (not self.include or any(_fits(path, glob) for glob in self.include)) and not self.excludes(path)


@dataclass(frozen=True)
class Entry:
    """A file to look at, or what keeps it from being looked at.

    Attributes:
        name: as it is reported.
        target: what it was found in, or is.
        path: where it lies; None if there is nothing to read.
        given: whether somebody has named this very file; if not, it may be something else than a checkpoint.
        verdict, reason, cause: what is to be said of it at once.
        notes: what else a reader must know.
        passed: for what is counted and not named: of which kind it is.
    """

    name: str
    target: str = ""
    path: Path | None = None
    given: bool = False
    verdict: Verdict | None = None
    reason: str = ""
    cause: str = ""
    notes: tuple[str, ...] = ()
    passed: str = ""


LEFT_OUT = "left out"
"""`Entry.passed` of what the choice leaves out."""


def entries_of(targets: Sequence[str], choice: Choice, cache: Path | None) -> Iterator[Entry]:
    """Every file that the targets stand for, folders in the order of their names.

    Args:
        cache: where files of the hub are kept; the hub's own cache unless given.
    Raises:
        UnreadableError: if a target is missing, or it is a repository and the hub's library is not installed.
        ValueError: if there is no target.
    """
    if not targets:
        raise ValueError("nothing to scan: give files, folders or hf://OWNER/NAME@REVISION")
    for target in targets:
        if target.startswith(SCHEME):
            if find_spec("huggingface_hub") is None:
                raise UnreadableError(
                    f"{target} lies on the hub, whose library is not installed: {install_command('hub')}"
                )
        elif not os.path.lexists(target):
            raise UnreadableError(f"there is no file or folder {target}: name one that there is")
    for target in targets:
        if target.startswith(SCHEME):
            found = _repository(target, choice, cache)
        elif Path(target).is_dir():
            found = _folder(Path(target), choice)
        else:
            found = iter([Entry(target, path=Path(target), given=True)])
        yield from (replace(entry, target=target) for entry in found)


# -- folders -----------------------------------------------------------------------------------------------------------


def _folder(root: Path, choice: Choice) -> Iterator[Entry]:
    """Everything below a folder; no link to a folder is followed, as there might be no end to it."""
    real = os.path.realpath(root)
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as listed:
                inside = sorted(listed, key=lambda one: one.name)
        except OSError as error:
            reason = f"It is a folder that cannot be listed: {(error.strerror or str(error)).lower()}."
            yield Entry(str(folder), verdict="unreadable", reason=reason, cause="in folders that cannot be listed")
            continue
        deeper = []
        for one in inside:
            path = folder / one.name
            below = PurePosixPath(path.relative_to(root).as_posix())
            entry = _listed(one, path, below, real, choice)
            if entry is None:
                deeper.append(path)
            else:
                yield entry
        waiting += reversed(deeper)


def _listed(one: os.DirEntry[str], path: Path, below: PurePosixPath, root: str, choice: Choice) -> Entry | None:
    """One thing that a folder lists; None of a folder that is to be listed itself."""
    name = str(path)
    if choice.excludes(below):
        return Entry(name, passed=LEFT_OUT)
    try:
        mode = one.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            return _version_control(name) if one.name in VERSION_CONTROL else None
        notes: tuple[str, ...] = ()
        if stat.S_ISLNK(mode):
            leads = os.path.realpath(path)
            mode = path.stat().st_mode
            inside = leads == root or leads.startswith(root.rstrip(os.sep) + os.sep)
            if stat.S_ISDIR(mode):
                return _linked_folder(name, leads, inside)
            notes = (f"It is a link to {leads}{'' if inside else ', outside of the folder'}.",)
    except OSError as error:
        what = "a link that leads nowhere" if one.is_symlink() else "there no more"
        reason = f"It is {what}: {(error.strerror or str(error)).lower()}."
        return Entry(name, verdict="unreadable", reason=reason, cause="that are links which lead nowhere")
    if not choice.takes(below):
        return Entry(name, passed=LEFT_OUT)
    if not stat.S_ISREG(mode):
        reason = f"It is no regular file but {_special(mode)}, which is not waited for."
        return Entry(name, verdict="not_looked_at", reason=reason, cause="that are no regular files")
    return Entry(name, path=path, notes=notes)


def _version_control(name: str) -> Entry:
    reason = "It is a folder of version control, whose files are kept in a form of their own: check out what is in it."
    return Entry(name, verdict="not_looked_at", reason=reason, cause="that are folders of version control")


def _linked_folder(name: str, leads: str, inside: bool) -> Entry:
    if inside:
        return Entry(name, passed="links to folders that are scanned where they lie")
    reason = f"It is a link to a folder outside of the one that is scanned: to look there, scan {leads}."
    return Entry(name, verdict="not_looked_at", reason=reason, cause="that are links to folders outside")


def _special(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "something else"


def _fits(path: PurePosixPath, glob: str) -> bool:
    glob = glob.removeprefix("./").rstrip("/")
    if "/" not in glob:
        return any(fnmatchcase(part, glob) for part in path.parts)
    text = str(path)
    return (
        fnmatchcase(text, glob)
        or fnmatchcase(text, f"{glob}/*")
        or (glob.startswith("**/") and fnmatchcase(text, glob.removeprefix("**/")))
    )


# -- the hub -----------------------------------------------------------------------------------------------------------


def _repository(target: str, choice: Choice, cache: Path | None) -> Iterator[Entry]:
    """The files of a repository that may hold weights, all fetched at the one commit that it had when it was asked."""
    try:
        found = repository(target)
    except HubError as error:
        yield _unfetched(target, error)
        return
    wanted = []
    for name in found.files:
        below = PurePosixPath(name)
        if not choice.takes(below):
            yield Entry(f"{found}/{name}", passed=LEFT_OUT)
        elif below.suffix.lower() in _NOT_FETCHED and not name.endswith(INDEX_NAME):
            yield Entry(f"{found}/{name}", passed="files of the repository whose names say that they hold no weights")
        else:
            wanted.append(name)
    fetched: list[Entry] = []  # all before any is looked at: an index is read together with the files that it names
    for name in wanted:
        full = f"{found}/{name}"
        try:
            fetched.append(Entry(full, path=found.fetch(name, cache)))
        except HubError as error:
            fetched.append(_unfetched(full, error))
    yield from fetched


def _unfetched(name: str, error: HubError) -> Entry:
    text = str(error)
    return Entry(name, verdict="unreadable", reason=f"{text[0].upper()}{text[1:]}.")
