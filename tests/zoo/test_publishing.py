"""Zoos and models pushed and pulled: to a folder, and to a hub that is mocked, as the real one was not reachable."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from weightspace.backdoors.detector import PRETRAINED
from weightspace.cli import main
from weightspace.errors import ZooError
from weightspace.experiments.cards import model_card, zoo_card
from weightspace.experiments.comparison import train_metamodel
from weightspace.experiments.publications import pull_model, pull_zoo, push_model, push_zoo
from weightspace.files.hub import TOKEN, HubError
from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.metamodel import MODEL_FILE, MetaModel
from weightspace.train.config import TrainingConfig
from weightspace.zoo.engine import ProcessEngine
from weightspace.zoo.making import check_zoo, make_zoo
from weightspace.zoo.programs.config import ProgramZooConfig
from weightspace.zoo.programs.inspection import check_program_zoo
from weightspace.zoo.programs.making import make_program_zoo
from weightspace.zoo.publishing import folder_place, hub_place
from weightspace.zoo.publishing.folder_place import FolderPlace
from weightspace.zoo.publishing.form import MODEL, PublishingError
from weightspace.zoo.recipes import zoo_recipe
from weightspace.zoo.store import MANIFEST, PULLING, Zoo, sealed, unsealed, verify


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    fixed = {"batch_size": 64, "epochs": 1, "test_count": 50}
    config = replace(zoo_recipe("digits-small"), recipe="tiny", count=40, shard_size=10, image_count=128, fixed=fixed)
    return make_zoo(config, tmp_path_factory.mktemp("zoos") / "tiny", ProcessEngine(workers=0), show=False)


@pytest.fixture(scope="module")
def run(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    training = TrainingConfig(steps=4, batch_size=8, evaluate_every=2, device="cpu")
    config = MetaModelConfig(width=8, depth=1, heads=1, permutations=4, training=training)
    folder = tmp_path_factory.mktemp("runs") / "run"
    train_metamodel(zoo.folder, folder, config, ["optimiser", "activation"], show=False)
    return folder


@pytest.fixture
def copy(zoo: Zoo, tmp_path: Path) -> Path:
    """A copy of the zoo that may be harmed."""
    return Path(shutil.copytree(zoo.folder, tmp_path / "copy"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder that is not hidden."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    named = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: data for name, data in named.items() if not name.startswith(".")}


def fails(capsys: pytest.CaptureFixture[str], words: Sequence[object], *parts: str) -> None:
    """A verb must fail with exit status 2 and one sentence with these parts."""
    assert main([str(word) for word in words]) == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith("weightspace: ") and sentence.count("\n") == 1 and "Traceback" not in sentence
    for part in parts:
        assert part in sentence


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


# -- folders --------------------------------------------------------------------------------------------------------


def test_a_zoo_comes_back_from_a_folder_byte_for_byte_and_can_be_used(zoo: Zoo, tmp_path: Path) -> None:
    sent = push_zoo(zoo.folder, str(tmp_path / "there"), show=False)
    files = contents(zoo.folder)
    published = contents(tmp_path / "there")
    assert published.pop("README.md") == zoo_card(zoo.folder).encode()
    assert published == files
    got = pull_zoo(f"file:{tmp_path / 'there'}", tmp_path / "back", show=False)
    assert contents(tmp_path / "back") == files
    assert not (tmp_path / "back" / PULLING).exists()
    assert got.revision == sent.revision == hashlib.sha256(files[MANIFEST]).hexdigest()
    back = Zoo.open(tmp_path / "back")
    assert verify(back.folder) == [] and [f for f in check_zoo(back.folder) if f.kind == "damage"] == []
    wanted, found = (z.population("test") for z in (zoo, back))
    np.testing.assert_array_equal(found.read(np.arange(len(found))), wanted.read(np.arange(len(wanted))))


def test_a_model_comes_back_from_a_folder_and_answers_the_same(run: Path, zoo: Zoo, tmp_path: Path) -> None:
    push_model(run, str(tmp_path / "there"), show=False)
    assert set(contents(tmp_path / "there")) == {MODEL, MANIFEST, "README.md"}, "nothing else of the run is published"
    pull_model(str(tmp_path / "there"), tmp_path / "back", show=False)
    assert (tmp_path / "back" / MODEL).read_bytes() == (run / MODEL_FILE).read_bytes()
    networks = list(zoo.population("test"))
    wanted, found = (MetaModel.load(folder).predict(networks) for folder in (run, tmp_path / "back"))
    for name, answer in wanted.items():
        np.testing.assert_array_equal(found[name], answer)


def test_a_zoo_of_programs_comes_back_and_has_a_card(tmp_path: Path) -> None:
    config = ProgramZooConfig(recipe="rasp-typed", distribution="typed", count=6, shard_size=4)
    programs = make_program_zoo(config, tmp_path / "programs", workers=0, show=False)
    push_zoo(programs.folder, str(tmp_path / "there"), show=False)
    pull_zoo(str(tmp_path / "there"), tmp_path / "back", show=False)
    assert contents(tmp_path / "back") == contents(programs.folder)
    assert check_program_zoo(tmp_path / "back") == []
    assert "| programs | 6 |" in (tmp_path / "there" / "README.md").read_text()


def test_what_is_there_already_is_not_carried_again(zoo: Zoo, copy: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    assert push_zoo(zoo.folder, str(there), show=False).moved == 8  # four shards, index, description, card, manifest
    again = push_zoo(copy, str(there), show=False)
    assert (again.moved, again.moved_bytes) == (0, 0)
    licensed = push_zoo(zoo.folder, str(there), license_name="cc-by-4.0", show=False)
    assert licensed.moved == 1 and 'license: "cc-by-4.0"' in (there / "README.md").read_text()
    (there / "shards" / "00002.safetensors").unlink()
    assert push_zoo(zoo.folder, str(there), license_name="cc-by-4.0", show=False).moved == 1
    assert pull_zoo(str(there), tmp_path / "back", show=False).moved == 6
    assert pull_zoo(str(there), tmp_path / "back", show=False).moved == 0
    (tmp_path / "back" / "index.parquet").unlink()
    assert pull_zoo(str(there), tmp_path / "back", show=False).moved == 1


def test_an_incomplete_or_damaged_zoo_or_model_is_not_pushed(
    copy: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there"
    flip(copy / "shards" / "00001.safetensors")
    fails(capsys, ["zoo", "push", copy, there], "00001.safetensors is damaged", "nothing damaged is pushed")
    (copy / "shards" / "00001.safetensors").unlink()
    fails(capsys, ["zoo", "push", copy, there], "00001.safetensors is missing")
    (copy / MANIFEST).unlink()
    fails(capsys, ["zoo", "push", copy, there], "is not complete")
    fails(capsys, ["zoo", "push", run, there], "is not a zoo")
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes((run / MODEL_FILE).read_bytes()[:-5])
    fails(capsys, ["model", "push", torn, there], "is not a whole safetensors file")
    network = PRETRAINED.parent / "example-clean.safetensors"
    fails(capsys, ["model", "push", network, there], "is no model of weightspace")
    fails(capsys, ["model", "push", tmp_path / "none", there], "there is no model")
    assert not there.exists()


def test_a_push_into_a_folder_that_was_killed_passes_for_none_and_goes_on(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, real, copied = tmp_path / "there", folder_place._copy, []

    def killed(source: Path, target: Path) -> None:
        copied.append(source.name)
        if len(copied) == 3:
            target.write_bytes(b"half")
            raise Killed
        real(source, target)

    monkeypatch.setattr(folder_place, "_copy", killed)
    with pytest.raises(Killed):
        push_zoo(zoo.folder, str(there), show=False)
    with pytest.raises(PublishingError, match="its push has not come to its end"):
        pull_zoo(str(there), tmp_path / "back", show=False)
    assert push_zoo(zoo.folder, str(there), show=False).moved == 6, "two shards were there"
    published = contents(there)
    published.pop("README.md")
    assert published == contents(zoo.folder) and not list(there.rglob(".*.tmp"))


def test_a_pull_that_was_killed_passes_for_none_and_goes_on_where_it_was(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    push_zoo(zoo.folder, str(there), show=False)
    real, fetched = FolderPlace.fetch, []

    def killed(place: FolderPlace, name: str, folder: Path) -> Path:
        fetched.append(name)
        if len(fetched) == 3:
            raise Killed
        return real(place, name, folder)

    monkeypatch.setattr(FolderPlace, "fetch", killed)
    with pytest.raises(Killed):
        pull_zoo(str(there), back, show=False)
    for use in (Zoo.open, verify, lambda folder: push_zoo(folder, str(tmp_path / "on"), show=False)):
        with pytest.raises(ZooError, match="not pulled to its end: run the same `weightspace zoo pull`"):
            use(back)
    shutil.copytree(there, tmp_path / "other")
    with pytest.raises(PublishingError, match="holds half a pull from"):
        pull_zoo(str(tmp_path / "other"), back, show=False)
    fetched[:] = ["as long as before"] * 3
    assert pull_zoo(str(there), back, show=False).moved == 4
    assert len(fetched) == 3 + 4 and contents(back) == contents(zoo.folder)


def test_damage_on_the_way_is_repaired_once_and_found_if_it_stays(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    push_zoo(zoo.folder, str(there), show=False)
    real, harmed = folder_place._copy, []

    def harm(source: Path, target: Path) -> None:
        real(source, target)
        if source.name == "00001.safetensors" and not harmed:
            harmed.append(target)
            flip(target)

    monkeypatch.setattr(folder_place, "_copy", harm)
    pull_zoo(str(there), tmp_path / "once", show=False)
    assert harmed and contents(tmp_path / "once") == contents(zoo.folder)
    flip(there / "shards" / "00002.safetensors")
    with pytest.raises(PublishingError, match=r"00002\.safetensors differs from its checksum, twice"):
        pull_zoo(str(there), tmp_path / "back", show=False)
    with pytest.raises(ZooError, match="not pulled to its end"):
        Zoo.open(tmp_path / "back")
    assert not (tmp_path / "back" / "shards" / "00002.safetensors").exists()
    flip(there / MANIFEST)
    with pytest.raises(PublishingError, match=r"manifest\.json is damaged"):
        pull_zoo(str(there), tmp_path / "none", show=False)
    assert not (tmp_path / "none").exists()


def test_nothing_else_is_overwritten(zoo: Zoo, run: Path, copy: Path, tmp_path: Path) -> None:
    there, other, model = (str(tmp_path / name) for name in ("there", "other", "model"))
    push_zoo(zoo.folder, there, show=False)
    push_model(run, model, show=False)
    record = unsealed((copy / MANIFEST).read_bytes())
    (copy / MANIFEST).write_bytes(sealed({**record, "networks": 41}))  # another zoo, for all that is known
    push_zoo(copy, other, show=False)
    before = contents(tmp_path / "there")
    with pytest.raises(PublishingError, match=r"holds another zoo already: .* --replace"):
        push_zoo(copy, there, show=False)
    for pushed in (lambda: push_model(run, there, show=False), lambda: push_model(run, str(run), show=False)):
        with pytest.raises(PublishingError, match=r"holds a zoo, and this is a model|holds something else"):
            pushed()
    assert contents(tmp_path / "there") == before
    for folder in (zoo.folder, run):
        kept = contents(folder)
        for pull, source in ((pull_zoo, other), (pull_model, model)):
            with pytest.raises(PublishingError, match=r"which stays as it is|nothing in it was touched"):
                pull(source, folder, show=False)
        assert contents(folder) == kept
    pull_model(model, tmp_path / "back", show=False)
    flip(tmp_path / "back" / MODEL)  # as if it had been trained further
    with pytest.raises(PublishingError, match="is not what the model has there"):
        pull_model(model, tmp_path / "back", show=False)
    push_zoo(copy, there, replace=True, show=False)
    assert contents(tmp_path / "there")[MANIFEST] == contents(copy)[MANIFEST]


def test_a_thing_of_the_wrong_kind_and_a_place_that_is_none_are_named(
    zoo: Zoo, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push_zoo(zoo.folder, str(tmp_path / "zoo"), show=False)
    push_model(run, str(tmp_path / "model"), show=False)
    out = ["--out", tmp_path / "back"]
    fails(capsys, ["zoo", "pull", tmp_path / "model", *out], "holds a model, no zoo: use `weightspace model pull`")
    fails(capsys, ["model", "pull", tmp_path / "zoo", *out], "holds a zoo, no model: use `weightspace zoo pull`")
    fails(capsys, ["zoo", "pull", tmp_path / "nowhere", *out], "there is nothing to pull")
    fails(capsys, ["zoo", "pull", run, *out], "has no manifest.json")
    fails(capsys, ["zoo", "pull", "digits-small", *out], "is no place: give OWNER/NAME", "./FOLDER")
    fails(capsys, ["zoo", "push", zoo.folder, "me/zoo@v1"], "leave @v1 out")
    fails(capsys, ["model", "push", run, tmp_path / "x", "--license", "No: such"], "is no licence")
    network = tmp_path / "network.safetensors"
    zoo.population()[0].save(network)
    fails(capsys, ["model", "push", network, tmp_path / "x"], "network.safetensors is no model of weightspace")
    assert not (tmp_path / "back").exists() and not (tmp_path / "x").exists()


def test_a_name_of_the_hub_that_is_a_folder_here_has_to_be_made_plain(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("me/zoo").mkdir(parents=True)
    fails(capsys, ["zoo", "push", zoo.folder, "me/zoo"], "write ./me/zoo or hf://me/zoo")
    assert not list(Path("me/zoo").iterdir())


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "shards/../../escaped", ".git/hooks/x", "setup.py"])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(name: str, zoo: Zoo, tmp_path: Path) -> None:
    there = tmp_path / "there"
    push_zoo(zoo.folder, str(there), show=False)
    record = unsealed((there / MANIFEST).read_bytes())
    (tmp_path / "escaped").write_bytes(b"harm")
    hashes = {**record["sha256"], name: hashlib.sha256(b"harm").hexdigest()}
    (there / MANIFEST).write_bytes(sealed({**record, "sha256": hashes}))
    with pytest.raises(PublishingError, match="which no zoo has: nothing was fetched"):
        pull_zoo(str(there), tmp_path / "out" / "back", show=False)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_said_before_anything_is_fetched(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    push_zoo(zoo.folder, str(tmp_path / "there"), show=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    words = ["zoo", "pull", tmp_path / "there", "--out", tmp_path / "back"]
    fails(capsys, words, "MB free: free some space and run the same command again")
    monkeypatch.undo()
    assert main([str(word) for word in words]) == 0


def test_cards_say_what_the_files_say(zoo: Zoo, run: Path) -> None:
    yaml = pytest.importorskip("yaml")
    card = zoo_card(zoo.folder, "cc-by-4.0")
    _, front, body = card.split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["license"] == "cc-by-4.0" and facts["size_categories"] == ["n<1K"] and "model-zoo" in facts["tags"]
    assert facts["configs"] == [{"config_name": "index", "data_files": "index.parquet"}]
    splits = [str((zoo.column("split") == split).sum()) for split in ("train", "validation", "test")]
    assert f"| splits | train: {splits[0]}; validation: {splits[1]}; test: {splits[2]} |" in body
    assert str(zoo.folder) not in card and "momentum, adam, rmsprop" in body
    model = MetaModel.load(run)
    _, front, body = model_card(run / MODEL_FILE).split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "weightspace" and yaml.safe_load(front)["license"] == "unknown"
    assert f"| parameters | {model.parameters:,} |" in body and "| steps | 4 |" in body
    assert model.facts["zoo_manifest_sha256"] in body and "`optimiser`: one of momentum, adam, rmsprop" in body
    best = min(entry["loss"] for entry in model.history.evaluations)
    assert f"| validation loss there | {best:.4g} |" in body
    assert "Nobody has stated one" in body and "with these arrays alone" in body
    detector = model_card(PRETRAINED)
    assert "`backdoor`: one of" in detector and "cifar10-jpeg at 16x16" in detector and "auroc: 0.9256" in detector
    decompiler = model_card(PRETRAINED.parent / "decompiler.safetensors")
    assert "| parameters | 1,485,132 |" in decompiler


# -- the hub, which is mocked ---------------------------------------------------------------------------------------


def refused(kind: str, status: int) -> Exception:
    """An error of the hub's library, which needs a response to be made in the usual way."""
    from huggingface_hub import errors

    error = getattr(errors, kind).__new__(getattr(errors, kind))
    error.response = SimpleNamespace(status_code=status)
    return error


class Hub:
    """Stands in for the hub and its library: repositories are lists of commits, each the files as they were."""

    endpoint = "https://hub.example"

    def __init__(self) -> None:
        self.commits: dict[tuple[str, str], list[dict[str, bytes]]] = {}
        self.error: Exception | None = None
        self.rights: Exception | None = None
        self.after = 10**6
        self.log: list[list[str]] = []
        self.fetched: list[str] = []
        self.harm: set[str] = set()

    def __call__(self) -> Hub:
        return self

    def repo_info(
        self, name: str, *, repo_type: str, revision: str | None, timeout: float, files_metadata: bool
    ) -> SimpleNamespace:
        assert timeout > 0
        if self.error is not None:
            raise self.error
        commits = self.commits.get((repo_type, name))
        if commits is None:
            raise refused("RepositoryNotFoundError", 404)
        number = len(commits) - 1 if revision in (None, "main") else self._number(commits, revision)
        siblings = [self._sibling(*item, files_metadata) for item in commits[number].items()]
        return SimpleNamespace(sha=self._sha(number), siblings=siblings)

    @staticmethod
    def _sha(number: int) -> str:
        return hashlib.sha1(str(number).encode()).hexdigest()

    def _number(self, commits: list[Any], revision: str | None) -> int:
        known = {self._sha(number): number for number in range(len(commits))}
        if revision not in known:
            raise refused("RevisionNotFoundError", 404)
        return known[revision]

    @staticmethod
    def _sibling(name: str, data: bytes, details: bool) -> SimpleNamespace:
        if not details:
            return SimpleNamespace(rfilename=name, size=None, lfs=None, blob_id=None)
        large = name.endswith((".safetensors", ".parquet"))
        lfs = SimpleNamespace(sha256=hashlib.sha256(data).hexdigest()) if large else None
        blob = "pointer" if large else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        return SimpleNamespace(rfilename=name, size=len(data), lfs=lfs, blob_id=blob)

    def create_repo(self, name: str, *, private: bool, repo_type: str) -> None:
        if self.rights is not None:
            raise self.rights
        self.commits[repo_type, name] = [{".gitattributes": b"" if private else b"public"}]

    def create_commit(
        self, name: str, operations: list[Any], *, commit_message: str, repo_type: str, parent_commit: str
    ) -> SimpleNamespace:
        assert commit_message
        commits = self.commits[repo_type, name]
        if self.rights is not None:
            raise self.rights
        if parent_commit != self._sha(len(commits) - 1):
            raise refused("HfHubHTTPError", 412)
        if len(self.log) == self.after:
            raise Killed
        files = dict(commits[-1])
        for operation in operations:
            content = getattr(operation, "path_or_fileobj", None)
            if content is None:
                del files[operation.path_in_repo]
            else:
                files[operation.path_in_repo] = content if isinstance(content, bytes) else Path(content).read_bytes()
        commits.append(files)
        self.log.append([operation.path_in_repo for operation in operations])
        return SimpleNamespace(oid=self._sha(len(commits) - 1))

    def download(self, name: str, file: str, *, repo_type: str, revision: str, local_dir: Path) -> str:
        assert len(revision) == 40, "the commit, not a name that may move"
        commits = self.commits[repo_type, name]
        if len(self.fetched) == self.after:
            raise OSError("connection lost")
        self.fetched.append(file)
        data = commits[self._number(commits, revision)][file]
        (local_dir / file).parent.mkdir(parents=True, exist_ok=True)
        (local_dir / file).write_bytes(data[:-1] if file in self.harm else data)
        return str(local_dir / file)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    import huggingface_hub

    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_token")
    return hub


def test_the_stand_in_is_asked_nothing_that_the_library_does_not_know() -> None:
    import huggingface_hub

    pairs = [
        (getattr(Hub, n), getattr(huggingface_hub.HfApi, n)) for n in ("repo_info", "create_repo", "create_commit")
    ]
    for ours, real in [*pairs, (Hub.download, huggingface_hub.hf_hub_download)]:
        asked = [p.name for p in inspect.signature(ours).parameters.values() if p.kind is p.KEYWORD_ONLY]
        assert asked and set(asked) <= set(inspect.signature(real).parameters)


def test_a_zoo_and_a_model_come_back_from_the_hub_at_a_commit(hub: Hub, zoo: Zoo, run: Path, tmp_path: Path) -> None:
    sent = push_zoo(zoo.folder, "me/tiny", private=True, show=False)
    assert sent.address == "https://hub.example/datasets/me/tiny" and len(sent.revision) == 40
    assert hub.commits["dataset", "me/tiny"][0] == {".gitattributes": b""}, "made for its owner alone"
    got = pull_zoo("me/tiny", tmp_path / "zoo", show=False)
    assert contents(tmp_path / "zoo") == contents(zoo.folder) and got.revision == sent.revision
    assert push_zoo(zoo.folder, "hf://me/tiny", show=False).moved == 0 and len(hub.log) == 1
    with pytest.raises(PublishingError, match="me/tiny: this holds a zoo, no model: use `weightspace zoo pull`"):
        pull_model("me/tiny", tmp_path / "model", show=False)
    first = push_model(run, "me/model", show=False)
    assert first.address == "https://hub.example/me/model"
    with pytest.raises(PublishingError, match=r"hf://me/model holds another model already: .*--replace"):
        push_model(PRETRAINED, "me/model", show=False)
    second = push_model(PRETRAINED, "me/model", replace=True, show=False)
    for revision, path in ((first.revision, run / MODEL_FILE), (second.revision, PRETRAINED)):
        out = tmp_path / revision
        assert pull_model(f"me/model@{revision}", out, show=False).revision == revision
        assert (out / MODEL).read_bytes() == path.read_bytes()


def test_a_push_to_the_hub_that_was_killed_passes_for_none_and_carries_the_rest(
    hub: Hub, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_place, "COMMIT", 1)  # a file a commit
    hub.after = 3
    with pytest.raises(Killed):
        push_zoo(zoo.folder, "me/tiny", show=False)
    hub.after = 10**6
    with pytest.raises(PublishingError, match="its push has not come to its end"):
        pull_zoo("me/tiny", tmp_path / "zoo", show=False)
    assert push_zoo(zoo.folder, "me/tiny", show=False).moved == 8 - 3
    assert hub.log[-1] == ["zoo.json", "README.md", MANIFEST] and len({n for names in hub.log for n in names}) == 8
    # another one in its place, one shard fewer: the manifest goes before the first file that it does not speak of
    smaller = tmp_path / "smaller"
    shutil.copytree(zoo.folder, smaller)
    record = unsealed((smaller / MANIFEST).read_bytes())
    del record["sha256"]["shards/00003.safetensors"]
    (smaller / MANIFEST).write_bytes(sealed(record))
    flip(smaller / "shards" / "00000.safetensors")
    flip(smaller / "shards" / "00001.safetensors")
    hashes = {name: hashlib.sha256((smaller / name).read_bytes()).hexdigest() for name in record["sha256"]}
    (smaller / MANIFEST).write_bytes(sealed({**record, "sha256": hashes}))
    done = len(hub.log)
    push_zoo(smaller, "me/tiny", replace=True, show=False)
    assert hub.log[done] == [MANIFEST, "shards/00000.safetensors"]
    files = hub.commits["dataset", "me/tiny"][-1]
    assert "shards/00003.safetensors" not in files and files[MANIFEST] == (smaller / MANIFEST).read_bytes()


def test_a_pull_from_the_hub_goes_on_at_the_commit_at_which_it_began(
    hub: Hub, run: Path, zoo: Zoo, tmp_path: Path
) -> None:
    push_zoo(zoo.folder, "me/tiny", show=False)
    hub.after = 3  # the manifest and two files
    with pytest.raises(HubError, match=r"hf://me/tiny: it could not be fetched: the hub does not answer \(OSError\)"):
        pull_zoo("me/tiny", tmp_path / "zoo", show=False)
    hub.after = 10**6
    first = hub._sha(1)
    hub.commits["dataset", "me/tiny"].append({MANIFEST: b"{}"})
    hub.fetched.clear()
    got = pull_zoo("me/tiny", tmp_path / "zoo", show=False)
    assert got.revision == first and got.moved == 4 and len(hub.fetched) == 5
    assert contents(tmp_path / "zoo") == contents(zoo.folder)
    push_model(run, "me/model", show=False)
    hub.harm = {MODEL}
    with pytest.raises(PublishingError, match="differs from its checksum, twice"):
        pull_model("me/model", tmp_path / "model", show=False)
    assert not (tmp_path / "model" / MODEL).exists()
    hub.harm = set()
    pull_model("me/model", tmp_path / "model", show=False)
    assert MetaModel.load(tmp_path / "model").targets


def test_what_the_hub_refuses_is_one_sentence_that_says_what_to_do(
    hub: Hub, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    import huggingface_hub

    push, pull = ["model", "push", run, "me/model"], ["model", "pull", "me/model", "--out", tmp_path / "back"]
    fails(capsys, pull, "hf://me/model: it could not be fetched: it does not exist")
    for status in (401, 403):
        hub.rights = refused("HfHubHTTPError", status)
        fails(capsys, push, "hf://me/model: it could not be written", "refuses the token", "set HF_TOKEN")
    hub.rights = None
    hub.error = refused("HfHubHTTPError", 503)
    fails(capsys, push, "the hub answers 503: try again later")
    hub.error = ConnectionError("no route")
    for words in (push, pull):
        fails(capsys, words, "the hub does not answer (ConnectionError): is there a network?")
    hub.error = refused("GatedRepoError", 403)
    fails(capsys, pull, "it is not open to you")
    hub.error = None
    assert main([str(word) for word in push]) == 0
    assert "https://hub.example/me/model\nrevision " in capsys.readouterr().out
    assert main([str(word) for word in [*pull, "--json"]]) == 0
    assert json.loads(capsys.readouterr().out)["revision"] == hub._sha(1)
    fails(capsys, ["model", "pull", "me/model@v9", "--out", tmp_path / "x"], "it has no such revision")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    fails(capsys, push, f"needs a token to be written to: {TOKEN}")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for words in (push, pull):
        fails(capsys, words, "the hub's library is not installed: pip install ", "[hub]'")


def test_of_two_pushes_at_the_same_time_one_is_told(hub: Hub, zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_place, "COMMIT", 1)
    real = hub.create_commit

    def overtaken(name: str, *words: Any, **options: Any) -> Any:
        done = real(name, *words, **options)
        if len(hub.log) == 2:
            hub.commits["dataset", name].append(dict(hub.commits["dataset", name][-1]))
        return done

    monkeypatch.setattr(hub, "create_commit", overtaken)
    with pytest.raises(HubError, match="somebody has changed it meanwhile: run the same command again"):
        push_zoo(zoo.folder, "me/tiny", show=False)


def test_a_model_is_never_pushed_over_a_zoo_nor_a_zoo_over_a_model(
    zoo: Zoo, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for first, second in (
        (["zoo", str(zoo.folder)], ["model", str(run)]),
        (["model", str(run)], ["zoo", str(zoo.folder)]),
    ):
        place = tmp_path / first[0]
        assert main([first[0], "push", first[1], str(place)]) == 0
        before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
        for options in ([], ["--replace"]):
            capsys.readouterr()
            assert main([second[0], "push", second[1], str(place), *options]) == 2
            assert f"holds a {first[0]}, and this is a {second[0]}" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
