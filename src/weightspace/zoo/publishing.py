"""Zoos and models to and from a hub repository or a folder of the same layout: what differs, checked, manifest last."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from weightspace.errors import WeightspaceError
from weightspace.files.atomic import file_hash, write_atomically
from weightspace.files.hub import SCHEME, TOKEN, HubError, Kind, MissingError, Repository, answering, api, repository
from weightspace.files.lock import writing
from weightspace.files.progress import progress
from weightspace.zoo.store import DESCRIPTION, FORMAT, INDEX, MANIFEST, PULLING, SHARDS, sealed, unsealed

CARD = "README.md"
MODEL = "model.safetensors"
SOURCE = "source.json"
"""Inside `PULLING`: where the rest of a pull is to come from, and at which revision."""
MB = 10**6
COMMIT = 64 * MB
"""Bytes of files that go into one commit at least, where there are so many; of a large zoo a hundredth goes into one,
as the hub takes only so many commits an hour."""
BLOCK = 2**20


class PublishingError(WeightspaceError):
    """Something that cannot be pushed or pulled, or a place that it cannot go to or come from."""


@dataclass(frozen=True)
class Publishable:
    """What can be published.

    Attributes:
        word: for messages, and the group of its verbs.
        kind: of its repository.
        names: what its files may be called, as a regular expression; nothing else is ever written by a pull.
        needed: files without which it is none.
    """

    word: str
    kind: Kind
    names: str
    needed: tuple[str, ...]

    def owns(self, name: str) -> bool:
        return re.fullmatch(self.names, name) is not None


ZOO_FORM = Publishable(
    "zoo",
    "dataset",
    rf"{re.escape(DESCRIPTION)}|{re.escape(INDEX)}|{SHARDS}/[0-9]{{5,9}}\.(safetensors|parquet)",
    (DESCRIPTION, INDEX),
)
MODEL_FORM = Publishable("model", "model", re.escape(MODEL), (MODEL,))
FORMS = (ZOO_FORM, MODEL_FORM)


@dataclass(frozen=True)
class Content:
    """A file to be pushed.

    Attributes:
        source: a file, or its bytes.
        sha256: what they have to be, hexadecimal.
        size: bytes.
    """

    source: Path | bytes
    sha256: str
    size: int

    @staticmethod
    def of(source: Path | bytes, sha256: str | None = None) -> Content:
        """A file as it is now.

        Args:
            sha256: what it has to be, where that is known.
        Raises:
            PublishingError: if there is no such file.
        """
        if isinstance(source, bytes):
            return Content(source, hashlib.sha256(source).hexdigest(), len(source))
        if not source.is_file():
            raise PublishingError(f"{source} is missing: restore it first")
        return Content(source, sha256 or file_hash(source), source.stat().st_size)

    def check(self) -> None:
        """Raise a PublishingError unless the file is what it has to be."""
        if isinstance(self.source, Path) and file_hash(self.source) != self.sha256:
            raise PublishingError(f"{self.source} is damaged: nothing damaged is pushed; restore it first")


@dataclass(frozen=True)
class Transfer:
    """What a push or a pull came to.

    Attributes:
        address: of the repository, or the folder it was pushed to or pulled from.
        revision: its commit; of a folder the SHA-256 of its manifest.
        files: how many there are.
        moved: how many of them had to be carried; the others were there.
        moved_bytes: of those.
    """

    address: str
    revision: str
    files: int
    moved: int
    moved_bytes: int

    def __str__(self) -> str:
        moved = f"{self.moved} of them carried ({self.moved_bytes / MB:,.1f} MB)" if self.moved else "all there already"
        return f"revision {self.revision}, {self.files} files, {moved}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


# -- pushing --------------------------------------------------------------------------------------------------------


def model_manifest(model: Content) -> Content:
    """The manifest of a model's repository, which has the hash of its file as a zoo's has those of its own."""
    return Content.of(sealed({"format": FORMAT, "kind": MODEL_FORM.word, "sha256": {MODEL: model.sha256}}))


def push(
    files: Mapping[str, Content],
    form: Publishable,
    target: str,
    *,
    private: bool = False,
    replace: bool = False,
    show: bool = True,
) -> Transfer:
    """Bring files to a place; a push that was killed goes on when it is called again.

    Files that are there with the same content stay; the manifest comes last, so that half a push passes for none.

    Args:
        files: by their names there, the card and the manifest among them.
        target: OWNER/NAME, or a folder: ./FOLDER, /FOLDER or file:FOLDER.
        private: if the repository has to be made, for you alone.
        replace: let it take the place of something else that is there; on the hub that stays in the history.
        show: show the progress on standard error.
    Raises:
        PublishingError: if a file is damaged, or the place holds something else.
        HubError: if the hub does not let it.
    """
    place = place_of(target, form, private=private)
    if isinstance(place, HubPlace) and place.asked is not None:
        raise PublishingError(f"{target}: a push makes a new revision, so leave @{place.asked} out")
    place.may_write()
    there = place.look()
    # Beside each other both would be ruined, as both have a manifest
    for other in FORMS:
        if other is not form and any(other.owns(name) for name in there):
            raise PublishingError(f"{place} holds a {other.word}, and this is a {form.word}: choose another place")
    if not replace:
        _check_free(place, there, files, form)
    with _megabytes("checking", sum(content.size for content in files.values()), show) as advance:
        for content in files.values():
            content.check()
            advance(content.size)
    differing = [name for name, content in files.items() if name not in there or not place.holds(name, content)]
    surplus = [name for name in there if form.owns(name) and name not in files]
    if differing or surplus:
        _send(place, files, differing, surplus, MANIFEST in there, show)
    carried = sum(files[name].size for name in differing)
    return Transfer(place.address, place.revision, len(files), len(differing), carried)


def _check_free(place: Place, there: Mapping[str, int], files: Mapping[str, Content], form: Publishable) -> None:
    """Raise a PublishingError if a place holds anything but these files or a part of them."""
    if MANIFEST in there:
        if place.holds(MANIFEST, files[MANIFEST]):
            return
        raise PublishingError(
            f"{place} holds another {form.word} already: choose another place, or let this one take its place by "
            "--replace"
        )
    foreign = [name for name in there if not form.owns(name) and not _hidden(name)]
    # the card of a push that was killed at its very end is ours
    foreign = [name for name in foreign if not (name == CARD and place.holds(CARD, files[CARD]))]
    if foreign:
        raise PublishingError(
            f"{place} holds something else ({', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}): choose "
            f"another place, or put the {form.word} beside it by --replace"
        )


def _send(
    place: Place,
    files: Mapping[str, Content],
    differing: Sequence[str],
    surplus: Sequence[str],
    complete: bool,
    show: bool,
) -> None:
    """Bring files to a place, several at a time.

    Args:
        complete: whether there is a manifest, which must not stay while the files that it speaks of change.
    """
    total = sum(files[name].size for name in differing)
    data = [name for name in differing if name not in (CARD, MANIFEST)]
    parts: list[list[str]] = [[]]
    for name in data:
        if parts[-1] and sum(files[other].size for other in parts[-1]) + files[name].size > place.portion(total):
            parts.append([])
        parts[-1].append(name)
    # whatever else has changed, the manifest is written anew if it was taken away
    last = [name for name in (CARD, MANIFEST) if name in differing or (name == MANIFEST and (data or surplus))]
    with _megabytes(f"pushing to {place}", total, show) as advance:
        for part in parts[:-1]:
            place.change({name: files[name] for name in part}, [MANIFEST] if complete else [], advance)
            complete = False
        place.change({name: files[name] for name in (*parts[-1], *last)}, surplus, advance)


# -- pulling --------------------------------------------------------------------------------------------------------


def pull(source: str, form: Publishable, folder: str | Path, *, show: bool = True) -> Transfer:
    """Bring what was pushed into a folder; a pull that was killed goes on, at the revision at which it began.

    Every file is compared with its hash before it gets its name, and the manifest is written last. Nothing is executed,
    and nothing written but files with the names that a zoo or a model has.

    Args:
        source: OWNER/NAME or OWNER/NAME@REVISION, or a folder: ./FOLDER, /FOLDER or file:FOLDER.
        show: show the progress on standard error.
    Raises:
        PublishingError: if there is no such thing, it is of another kind or damaged, or the folder holds something
            else.
        HubError: if the hub does not let it.
        OSError: if the disk is full; what was finished stays.
    """
    folder, place = Path(folder), place_of(source, form)
    begun = _begun(folder, place)
    there = place.look(begun)
    if MANIFEST not in there:
        if not there:
            raise PublishingError(f"{place}: there is nothing to pull")
        raise PublishingError(
            f"{place} has no {MANIFEST}: its push has not come to its end, or it is no {form.word} of weightspace"
        )
    manifest = place.read(MANIFEST)
    hashes = _hashes(manifest, form, place)
    whole = _check_target(folder, manifest, begun is not None, form)
    with writing(folder):
        whole = _check_target(folder, manifest, begun is not None, form)  # again: another run may have come first
        missing = _missing(folder, hashes, whole, form)
        absent = [name for name in missing if name not in there]
        if absent:
            raise PublishingError(f"{place} lacks {absent[0]}, which its manifest names: it has to be pushed again")
        sizes = {name: there[name] for name in missing}
        _check_room(folder, sum(sizes.values()), place)
        if missing or not whole:
            record = {**place.identity(), "revision": place.revision}
            write_atomically(folder / PULLING / SOURCE, json.dumps(record).encode())
            with _megabytes(f"pulling from {place}", sum(sizes.values()), show) as advance:
                for name, size in sizes.items():
                    _fetch(place, name, hashes[name], folder)
                    advance(size)
            write_atomically(folder / MANIFEST, manifest)
        shutil.rmtree(folder / PULLING, ignore_errors=True)
    return Transfer(place.address, place.revision, len(hashes) + 1, len(sizes), sum(sizes.values()))


def _begun(folder: Path, place: Place) -> str | None:
    """The revision of a pull from this place that was killed; None if there was none.

    Raises:
        PublishingError: if the folder holds half of something else.
    """
    path = folder / PULLING / SOURCE
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_bytes())
        revision = record.pop("revision")
        if record == place.identity() and isinstance(revision, str):
            return revision
        origin = record["from"]
    except (ValueError, KeyError, TypeError, AttributeError):
        origin = "somewhere that cannot be read"
    raise PublishingError(f"{folder} holds half a pull from {origin}: end that one, delete it, or choose another --out")


def _hashes(manifest: bytes, form: Publishable, place: Place) -> dict[str, str]:
    """The hash of each file that a manifest names.

    Raises:
        PublishingError: if it is damaged, of something else, or names a file that may not be written.
    """
    try:
        record = unsealed(manifest)
        word, version, hashes = record.get("kind", ZOO_FORM.word), record["format"], record["sha256"]
        if not all(isinstance(sha, str) and re.fullmatch("[0-9a-f]{64}", sha) for sha in hashes.values()):
            raise ValueError("it has no hashes")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise PublishingError(
            f"{place}: its {MANIFEST} is damaged: pull again, or ask its owner to push it again"
        ) from None
    if word != form.word:
        if word in [other.word for other in FORMS]:
            raise PublishingError(f"{place} holds a {word}, no {form.word}: use `weightspace {word} pull`")
        raise PublishingError(f"{place} holds no {form.word}, but a {word!r}, which this weightspace does not know")
    if version != FORMAT:
        raise PublishingError(f"{place} has format {version}, this weightspace reads format {FORMAT}: get another one")
    for name in hashes:
        if not form.owns(name):
            raise PublishingError(f"{place} names a file {name!r}, which no {form.word} has: nothing was fetched")
    lacking = [name for name in form.needed if name not in hashes]
    if lacking:
        raise PublishingError(f"{place} is no {form.word}: it has no {lacking[0]}")
    return hashes


def _check_target(folder: Path, manifest: bytes, begun: bool, form: Publishable) -> bool:
    """Whether a folder holds the same manifest already.

    Raises:
        PublishingError: if it holds something else; nothing in it is touched.
    """
    if folder.exists() and not folder.is_dir():
        raise PublishingError(f"{folder} is a file: choose a folder for the {form.word}")
    if (folder / MANIFEST).is_file():
        if (folder / MANIFEST).read_bytes() == manifest:
            return True
        raise PublishingError(f"{folder} holds another {form.word}, which stays as it is: choose another --out")
    ours = (".lock", PULLING)  # what a pull that was refused or killed at its very start leaves
    if not begun and folder.exists() and any(path.name not in ours for path in folder.iterdir()):
        raise PublishingError(f"{folder} is not empty, and nothing in it was touched: choose another --out")
    return False


def _missing(folder: Path, hashes: Mapping[str, str], whole: bool, form: Publishable) -> list[str]:
    """The files that a folder lacks.

    Raises:
        PublishingError: if a folder that was whole has another one, which may be somebody's work.
    """
    missing = []
    for name, sha in hashes.items():
        if not (folder / name).is_file():
            missing.append(name)
        elif file_hash(folder / name) != sha:
            if whole and not (folder / PULLING).exists():
                raise PublishingError(
                    f"{folder / name} is not what the {form.word} has there: delete it and pull again, or choose "
                    "another --out"
                )
            missing.append(name)
    return missing


def _check_room(folder: Path, needed: int, place: Place) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise PublishingError(
            f"{place} needs {needed / MB:,.0f} MB more, and {folder} has {free / MB:,.0f} MB free: free some space and "
            "run the same command again"
        )


def _fetch(place: Place, name: str, sha256: str, folder: Path) -> None:
    """Bring one file, which gets its name once it is whole.

    Raises:
        PublishingError: if it arrives damaged twice.
    """
    for _ in range(2):
        staged = place.fetch(name, folder / PULLING)
        if file_hash(staged) == sha256:
            break
        staged.unlink()
    else:
        raise PublishingError(
            f"{place}: {name} differs from its checksum, twice: it is damaged there or on the way; run the same "
            "command again, and if that does not help ask its owner to push it again"
        )
    with staged.open("rb+") as file:
        os.fsync(file.fileno())
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    staged.replace(folder / name)


# -- places ---------------------------------------------------------------------------------------------------------


class Place(ABC):
    """Where something is published: files by their names, at a revision."""

    @abstractmethod
    def __str__(self) -> str:
        """For messages."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Where people find it."""

    @property
    @abstractmethod
    def revision(self) -> str:
        """At which it is read, or to which it was written last."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """`from` and whatever else tells one place from another, as JSON."""

    @abstractmethod
    def may_write(self) -> None:
        """Say that it is to be written to; raise an error if it is clear at once that this cannot be."""

    @abstractmethod
    def look(self, revision: str | None = None) -> dict[str, int]:
        """Sizes of all its files by their names; from now on they are read at that revision, or at the present one."""

    @abstractmethod
    def holds(self, name: str, content: Content) -> bool:
        """Whether a file that is there has this content."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """A small file."""

    @abstractmethod
    def fetch(self, name: str, folder: Path) -> Path:
        """Bring a file into a folder, under its name; it may arrive damaged."""

    @abstractmethod
    def portion(self, total: int) -> int:
        """Bytes that one change may carry of so many."""

    @abstractmethod
    def change(self, files: Mapping[str, Content], gone: Sequence[str], advance: Callable[[int], None]) -> None:
        """Write files and delete others, in this order, and call `advance` with the bytes that were written."""


def place_of(target: str, form: Publishable, *, private: bool = False) -> Place:
    """The place that a person names: OWNER/NAME, OWNER/NAME@REVISION, or a folder ./FOLDER, /FOLDER or file:FOLDER.

    Raises:
        PublishingError: if it is neither.
    """
    if target.startswith(("/", "./", "../", "~", "file:")) or target in (".", ".."):
        path = re.sub("^//", "", target.removeprefix("file:"))
        return FolderPlace(Path(path).expanduser(), form)
    found = re.fullmatch(rf"(?:{SCHEME})?([\w.-]+/[\w.-]+)(?:@([^@\s]+))?", target, re.ASCII)
    if found is None:
        raise PublishingError(
            f"{target!r} is no place: give OWNER/NAME for a repository of the hub (to pull also OWNER/NAME@REVISION), "
            "or ./FOLDER, /FOLDER or file:FOLDER"
        )
    if found[2] is None and Path(found[1]).is_dir() and not target.startswith(SCHEME):
        raise PublishingError(
            f"{target} is a folder here, and may be a repository of the hub too: write ./{target} or {SCHEME}{target}"
        )
    return HubPlace(found[1], found[2], form, private)


class FolderPlace(Place):
    """A folder with the layout of a repository; it has no history."""

    def __init__(self, folder: Path, form: Publishable) -> None:
        self.folder, self.form = folder, form

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def address(self) -> str:
        return str(self.folder)

    @property
    def revision(self) -> str:
        return file_hash(self.folder / MANIFEST)

    def identity(self) -> dict[str, Any]:
        return {"from": str(self.folder.resolve())}

    def may_write(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise PublishingError(f"{self} is a file: choose a folder")

    def look(self, revision: str | None = None) -> dict[str, int]:
        # what we look for lies no deeper, and the folder may be somebody's whole disk
        files = [path for pattern in ("*", "*/*") for path in self.folder.glob(pattern) if path.is_file()]
        named = {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in files}
        found = {name: size for name, size in named.items() if not _hidden(name)}
        if revision is not None and (MANIFEST not in found or self.revision != revision):
            raise PublishingError(f"{self} has changed since the pull began: delete what was pulled and begin anew")
        return found

    def holds(self, name: str, content: Content) -> bool:
        return file_hash(self.folder / name) == content.sha256

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def fetch(self, name: str, folder: Path) -> Path:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _copy(self.folder / name, folder / name)
        return folder / name

    def portion(self, total: int) -> int:
        del total  # file by file
        return 0

    def change(self, files: Mapping[str, Content], gone: Sequence[str], advance: Callable[[int], None]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # without a history the manifest goes first and comes last
        for name in (MANIFEST, *gone) if MANIFEST in files else gone:
            (self.folder / name).unlink(missing_ok=True)
        for name, content in files.items():
            path = self.folder / name
            if isinstance(content.source, bytes):
                write_atomically(path, content.source)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                # of one name, so that the next push takes the place of what a killed one leaves
                temporary = path.with_name(f".{path.name}.tmp")
                _copy(content.source, temporary)
                if file_hash(temporary) != content.sha256:
                    temporary.unlink()
                    raise PublishingError(f"{content.source} changed while it was pushed: push it again")
                temporary.replace(path)
            advance(content.size)


class HubPlace(Place):
    """A repository of the Hugging Face hub.

    Attributes:
        asked: the revision that was asked for; None for the present one.
    """

    def __init__(self, name: str, asked: str | None, form: Publishable, private: bool) -> None:
        self.name, self.asked, self.form, self.private = name, asked, form, private
        self.written = False
        self.found: Repository | None = None

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}" + (f"@{self.asked}" if self.asked else "")

    @property
    def address(self) -> str:
        return f"{api().endpoint}/{'datasets/' if self.form.kind == 'dataset' else ''}{self.name}"

    @property
    def revision(self) -> str:
        return self._repository.commit

    @property
    def _repository(self) -> Repository:
        assert self.found is not None, "look comes first"
        return self.found

    def identity(self) -> dict[str, Any]:
        return {"from": f"{SCHEME}{self.name}", "asked": self.asked}

    def may_write(self) -> None:
        self.written = True
        with self._named():
            api()
            from huggingface_hub import get_token

            if not get_token():
                raise HubError(f"the hub needs a token to be written to: {TOKEN}")

    def look(self, revision: str | None = None) -> dict[str, int]:
        wanted = revision or self.asked
        target = f"{SCHEME}{self.name}" + (f"@{wanted}" if wanted else "")
        with self._named():
            try:
                self.found = repository(target, self.form.kind, stored=True)
            except MissingError:
                if self.written:
                    return {}  # it is made with the first change
                other = next(form for form in FORMS if form is not self.form)
                if self._exists(target, other):
                    raise PublishingError(
                        f"this holds a {other.word}, no {self.form.word}: use `weightspace {other.word} pull` "
                        "for it, or another name"
                    ) from None
                raise
        return {name: stored.size for name, stored in self.found.stored.items()}

    @staticmethod
    def _exists(target: str, form: Publishable) -> bool:
        try:
            repository(target, form.kind)
        except HubError:
            return False
        return True

    def holds(self, name: str, content: Content) -> bool:
        stored = self._repository.stored[name]
        if stored.sha256 is not None or stored.size != content.size:
            return stored.sha256 == content.sha256
        data = content.source if isinstance(content.source, bytes) else content.source.read_bytes()
        return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest() == stored.blob

    def read(self, name: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            return self.fetch(name, Path(folder)).read_bytes()

    def fetch(self, name: str, folder: Path) -> Path:
        with self._named(), _quiet():
            return self._repository.fetch(name, into=folder)

    def portion(self, total: int) -> int:
        return max(COMMIT, total // 100)

    def change(self, files: Mapping[str, Content], gone: Sequence[str], advance: Callable[[int], None]) -> None:
        with self._named(), _quiet(), answering("written"):
            from huggingface_hub import CommitOperationAdd, CommitOperationDelete

            writer = api()
            if self.found is None:
                writer.create_repo(self.name, private=self.private, repo_type=self.form.kind)
                self.found = repository(f"{SCHEME}{self.name}", self.form.kind, stored=True)
            operations: list[Any] = [CommitOperationDelete(path_in_repo=name) for name in gone]
            for name, content in files.items():
                operations.append(CommitOperationAdd(path_in_repo=name, path_or_fileobj=content.source))
            commit = writer.create_commit(
                self.name,
                operations,
                commit_message=f"{', '.join(list(files)[:3]) or 'fewer files'}{', ...' if len(files) > 3 else ''}",
                repo_type=self.form.kind,
                parent_commit=self._repository.commit,  # refused if somebody else pushes at the same time
            )
            self.found = Repository(self.name, str(commit.oid), self._repository.files, self.form.kind)
        advance(sum(content.size for content in files.values()))

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Say in errors of the hub which repository they are about."""
        try:
            yield
        except (HubError, PublishingError) as error:
            raise type(error)(f"{self}: {error}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars of the hub's library, which would stand across ours."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before = are_progress_bars_disabled()
    with warnings.catch_warnings(action="ignore"):  # it warns where an environment variable forbids the change
        disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            with warnings.catch_warnings(action="ignore"):
                enable_progress_bars()


def _hidden(name: str) -> bool:
    """Whether a file is none of what is published, such as .gitattributes."""
    return any(part.startswith(".") for part in name.split("/"))


def _copy(source: Path, target: Path) -> None:
    """Copy a file to the disk, past its caches.

    Raises:
        OSError: which names the target where the disk is full.
    """
    try:
        with source.open("rb") as read, target.open("wb") as write:
            shutil.copyfileobj(read, write, BLOCK)
            write.flush()
            os.fsync(write.fileno())
    except OSError as error:
        if error.filename is None:  # a full disk does not say where
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise


@contextmanager
def _megabytes(description: str, total: int, show: bool) -> Iterator[Callable[[int], None]]:
    """A progress line in MB; what it gives takes bytes."""
    moved = 0
    with progress(description, -(-total // MB), "MB", show) as advance:

        def more(count: int) -> None:
            nonlocal moved
            before, moved = moved // MB, moved + count
            advance(moved // MB - before)

        yield more
