"""A repository of the Hugging Face hub as a place to publish in: commits, and what its files are there."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weightspace.files.hub import SCHEME, TOKEN, HubError, MissingError, Repository, answering, api, repository
from weightspace.zoo.publishing.form import FORMS, Content, Publishable, PublishingError
from weightspace.zoo.publishing.place import Place
from weightspace.zoo.publishing.transfer import MB

COMMIT = 64 * MB
"""Bytes of files that go into one commit at least, where there are so many; of a large zoo a hundredth goes into one,
as the hub takes only so many commits an hour."""


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
