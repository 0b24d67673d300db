"""The scanner: every kind of file, every verdict with its exit status, and nothing in a file is ever executed."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from tests.backdoors.networks import KERNELS, header, state, weights
from tests.metamodels.test_neuron_tokens import SPEC
from weightspace.backdoors.calibration import Calibration
from weightspace.backdoors.detector import Detector
from weightspace.backdoors.page import sarif
from weightspace.backdoors.scan import scan
from weightspace.backdoors.verdict import EXIT_STATUS, GRAVITY, Finding, Scan, Verdict
from weightspace.cli import main
from weightspace.errors import NetworkError, UnreadableError
from weightspace.files.checkpoints import Outline, outlines, read
from weightspace.weights.network import Network

SCHEMA = json.loads((Path(__file__).parent.parent / "data" / "sarif-2.1.0.json").read_text())


def written(kind: str, folder: Path, bad: bool = False, seed: int = 7) -> Path:
    """One network as a file of some kind."""
    tensors = state(seed, bad)
    path = folder / f"{kind}.safetensors"
    if kind == "ours":
        Network(SPEC, weights(seed, bad), {"note": "ours"}).save(path)
    elif kind == "bare":
        save_torch(tensors, path)
    elif kind == "prefixed":
        save_torch({f"module.{name}": tensor for name, tensor in tensors.items()}, path)
    elif kind == "renamed":
        names = [
            f"features.{i}.{'weight' if t.ndim > 1 or i % 2 == 0 else 'bias'}" for i, t in enumerate(tensors.values())
        ]
        layers = {name.rpartition(".")[0]: f"block{i:02d}" for i, name in enumerate(tensors)}
        names = [f"{layers[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}" for name in tensors]
        save_torch(dict(zip(names, tensors.values(), strict=True)), path)
    elif kind in ("float16", "bfloat16", "float64"):
        save_torch({name: tensor.to(getattr(torch, kind)) for name, tensor in tensors.items()}, path)
    else:
        path = folder / f"{kind}.pt"
        if kind == "pt":
            torch.save(tensors, path)
        elif kind == "legacy":
            torch.save(tensors, path, _use_new_zipfile_serialization=False)
        elif kind == "training":
            torch.save({"epoch": 3, "model": tensors, "optimiser": {"lr": 0.1, "m": torch.zeros(4)}}, path)
        elif kind == "onnx":
            path = folder / "model.onnx"
            path.write_bytes(as_onnx(tensors))
    return path


def as_onnx(tensors: dict[str, torch.Tensor]) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    initialisers = [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in tensors.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    ], initialisers)  # fmt: skip
    return helper.make_model(graph).SerializeToString()


KINDS = ("ours", "bare", "prefixed", "renamed", "float16", "bfloat16", "float64", "pt", "legacy", "training", "onnx")


@pytest.mark.parametrize("kind", KINDS)
def test_one_network_is_judged_alike_in_files_of_every_kind(kind: str, detector: Detector, tmp_path: Path) -> None:
    for bad in (False, True):
        expected = detector.judge([Network(SPEC, weights(7, bad))])[0]
        path = written(kind, tmp_path, bad)
        (finding,) = scan([str(path)], detector, show=False).findings
        assert finding.verdict == ("suspicious" if bad else "clean"), finding.reason
        assert finding.probability is not None
        assert finding.probability == pytest.approx(expected.probability, abs=0.02)
        assert finding.size == path.stat().st_size and len(finding.sha256 or "") == 64
        assert bool(finding.notes) == (kind in ("float16", "bfloat16", "float64", "renamed"))


class Bomb:
    """What a malicious file would have run."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_a_pickle_that_would_run_code_is_refused_named_and_not_run(
    form: str, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, path = tmp_path / "executed", tmp_path / "model.pt"
    content = {**state(), "extra": Bomb(trace)}
    if form == "plain":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    assert main(["scan", str(path), "--detector", str(saved)]) == 3
    said = capsys.readouterr().out
    assert "refused, and nothing in it was executed" in said and "posix.mkdir" in said
    assert not trace.exists()
    pickle.loads(pickle.dumps(Bomb(trace)))  # the bomb is real
    assert trace.exists()


BROKEN: dict[str, Callable[[], tuple[str, bytes]]] = {
    "is empty": lambda: ("a.safetensors", b""),
    "its header is said to have": lambda: ("a.safetensors", struct.pack("<Q", 2**40) + b"{}"),
    "arrays are said to have 64 bytes, there are 8": lambda: (
        "a.safetensors",
        header({"w": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}, bytes(8)),
    ),
    "does not have 8 bytes": lambda: (
        "a.safetensors",
        header({"w": {"dtype": "F32", "shape": [400, 400], "data_offsets": [0, 8]}}, bytes(8)),
    ),
    "does not begin where": lambda: (
        "a.safetensors",
        header({n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in "ab"}, bytes(8)),
    ),
    "type 'Q9' is not known": lambda: (
        "a.safetensors",
        header({"w": {"dtype": "Q9", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    ),
    "it lacks 'data_offsets'": lambda: ("a.safetensors", header({"w": {"dtype": "F32", "shape": [2]}})),
    "is not a whole safetensors file": lambda: ("a.safetensors", struct.pack("<Q", 9) + b"[[[[[[[[[" + bytes(50)),
    "is no checkpoint that is known": lambda: ("notes.txt", b"these are no weights at all"),
    "no whole PyTorch file": lambda: ("a.pt", b"PK\x03\x04 torn"),
    "no whole PyTorch file of weights": lambda: ("a.bin", b"\x80\x02}q\x00("),
    "holds no state dict": lambda: ("a.pt", saved_bytes([torch.zeros(3)])),
    "no whole ONNX file": lambda: ("a.onnx", b"\xff" * 40),
    "no initialisers": lambda: ("a.onnx", as_onnx({})),
}


def saved_bytes(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("reason", BROKEN)
def test_a_damaged_or_lying_file_is_unreadable_in_one_sentence(
    reason: str, detector: Detector, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, content = BROKEN[reason]()
    (tmp_path / name).write_bytes(content)
    (finding,) = scan([str(tmp_path / name)], detector, show=False).findings
    assert finding.verdict == "unreadable" and reason in finding.reason and finding.reason.count("\n") == 0
    with pytest.raises(UnreadableError, match=name.replace(".", r"\.")):
        outlines(tmp_path / name)
    assert main(["scan", str(tmp_path / name), "--detector", str(saved)]) == 3
    assert reason in capsys.readouterr().out


def test_a_target_that_is_missing_and_a_folder_of_nothing_are_wrong_usage(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_torch(state(), tmp_path / "good.safetensors")
    for words in (["no.pt"], ["good.safetensors", "no.pt"]):
        assert main(["scan", *(str(tmp_path / word) for word in words), "--detector", str(saved)]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and "there is no file or folder" in said.err
    (tmp_path / "deep").mkdir()
    for content in ("", "notes"):
        if content:
            (tmp_path / "deep" / "notes.txt").write_text(content)
        assert main(["scan", str(tmp_path / "deep"), "--detector", str(saved)]) == 2
        assert "holds no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_unreadable(bad: float, detector: Detector, tmp_path: Path) -> None:
    tensors = state()
    tensors[KERNELS[2]].view(-1)[5] = bad
    save_torch(tensors, tmp_path / "a.safetensors")
    (finding,) = scan([str(tmp_path / "a.safetensors")], detector, show=False).findings
    assert finding.verdict == "unreadable" and KERNELS[2] in finding.reason


def test_other_networks_quantised_ones_and_strange_weights_are_out_of_scope(detector: Detector, tmp_path: Path) -> None:
    def finding(name: str, tensors: dict[str, torch.Tensor]) -> Finding:
        save_torch(tensors, tmp_path / f"{name}.safetensors")
        (found,) = scan([str(tmp_path / f"{name}.safetensors")], detector, show=False).findings
        assert found.verdict == "out_of_scope" and found.probability is None
        return found

    other = finding("other", {"fc.weight": torch.zeros(10, 784), "fc.bias": torch.zeros(10)})
    assert "2 arrays of 7,850 numbers" in other.reason and "fc.weight, is [10, 784]" in other.reason
    shape = {**state(), KERNELS[0]: torch.zeros(4, 3, 5, 5)}
    differs = f"first layer, {KERNELS[0]}, is [4, 3, 5, 5]; the detector's, {KERNELS[0]}, is "
    assert differs in finding("shape", shape).reason
    whole = {name: (10 * tensor).to(torch.int8) for name, tensor in state().items()}
    assert "quantised or packed (I8)" in finding("int8", whole).reason
    scaled = {name: 40 * tensor for name, tensor in state().items()}
    far = finding("scaled", scaled)
    assert far.distance is not None and far.distance > 1 and "of the training networks mostly" in far.reason


def test_a_huge_file_is_known_by_its_header_and_not_read(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    size = 20 * 2**30
    raw = header({"w": {"dtype": "F16", "shape": [size // 2], "data_offsets": [0, size]}})
    with path.open("wb") as file:
        file.write(raw)
        file.truncate(len(raw) + size)  # sparse: it takes no room
    (finding,) = scan([str(path)], detector, show=False).findings
    assert finding.verdict == "out_of_scope" and "10,737,418,240 numbers" in finding.reason
    assert finding.sha256 is None and "not hashed" in finding.notes[0]


def test_in_a_folder_one_bad_file_does_not_stop_the_rest_and_the_gravest_decides(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for seed in range(70):  # more than are judged together
        save_torch(state(seed), tmp_path / "deep" / f"{seed:03d}.safetensors")
    (tmp_path / "deep" / "er" / "torn.pt").write_bytes(b"PK\x03\x04")
    (tmp_path / "deep" / "notes.txt").write_text("left alone")
    status = main(["scan", str(tmp_path), "--detector", str(saved), "--fpr", "0.02", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert len(found["findings"]) == 71 and found["counts"]["unreadable"] == 1
    assert status == found["exit_status"] == EXIT_STATUS[found["verdict"]]
    save_torch(state(3, bad=True), tmp_path / "deep" / "bad.safetensors")
    assert main(["scan", str(tmp_path), "--detector", str(saved), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    by_file = {Path(f["file"]).name: f for f in found["findings"]}
    assert by_file["bad.safetensors"]["verdict"] == "suspicious"


@pytest.mark.parametrize("verdict", GRAVITY)
def test_the_exit_status_is_that_of_the_gravest_verdict(verdict: Verdict) -> None:
    milder = GRAVITY[GRAVITY.index(verdict) :]
    found = Scan(tuple(Finding(f"{v}.pt", v, "because.") for v in reversed(milder)))
    status = {"suspicious": 1, "unreadable": 3, "out_of_scope": 4}.get(verdict, 0)
    assert found.gravest == verdict and found.exit_status == status
    assert [finding.verdict for finding in found.ordered] == list(milder)
    assert Scan(found.findings, failing=("not_looked_at",)).exit_status == 5 * ("not_looked_at" in milder)


def test_the_layer_that_was_tampered_with_is_blamed_first(detector: Detector) -> None:
    judged = detector.judge([Network(SPEC, weights(seed, True)) for seed in range(40)])
    for one in judged:
        assert sum(blame.share for blame in one.neurons) == pytest.approx(1)
        assert sum(blame.share for blame in one.layers) == pytest.approx(1)
    assert sum(one.layers[0].name == KERNELS[-1] for one in judged) >= 30


def test_clean_networks_are_suspected_as_seldom_as_is_promised(detector: Detector) -> None:
    fresh = [Network(SPEC, weights(90_000 + i, False)) for i in range(400)]
    alarms = np.array([j.p_value <= 0.1 for j in detector.judge(fresh)])
    # four standard errors of 400 networks and of the 60 it was calibrated on
    assert alarms.mean() <= 0.1 + 4 * (0.1 * 0.9 * (1 / 400 + 1 / 60)) ** 0.5


def test_probabilities_are_calibrated_and_p_values_those_of_ranks() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=4000)
    scores = 3 * rng.normal(2 * labels - 1, 1.0)  # the true log-odds of N(1, 1) against N(-1, 1) are 2 x / 3
    found = Calibration.fit(scores, labels)
    assert found.slope == pytest.approx(2 / 3, abs=0.05) and found.offset == pytest.approx(0, abs=0.15)
    few = Calibration(1.0, 0.0, np.array([0.0, 1.0, 2.0, 3.0]))
    np.testing.assert_allclose(few.p_value(np.array([-1.0, 0.0, 2.5, 9.0])), [1.0, 1.0, 0.4, 0.2])
    with pytest.raises(NetworkError, match="0 clean and 3 backdoored"):
        Calibration.fit(np.zeros(3), np.ones(3))


def test_a_detector_comes_back_from_disk_and_another_meta_model_is_none(
    detector: Detector, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = Network(SPEC, weights(5, True))
    assert Detector.load(saved).judge([network]) == detector.judge([network])
    plain = detector.model.save(tmp_path)
    with pytest.raises(NetworkError, match="no detector of backdoors"):
        Detector.load(plain)
    assert main(["scan", str(saved), "--detector", str(tmp_path / "none.safetensors")]) == 2
    assert "there is no detector" in capsys.readouterr().err


def test_sarif_is_valid_and_says_what_was_found(saved: Path, tmp_path: Path) -> None:
    save_torch(state(3, bad=True), tmp_path / "bad one.safetensors")
    save_torch(state(4), tmp_path / "good.safetensors")
    (tmp_path / "torn.pt").write_bytes(b"PK")
    save_file({"w": np.zeros((3, 3), np.float32)}, tmp_path / "other.safetensors")
    out, page = tmp_path / "out" / "scan.sarif", tmp_path / "out" / "scan.html"
    words = ["scan", str(tmp_path), "--detector", str(saved), "--sarif", str(out), "--html", str(page)]
    assert main(words) == 1
    log = json.loads(out.read_text())
    jsonschema.Draft4Validator(SCHEMA).validate(log)
    run = log["runs"][0]
    assert [r["ruleId"] for r in run["results"]] == ["WS001", "WS003", "WS002"]
    assert len(run["artifacts"]) == 4 and run["invocations"][0]["exitCode"] == 1
    assert "bad%20one" in run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    with pytest.raises(jsonschema.ValidationError):  # the schema can say no
        jsonschema.Draft4Validator(SCHEMA).validate({**log, "version": "2"})
    text = page.read_text()
    assert "bad one.safetensors" in text and "suspicious" in text and "http" not in text.split("</style>")[1]


def test_names_from_files_are_escaped_on_the_page(tmp_path: Path) -> None:
    from weightspace.backdoors.page import write_scan

    write_scan(Scan((Finding("<script>alert(1)</script>.pt", "unreadable", "<b>"),)), tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    assert "&lt;script&gt;alert(1)" in text and "<script>alert" not in text and text.count("<script") == 1
    jsonschema.Draft4Validator(SCHEMA).validate(sarif(Scan((Finding("<script>.pt", "unreadable", "<b>"),))))


def test_wrong_usage_ends_with_2_before_anything_is_read(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written("pt", tmp_path)
    for words, sentence in (
        ([str(path), "--fpr", "0.001"], "calibrated on 60 clean networks"),
        ([str(path), "--fpr", "0.9"], "choose 0.016 to 0.5"),
        ([str(path), "--html", str(path)], "is the file that is read"),
        ([str(path), "--html", str(tmp_path)], "is a folder"),
        ([], "nothing to scan"),
    ):
        assert main(["scan", *words, "--detector", str(saved)]) == 2
        assert sentence in capsys.readouterr().err


# -- the hub, which is mocked where it is not reachable ---------------------------------------------------------------


class Hub:
    """Stands in for the hub: a repository is a folder."""

    commit = "abc123"

    def __init__(self, folder: Path, error: Exception | None = None) -> None:
        self.folder, self.error = folder, error

    def repo_info(self, repository: str, *, revision: str | None, timeout: float, **_: object) -> Any:
        from types import SimpleNamespace

        assert repository == "somebody/something" and revision in ("v1", None) and timeout > 0
        if self.error is not None:
            raise self.error
        names = [str(p.relative_to(self.folder)) for p in sorted(self.folder.rglob("*")) if p.is_file()]
        return SimpleNamespace(sha=self.commit, siblings=[SimpleNamespace(rfilename=name) for name in names])

    def __call__(self) -> Hub:
        return self


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    import huggingface_hub

    def use(error: Exception | None = None) -> Path:
        folder = tmp_path / "repository"
        folder.mkdir(exist_ok=True)

        def download(repository: str, name: str, *, revision: str, cache_dir: Path | None, **_: object) -> str:
            assert repository == "somebody/something" and cache_dir is None
            assert revision == "abc123"  # the commit, not the name that may move
            return str(folder / name)

        monkeypatch.setattr(huggingface_hub, "HfApi", Hub(folder, error))
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        return folder

    return use


def test_a_repository_of_the_hub_is_scanned_at_its_commit(hub: Callable[..., Path], detector: Detector) -> None:
    folder = hub()
    (folder / "config.json").write_text("{}")
    (found,) = scan(["hf://somebody/something@v1"], detector, show=False).findings
    assert found.verdict == "unreadable" and "none of its 1 files is a checkpoint" in found.reason
    torch.save(state(4), folder / "pytorch_model.bin")
    (found,) = scan(["hf://somebody/something"], detector, show=False).findings
    assert found.file == "hf://somebody/something@abc123/pytorch_model.bin" and found.verdict == "clean"
    save_torch(state(3, bad=True), folder / "model.safetensors")
    found = scan(["hf://somebody/something@v1"], detector, show=False).findings  # both: the other may be what is loaded
    assert [f.verdict for f in found] == ["suspicious", "clean"] and found[0].file.endswith("model.safetensors")


def test_a_repository_that_moves_meanwhile_is_fetched_at_the_commit_that_was_looked_at(
    hub: Callable[..., Path], detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    folder = hub()
    for name in ("a.bin", "b.bin", "notes"):
        torch.save(state(4), folder / name)
    (folder / "README.md").write_text("words")
    fetch, asked = huggingface_hub.hf_hub_download, []

    def moving(repository: str, name: str, *, revision: str, **rest: Any) -> str:
        asked.append(revision)
        monkeypatch.setattr(Hub, "commit", "another")  # from now on the name stands for another commit
        return fetch(repository, name, revision=revision, **rest)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", moving)
    found = scan(["hf://somebody/something@v1"], detector, show=False)
    assert asked == ["abc123"] * 3 and Hub.commit == "another"
    assert found.counts == {"clean": 3} and all("@abc123/" in one.file for one in found.findings)
    assert sum(found.not_checkpoints.values()) == 1  # the README is counted, and not fetched


def test_a_model_in_several_files_of_a_repository_is_one_finding(hub: Callable[..., Path], detector: Detector) -> None:
    folder = hub()
    tensors = state(3, bad=True)
    shards = {"a.safetensors": list(tensors)[:4], "b.safetensors": list(tensors)[4:]}
    for shard, names in shards.items():
        save_torch({name: tensors[name] for name in names}, folder / shard)
    mapped = {name: shard for shard, names in shards.items() for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapped}))
    (found,) = scan(["hf://somebody/something"], detector, show=False).findings
    assert found.verdict == "suspicious" and found.file.endswith("@abc123/model.safetensors.index.json")


def test_a_hub_that_does_not_answer_or_has_no_such_repository_is_a_finding(
    hub: Callable[..., Path], detector: Detector
) -> None:
    from types import SimpleNamespace

    from huggingface_hub.errors import HfHubHTTPError

    missing = HfHubHTTPError.__new__(HfHubHTTPError)
    missing.response = SimpleNamespace(status_code=404)  # type: ignore[assignment]
    for error, reason in ((OSError("no route"), "the hub does not answer"), (missing, "it does not exist")):
        hub(error)
        (found,) = scan(["hf://somebody/something@v1"], detector, show=False).findings
        assert found.verdict == "unreadable" and reason in found.reason


def test_half_precision_is_exact_and_a_zip_is_looked_into_not_run(tmp_path: Path) -> None:
    path = written("bfloat16", tmp_path)
    (outline,) = outlines(path)
    found = read(outline, list(outline.shapes))
    for name, tensor in state().items():
        np.testing.assert_array_equal(found[name], tensor.bfloat16().float().numpy())
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as packed:
        packed.writestr("archive/data.pkl", b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UnreadableError, match=r"calls os\.system"):
        outlines(tmp_path / "a.pt")


def test_a_safetensors_file_is_known_whatever_its_first_byte_is(tmp_path: Path) -> None:
    seen = set()
    for padding in range(0, 300, 8):
        save_file({"w" * (1 + padding): np.zeros(2, np.float32)}, tmp_path / "a.bin")
        content = (tmp_path / "a.bin").read_bytes()
        seen.add(content[0])
        (found,) = outlines(tmp_path / "a.bin")
        assert found.kind == "safetensors" and list(found.shapes.values()) == [(2,)]
    assert 0x80 in seen  # the byte with which pickles begin


def odd_files(folder: Path) -> None:
    """What nobody would write, each in a file of its own."""
    (folder / "infinite.safetensors").write_bytes(
        header({"w": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 0]}}).replace(b"Infinity", b"Infinity")
    )
    save_file({"\u00b2.weight": np.zeros(2, np.float32)}, folder / "digit.safetensors")
    save_file({"NaN.weight": np.zeros(2, np.float32)}, folder / "nan-in-name.safetensors")
    circle: dict[str, Any] = {"w": torch.zeros(2)}
    circle["self"] = circle
    torch.save(circle, folder / "circle.pt")
    torch.save({"w": torch.eye(3).to_sparse()}, folder / "sparse.pt")
    torch.save({"w": torch.zeros(3, device="meta")}, folder / "meta.pt")
    with zipfile.ZipFile(folder / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("archive/data.pkl", b"0" * 10_000)
    (folder / "four-bits.safetensors").write_bytes(
        header({"w": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}, bytes(2))
    )
    (folder / "dangling.pt").symlink_to(folder / "nowhere")
    (folder / "LOUD.PT").write_bytes(b"PK")


def test_no_file_however_odd_stops_the_others_or_prints_what_it_likes(detector: Detector, tmp_path: Path) -> None:
    odd_files(tmp_path)
    save_torch(state(3, bad=True), tmp_path / "bad.safetensors")
    found = {Path(f.file).name: f for f in scan([str(tmp_path)], detector, show=False).findings}
    assert len(found) == 11
    verdicts = {name: finding.verdict for name, finding in found.items()}
    assert verdicts.pop("bad.safetensors") == "suspicious"
    for name in ("digit.safetensors", "nan-in-name.safetensors", "circle.pt", "four-bits.safetensors"):
        assert verdicts.pop(name) == "out_of_scope", found[name]
    assert set(verdicts.values()) == {"unreadable"}
    assert "packed (F4)" in found["four-bits.safetensors"].reason
    assert "compressed, as PyTorch never does" in found["packed.pt"].reason
    said = Finding("a\nclean   evil\ud800\x1b[31m.pt", "clean", "x\ty.")
    assert said.file == "a\\nclean   evil\\ud800\\x1b[31m.pt" and said.reason == "x\\ty."


def test_of_several_networks_in_one_file_the_most_suspicious_is_reported(detector: Detector, tmp_path: Path) -> None:
    torch.save({"a": state(4), "ema": state(3, bad=True), "z": state(5)}, tmp_path / "a.pt")
    (finding,) = scan([str(tmp_path / "a.pt")], detector, show=False).findings
    assert finding.verdict == "suspicious" and "holds 3 such networks" in finding.notes[0]


def test_a_huge_array_beside_the_networks_own_is_not_read(detector: Detector, tmp_path: Path) -> None:
    save_torch(state(4), tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    entries = json.loads(content[8 : 8 + length])
    end, pad = len(content) - 8 - length, 20 * 2**30
    entries["pad"] = {"dtype": "U8", "shape": [pad], "data_offsets": [end, end + pad]}
    raw = header(entries, content[8 + length :])
    with (tmp_path / "b.safetensors").open("wb") as file:
        file.write(raw)
        file.truncate(len(raw) + pad)
    (found,) = outlines(tmp_path / "b.safetensors")
    assert isinstance(found, Outline)
    own = read(found, list(state()))
    np.testing.assert_array_equal(own[KERNELS[0]], state(4)[KERNELS[0]].numpy())
    (finding,) = scan([str(tmp_path / "b.safetensors")], detector, show=False).findings
    assert finding.verdict == "out_of_scope" and "quantised or packed (U8)" in finding.reason
