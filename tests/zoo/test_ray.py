"""Zoos on a cluster: the same bytes as at home, whatever dies meanwhile; locks between hosts; copies in a store."""

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli import COMMAND, fails
from tests.zoo.test_zoo import HERE, contents, tiny
from weightspace.cli import main
from weightspace.errors import PlaceError, ZooError
from weightspace.files import lock
from weightspace.files.lock import writing
from weightspace.files.mirror import Mirror
from weightspace.files.workers import WorkerError
from weightspace.zoo import ray_engine
from weightspace.zoo.engine import ProcessEngine
from weightspace.zoo.engines import engine_of
from weightspace.zoo.making import make_zoo
from weightspace.zoo.plan import plan
from weightspace.zoo.ray_engine import RayEngine
from weightspace.zoo.store import MANIFEST, Zoo, shard_path


@dataclass
class Nodes:
    """A cluster of a head that does no jobs, and of nodes of one core each."""

    cluster: Any

    @property
    def address(self) -> str:
        return self.cluster.address

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1)

    def kill(self, node: Any) -> None:
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_worker_niceness", "0")  # or a busy machine starves them
        cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        try:
            cluster.add_node(num_cpus=1)
            yield Nodes(cluster)
        finally:
            cluster.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the tiny zoo as processes make it."""
    return contents(make_zoo(tiny(), tmp_path_factory.mktemp("local") / "zoo", HERE, show=False).folder)


# -- on a cluster -----------------------------------------------------------------------------------------------------


def test_a_zoo_made_on_a_cluster_is_the_local_one_byte_for_byte(
    nodes: Nodes, local: dict[str, bytes], tmp_path: Path
) -> None:
    engine = RayEngine(address=nodes.address)
    assert engine.arithmetic == ProcessEngine().arithmetic
    made = make_zoo(tiny(), tmp_path / "zoo", engine, show=False)
    assert contents(made.folder) == local
    other = contents(make_zoo(tiny(seed=1), tmp_path / "other", HERE, show=False).folder)
    assert other.keys() == local.keys() and all(other[name] != local[name] for name in local)  # it could have failed


@pytest.mark.slow
def test_a_node_that_is_killed_in_the_middle_changes_nothing(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(count=12, shard_size=2, fixed={"batch_size": 64, "epochs": 25, "test_count": 50})
    lost: list[str] = []

    class Noted(ray_engine._Lost):
        def __init__(self, why: str) -> None:
            lost.append(why)
            super().__init__(why)

    monkeypatch.setattr(ray_engine, "_Lost", Noted)
    doomed = nodes.add()

    def kill() -> None:
        raylet = doomed.all_processes["raylet"][0].process.pid
        deadline = time.monotonic() + 120
        while "ray::_job" not in _children(raylet).values() and time.monotonic() < deadline:
            time.sleep(0.02)
        nodes.kill(doomed)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        made = make_zoo(config, tmp_path / "ray", RayEngine(address=nodes.address), show=False)
    finally:
        killer.join()
    assert lost, "no job was lost: this test means nothing"
    assert contents(made.folder) == contents(make_zoo(config, tmp_path / "local", HERE, show=False).folder)


@pytest.mark.slow
def test_progress_counts_each_network_once(nodes: Nodes) -> None:
    counts: list[int] = []
    engine = RayEngine(address=nodes.address, stack=2)
    shards = {n: [plan(tiny(), 2 * n + i) for i in range(2)] for n in range(3)}
    written: dict[int, int] = {}
    try:
        engine.run(shards, lambda number, networks: written.update({number: len(networks)}), counts.append)
    finally:
        engine.close()
    assert written == {0: 2, 1: 2, 2: 2}
    assert sum(counts) == 6 and min(counts) >= 0 and max(counts) <= 2


def test_a_worker_that_dies_again_and_again_is_one_sentence(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> Iterator[int]:
        os.kill(os.getpid(), signal.SIGKILL)
        yield 0

    monkeypatch.setattr(ray_engine, "_job", dies)
    engine = RayEngine(address=nodes.address, retries=1)
    try:
        with pytest.raises(WorkerError, match=r"shard 7 was given out 2 times .* its worker died.*--cpus"):
            engine.run({7: [plan(tiny(), 0)]}, lambda *_: None, lambda _: None)
    finally:
        engine.close()


def test_what_cannot_be_done_on_the_cluster_is_said(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WorkerError, match="no node of the cluster has 64 CPUs and 0 GPUs"):
        RayEngine(address=nodes.address, cpus=64.0).check()
    with pytest.raises(WorkerError, match="no node of the cluster has 1 CPUs and 1 GPUs"):
        RayEngine(address=nodes.address, gpus=1.0).check()
    engine = RayEngine(address=nodes.address)
    shard = {0: [plan(tiny(), 0)]}
    try:
        missing = {0: [replace(plan(tiny(), 0), images="minst")]}
        with pytest.raises(ValueError, match="'minst'"):  # as it was raised on the node
            engine.run(missing, lambda *_: None, lambda _: None)
        monkeypatch.setattr(ray_engine, "_versions", lambda: ("9.9", "0"))
        with pytest.raises(WorkerError, match=r"has weightspace .*, the run was started with 9\.9 and torch 0"):
            engine.run(shard, lambda *_: None, lambda _: None)
    finally:
        engine.close()


@pytest.mark.slow
def test_a_full_disk_keeps_what_came_from_the_cluster(
    nodes: Nodes, local: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def full(descriptor: int) -> None:
        if "00002.safetensors" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        make_zoo(tiny(), tmp_path / "zoo", RayEngine(address=nodes.address), show=False)
    monkeypatch.setattr(os, "fsync", real)
    kept = [path.name for path in (tmp_path / "zoo" / "shards").iterdir()]
    assert sorted(kept) == ["00000.safetensors", "00001.safetensors"]
    assert contents(make_zoo(tiny(), tmp_path / "zoo", HERE, show=False).folder) == local


@pytest.mark.slow
def test_ctrl_c_ends_a_cluster_of_this_machine_and_its_workers(tmp_path: Path) -> None:
    words = [COMMAND, "zoo", "make", "digits-small", "--out", tmp_path / "zoo", "--shard-size", "4"]
    words += ["--engine", "ray", "--address", "local"]
    environment = {**os.environ, "RAY_worker_niceness": "0"}
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment)
    shards = tmp_path / "zoo" / "shards"
    deadline = time.monotonic() + 240
    while not (shards.is_dir() and list(shards.glob("0*"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    started = _children(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # to the whole process group, as a terminal does it
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    lines = [line for line in errors.splitlines() if not line.startswith("training:")]
    assert lines == ["weightspace: interrupted: run the same command again to go on"]
    assert any("raylet" in name for name in started.values())
    deadline = time.monotonic() + 30
    while (left := [pid for pid in started if _alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, {pid: started[pid] for pid in left}


def _children(pid: int) -> dict[int, str]:
    """Processes below one, by number, and what each is called."""
    parents, names = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, tail = stat.read_text().rpartition(") ")
        except OSError:  # it has ended meanwhile
            continue
        number = int(head.split(" ", 1)[0])
        parents[number], names[number] = int(tail.split()[1]), head.partition("(")[2]
    below, found = {pid}, {}
    while new := {n for n, parent in parents.items() if parent in below and n not in below}:
        below |= new
        found |= {n: names[n] for n in new}
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


# -- without one ------------------------------------------------------------------------------------------------------


def test_an_address_that_does_not_answer_is_one_sentence_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(ray_engine, "ANSWER", 0.5)
    make = ["zoo", "make", "digits-small", "--out", str(tmp_path / "zoo"), "--engine", "ray", "--address"]
    start = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        fails(
            capsys, [*make, f"127.0.0.1:{port}"], "no Ray cluster at 127.0.0.1", "nothing answers within", "ray start"
        )
    fails(capsys, [*make, f"127.0.0.1:{port}"], "connection refused", "ray start")
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            line, _ = other.accept()
            line.sendall(b"220 mail\r\n")
            line.close()

        threading.Thread(target=greet).start()
        fails(capsys, [*make, f"127.0.0.1:{other.getsockname()[1]}"], "what answers there is not ray")
    for wrong in ("head", "ray://head:10001", "head:port", "head:70000"):
        fails(capsys, [*make, wrong], f"{wrong!r} is no address of a Ray cluster", "HOST:PORT")
    assert time.monotonic() - start < 20
    assert not (tmp_path / "zoo").exists()


def test_without_ray_its_installation_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["zoo", "make", "digits-small", "--out", str(tmp_path / "zoo"), "--engine", "ray"]
    fails(capsys, words, "pip install ", "[ray]'")
    assert not (tmp_path / "zoo").exists()


def test_options_of_one_engine_are_refused_by_another() -> None:
    with pytest.raises(WorkerError, match="--address says nothing to the engine process"):
        engine_of("process", address="auto")
    with pytest.raises(WorkerError, match="a job takes CPUs or GPUs"):
        engine_of("ray", cpus=0.0).check()
    with pytest.raises(WorkerError, match="at least one job"):
        engine_of("ray", workers=0).check()
    assert engine_of("ray", gpus=1.0).arithmetic == {"device": "cuda", "stack": 512}


@pytest.fixture(autouse=True)
def _fast_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.1)


# -- two runs, and places that cannot be written ----------------------------------------------------------------------


def test_a_note_of_another_host_is_obeyed_while_it_moves_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where hosts do not see each other's locks: no clock of two hosts is compared."""
    monkeypatch.setattr(lock, "SILENCE", 1.0)
    note = lock.FileNote(tmp_path / ".lock")
    ended = threading.Event()

    def beat() -> None:
        for count in range(10**6):
            note.write(f"process 7 on far-away since 2031-01-01 00:00:00 UTC, beat {count:010}")
            if ended.wait(0.1):
                return

    note.write("process 7 on far-away since 2031-01-01 00:00:00 UTC, beat 0000000000")  # before anybody looks
    holder = threading.Thread(target=beat)
    holder.start()
    with pytest.raises(
        PlaceError, match=r"another run is writing .*process 7 on far-away since .*wait for it or end it"
    ):
        make_zoo(tiny(count=2), tmp_path, HERE, show=False)
    ended.set()
    holder.join()
    start = time.monotonic()
    make_zoo(tiny(count=2), tmp_path, HERE, show=False)  # its run is dead
    assert time.monotonic() - start > 1.0
    assert note.read() == ""
    note.write(f"process 7 on {socket.gethostname()} since then, beat 0000000000")
    monkeypatch.setattr(lock, "SILENCE", 1000.0)
    with writing(tmp_path):  # a dead run of this host: its lock has fallen, there is nothing to wait for
        before = note.read()
        assert f"process {os.getpid()} on {socket.gethostname()} since" in before
        time.sleep(0.5)
        assert note.read() != before


@pytest.mark.parametrize("late", [0.0, 0.5])
def test_of_two_runs_that_both_find_no_note_one_goes_on(late: float) -> None:
    """Neither a second that writes at once over the first, nor one that does so when the first beats already."""
    place, both_have_looked, ended = [""], threading.Barrier(2), threading.Event()
    wrote: list[float] = []
    refused: list[str] = []

    class Note:
        def __init__(self, delay: float) -> None:
            self.delay, self.looked = delay, False

        def read(self) -> str:
            found = place[0]
            if not self.looked:
                self.looked = True
                both_have_looked.wait()
                time.sleep(self.delay)
            return found

        def write(self, text: str) -> None:
            place[0] = text

    def run(delay: float) -> None:
        try:
            with lock.noting(Note(delay), "s3://bucket/zoo", locked=False):
                wrote.append(delay)
                ended.wait(2)
        except PlaceError as error:
            refused.append(str(error))
            ended.set()

    runs = [threading.Thread(target=run, args=(delay,)) for delay in (0.0, late)]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    assert len(wrote) == 1 and len(refused) == 1 and f"process {os.getpid()} on" in refused[0]
    assert wrote == [0.0] and place == [""]


@pytest.mark.parametrize("refused", [".lock", "00001.safetensors"])
def test_a_place_that_cannot_be_written_to_is_one_sentence(
    refused: str, local: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the start, or because a share became read-only in the middle."""
    real = Path.open

    def open_(self: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if refused in self.name and mode != "rb":
            raise OSError(errno.EROFS, "Read-only file system", str(self))
        return real(self, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", open_)
    with pytest.raises(PlaceError, match=r"zoo cannot be written to \(read-only file system\).*--out"):
        make_zoo(tiny(), tmp_path / "zoo", HERE, show=False)
    monkeypatch.setattr(Path, "open", real)
    assert contents(make_zoo(tiny(), tmp_path / "zoo", HERE, show=False).folder) == local


# -- copies in an object store ----------------------------------------------------------------------------------------


class Untrained(ProcessEngine):
    """An engine that must not be asked to train."""

    def run(self, shards: Any, write: Any, advance: Any) -> None:  # noqa: ARG002
        assert not shards, f"shards {sorted(shards)} were trained again"


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mirror]:
    import fsspec

    if request.param == "file":
        yield Mirror(f"file://{tmp_path}/store/zoo")
    else:
        yield Mirror("memory://bucket/zoo")
        fsspec.filesystem("memory").rm("/", recursive=True)


def stored(mirror: Mirror) -> dict[str, bytes]:
    return {name: mirror.get(name) or b"" for name in mirror.sizes()}


@pytest.mark.parametrize("store", ["file", "memory"], indirect=True)
def test_a_store_gets_every_file_and_gives_it_back(store: Mirror, local: dict[str, bytes], tmp_path: Path) -> None:
    make_zoo(tiny(), tmp_path / "first", HERE, mirror=store, show=False)
    assert stored(store) == local
    assert store.read() == ""  # no note is left
    made = make_zoo(tiny(), tmp_path / "second", Untrained(workers=0), mirror=store, show=False)
    assert contents(made.folder) == local
    with pytest.raises(ZooError, match=r"holds a zoo of another configuration.*count"):
        make_zoo(tiny(count=12), tmp_path / "third", HERE, mirror=store, show=False)
    assert stored(store) == local


@pytest.mark.parametrize("store", ["file"], indirect=True)
def test_a_run_goes_on_from_what_the_store_holds(store: Mirror, local: dict[str, bytes], tmp_path: Path) -> None:
    make_zoo(tiny(), tmp_path / "first", ProcessEngine(workers=1), mirror=store, show=False)
    place = tmp_path / "store" / "zoo"
    (place / MANIFEST).unlink()
    shard_path(place, 0).unlink()
    shard_path(place, 1).write_bytes(local["shards/00001.safetensors"][:-1])  # torn
    (place / "shards" / ".00001.safetensors.far-away.7.tmp").write_bytes(b"half put by a run that was killed")
    made = make_zoo(tiny(), tmp_path / "second", HERE, mirror=store, show=False)
    assert contents(made.folder) == local
    assert stored(store) == contents(place) == local
    shard_path(place, 2).unlink()
    make_zoo(tiny(), tmp_path / "second", Untrained(workers=0), mirror=store, show=False)  # copied from the folder
    assert stored(store) == local


@pytest.mark.parametrize("store", ["memory"], indirect=True)
def test_a_store_that_cannot_be_used_is_one_sentence_and_the_folder_keeps_all(
    store: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    small = ["zoo", "make", "digits-small", "--count", "4", "--epochs", "1", "--workers", "0"]
    monkeypatch.chdir(tmp_path)
    fails(
        capsys, [*small, "--out", "nowhere://bucket/zoo"], "nowhere://bucket/zoo cannot be used", "Protocol not known"
    )

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("403 Forbidden")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", broken)
        fails(capsys, [*small, "--out", "memory://bucket/zoo"], "memory://bucket/zoo cannot be used (403 Forbidden)")
    assert main([*small, "--out", "memory://bucket/zoo"]) == 0
    assert stored(store) == contents(Zoo.open(tmp_path / "zoos" / "zoo").folder)
    capsys.readouterr()  # progress, on a slow machine
    fails(capsys, ["zoo", "make", "rasp-typed", "--out", "memory://bucket/zoo"], "a zoo of programs", "--out")
    shutil.rmtree(tmp_path / "zoos")
    store = Mirror("memory://bucket/other")
    with store.writing(), pytest.raises(PlaceError, match=f"into {store.url} .process {os.getpid()} on"):
        make_zoo(tiny(), tmp_path / "other", HERE, mirror=store, show=False)


def test_a_url_that_holds_no_zoo_keeps_every_file_and_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "mine"
    (place / "deep").mkdir(parents=True)
    for name in ("deep/thesis.tmp", "notes.txt", ".draft.tmp"):
        (place / name).write_text("precious")
    with pytest.raises(ZooError, match="is not empty and holds no zoo"):
        make_zoo(tiny(count=2), tmp_path / "zoo", HERE, mirror=Mirror(f"file://{place}"), show=False)
    assert sorted(p.name for p in place.rglob("*") if p.is_file()) == [".draft.tmp", "notes.txt", "thesis.tmp"]


@pytest.mark.parametrize("url", ["file:/tmp/zoo", "file:///", "s3://", "://", "file:///tmp/.."])
def test_a_url_without_a_name_is_refused_before_anything_is_made(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["zoo", "make", "digits-small", "--count", "2", "--out", url]) == 2
    assert "is no place for a zoo" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_shard_that_is_lost_after_its_last_report_is_given_out_again(
    nodes: Nodes, tmp_path: Path, local: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    once = tmp_path / "once"

    def reports_and_dies(plans: Any, *arguments: Any) -> Any:
        import os

        if not once.exists():
            once.touch()
            yield len(plans)
            os._exit(1)
        yield from whole(plans, *arguments)

    whole = ray_engine._job
    monkeypatch.setattr(ray_engine, "_job", reports_and_dies)
    make_zoo(tiny(), tmp_path / "zoo", RayEngine(address=nodes.address), show=False)
    assert contents(tmp_path / "zoo") == local
