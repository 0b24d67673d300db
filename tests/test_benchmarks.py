"""The benchmarks run: each hot path at a small size, so that `make bench` does not fail after minutes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import (
    decompile,
    gpu,
    interpreter,
    large,
    lineage,
    metamodel,
    pages,
    rasp,
    record,
    scan,
    store,
    trained,
    zoo,
)
from tests.pages import chromium
from weightspace.files.workers import WorkerError
from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.embed import TokenBatch
from weightspace.metamodels.metamodel import Transformer
from weightspace.rasp.values import KEPT
from weightspace.weights.slots import Room
from weightspace.zoo.plan import plan
from weightspace.zoo.recipes import zoo_recipe
from weightspace.zoo.training import stack_key


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    return tmp_path


def test_the_store_is_measured(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NETWORKS": 800, "SIZE": 50, "SHARD": 100, "BATCH": 16, "SINGLES": 16}.items():
        monkeypatch.setattr(store, name, value)
    store.main()
    assert json.loads((results / "store.json").read_text())["networks_per_s"] > 0


def test_the_search_for_a_parent_is_measured(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "FILES", 40)
    lineage.main()
    assert json.loads((results / "lineage.json").read_text())["files"] == 41


def test_the_meta_model_is_measured(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BATCH": 2, "TOKENS": 4, "WIDTH": 16, "DEPTH": 1}.items():
        monkeypatch.setattr(metamodel, name, value)
    metamodel.main()
    assert json.loads((results / "metamodel.json").read_text())["share"] > 0


def test_the_plain_loop_trains_the_networks_that_the_engines_train() -> None:
    config = zoo_recipe("digits-small", count=2)
    assert min(zoo.plain_loop([plan(config, i) for i in range(2)])) > 0.5


def test_the_forward_pass_of_trained_transformers_is_measured(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "INPUTS", 100)
    trained.main()
    assert json.loads((results / "trained.json").read_text())["inputs_per_cpu_s"] > 0


def test_the_interpreter_is_measured(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"VOCABULARY": 2, "LENGTH": 3, "CALLS": 1}.items():
        monkeypatch.setattr(interpreter, name, value)
    interpreter.main()
    figures = json.loads((results / "interpreter.json").read_text())
    assert figures["inputs"] == 14 and figures["batch_inputs_per_s"] > 0


def test_the_compiler_is_measured(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PROGRAMS": 10, "REPEATS": 1, "POPULATION": 20}.items():
        monkeypatch.setattr(rasp, name, value)
    rasp.main()
    figures = json.loads((results / "rasp.json").read_text())
    assert figures["fixed_dense_per_s"] > 0
    assert len(KEPT.stores[0]) > 0
    rasp.cold()
    assert not any(KEPT.stores), "the plain alternative really has nothing kept"


def test_the_scanner_is_measured(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "FILES", 4)
    scan.main()
    figures = json.loads((results / "scan.json").read_text())
    assert figures["ms_per_file"] > figures["ms_per_file_from_kept_results"] > 0


def test_the_decompiler_is_measured(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PROGRAMS": 4, "BATCH": 4, "REPEATS": 1}.items():
        monkeypatch.setattr(decompile, name, value)
    decompile.main()
    figures = json.loads((results / "decompile.json").read_text())
    assert figures["certified_of_two_ways"] == 8 and figures["operations_checked_per_s"] > 0


def test_the_page_of_a_decompilation_is_measured(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := chromium.missing():
        pytest.skip(reason)
    for name, value in {"ROUNDS": 1, "LOADS": 1}.items():
        monkeypatch.setattr(pages, name, value)
    pages.main()
    figures = json.loads((results / "pages.json").read_text())
    assert 0 < figures["page_bytes"] < 1_500_000 and figures["first_paint_ms"] > 0 and figures["hovers"] >= 5


def test_what_a_gpu_makes_of_it_is_measured_in_small_with_torch_numpy_jaxtyping_and_safetensors_alone(
    results: Path,
) -> None:
    """A lent machine has hardly more; what is loaded is asked for before anything is measured."""
    others = ["sklearn", "scipy", "pyarrow", "pooch", "PIL", "matplotlib", "lightgbm", "rich", "jinja2"]
    code = f"import pathlib, sys; sys.modules.update(dict.fromkeys({others!r})); from benchmarks import gpu, record; "
    code += f"record.RESULTS = pathlib.Path({str(results)!r}); "
    code += f"sys.exit(gpu.main(['--small', '--workers', '1', '--out', {str(results / 'given.json')!r}]))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert run.returncode == 0, run.stderr
    figures = json.loads((results / "gpu-small.local.json").read_text())
    assert figures["zoo"][0]["images_per_s"] > 0 and figures["zoo"][0]["ratio_to_plain_loop"] > 0
    assert 0 < figures["metamodel"]["rows"][0]["mfu"] < 1
    assert figures["decompiler"]["programs_per_s"] > 0 and 0 <= figures["decompiler"]["idle_share"] < 1
    assert json.loads((results / "given.json").read_text())["zoo"] == figures["zoo"]
    assert "networks_per_s" in run.stdout and "mfu" in run.stdout and "idle_share" in run.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_nothing_is_measured_and_one_sentence_says_so(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu.main() == 0
    assert capsys.readouterr().out.count("\n") == 1 and not list(results.iterdir())


def test_every_recipe_that_a_gpu_is_measured_on_makes_one_stack(tmp_path: Path) -> None:
    gpu.noise_images(tmp_path, 100)
    for recipe in {recipe for recipe, _ in gpu.FULL.zoos}:
        plans = gpu.like_plans(recipe, 3, tmp_path, gpu.SMALL)
        assert len({stack_key(one) for one in plans}) == 1 and len({one.seed for one in plans}) == 3
        assert zoo_recipe(recipe).fixed["epochs"] >= 1


def test_a_stack_that_does_not_fit_is_a_row_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise WorkerError("the memory of cuda ran out")

    monkeypatch.setattr(gpu.StackedEngine, "run", full)
    rows = gpu.measure_zoo(torch.device("cpu"), gpu.SMALL, tmp_path, float("inf"))
    assert rows[0]["failed"] == "the memory of cuda ran out"
    assert gpu.measure_zoo(torch.device("cpu"), gpu.SMALL, tmp_path, 0.0)[0]["failed"] == "the time was up"


def test_the_operations_of_a_step_are_those_that_torch_counts() -> None:
    width, depth, heads, chunk, tokens, batch = 32, 2, 2, 16, 8, 4
    config = MetaModelConfig(chunk_size=chunk, width=width, depth=depth, heads=heads, pooling="mean")
    model = Transformer(config, tokens, 12, Room(0))
    read = TokenBatch(
        torch.randn(batch, tokens, chunk), torch.ones(batch, tokens, dtype=torch.bool), torch.rand(batch, tokens, 72)
    )
    with FlopCounterMode(display=False) as counter:
        model(read).sum().backward()
    ours = gpu.flops_a_step(width, depth, chunk, tokens, batch)
    # It counts the encoding of roles and the head too, which are left out here, and no gradient of the input
    assert counter.get_total_flops() == pytest.approx(ours, rel=0.1)


def test_the_peak_is_that_of_the_devices_name_or_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, peak in {"NVIDIA H100 PCIe": 756e12, "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA L40S": 362e12}.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        found, said = gpu.peak_of(torch.device("cuda"), 1e12)
        assert found == peak and "data sheet of" in said
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Something new")
    assert gpu.peak_of(torch.device("cuda"), 5e12) == (
        5e12,
        "no data sheet of Something new is known here: a plain matrix product as it was measured",
    )


def test_embedding_is_measured_by_size_and_a_reading_that_takes_too_long_is_given_up(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = large.cost
    monkeypatch.setattr(large, "READINGS", {"leaves": 1, "chunks": 1})
    monkeypatch.setattr(large, "cost", lambda reading, *rest: None if reading == "chunks" else real(reading, *rest))
    large.main(large.SMALL[:2])
    figures = json.loads((results / "large.json").read_text())
    assert all(cost["mib"] > cost["before"] > 0 and cost["seconds"] > 0 for cost in figures["leaves"].values())
    assert set(figures["chunks"].values()) == {None} and figures["chunks_exponent_seconds_from_1e+06"] is None
