"""The command line: every verb from a zoo to an answer, and one sentence for every kind of bad input."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from weightspace.cli import dispatch, metamodels, options
from weightspace.cli.dispatch import VERBS, main
from weightspace.evaluation.results import Results
from weightspace.weights.network import Network
from weightspace.zoo.recipes import ZOO_RECIPES
from weightspace.zoo.store import Zoo, shard_path

COMMAND = str(Path(sys.executable).with_name("weightspace"))
MAKE = ["--count", "60", "--epochs", "2", "--workers", "0"]
SHORT = ["--steps", "20", "--evaluate-every", "10", "--permutations", "8", "--device", "cpu"]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "zoo"
    assert main(["zoo", "make", "digits-small", "--out", str(folder), *MAKE]) == 0
    return folder


@pytest.fixture(scope="module")
def run(zoo: Path) -> Path:
    folder = zoo.parent / "run"
    assert main(["train", str(zoo), "--out", str(folder), *SHORT]) == 0
    return folder


@pytest.fixture(scope="module")
def compared(zoo: Path) -> Path:
    folder = zoo.parent / "compared"
    assert main(["compare", str(zoo), "--out", str(folder), *SHORT]) == 0
    return folder


def fails(capsys: pytest.CaptureFixture[str], words: list[str], *parts: str) -> str:
    """Run a verb that must fail with exit status 2 and one sentence, and give the sentence."""
    assert main(words) == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith("weightspace: ")
    assert sentence.count("\n") == 1
    assert "Traceback" not in sentence
    for part in parts:
        assert part in sentence
    return sentence


def test_the_result_of_a_comparison_is_the_promised_record(compared: Path) -> None:
    record = json.loads((compared / "results.json").read_text())
    assert {"task", "rows"} <= record.keys()
    keys = {"target", "predictor", "accuracy", "low", "high", "chance", "majority", "n"}
    assert all(keys <= row.keys() for row in record["rows"])
    predictors = {row["predictor"] for row in record["rows"]}
    assert predictors == {"majority", "linear", "statistics + LightGBM", "meta-model"}
    assert {row["target"] for row in record["rows"]} == {"activation", "initialisation", "optimiser"}
    assert Results.load(compared / "results.json").to_json() == record


def test_the_numbers_of_a_comparison_fit_each_other_and_the_zoo(compared: Path, zoo: Path) -> None:
    results = Results.load(compared / "results.json")
    test = (Zoo.open(zoo).column("split") == "test").sum()
    for row in results.rows:
        assert row.n == test
        assert row.chance in (pytest.approx(1 / 4), pytest.approx(1 / 3))
        if row.predictor == "majority":
            assert row.accuracy == pytest.approx(row.majority)
    for target, confusion in results.confusion.items():
        matrix = np.array(confusion.matrix)
        row = next(r for r in results.rows if (r.target, r.predictor) == (target, "meta-model"))
        assert matrix.sum() == test
        assert np.trace(matrix) / test == pytest.approx(row.accuracy)
    assert len(results.accuracies) == 60
    assert [point.step for point in results.curves["meta-model"]] == [10, 20]


def test_the_report_is_written_beside_and_can_be_made_again(compared: Path, tmp_path: Path) -> None:
    assert main(["report", str(compared / "results.json"), "--out", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_bytes() == (compared / "report.html").read_bytes()


def test_a_meta_model_is_evaluated_as_it_was_compared(
    run: Path, zoo: Path, compared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`train` then `evaluate` is the same path as `compare`: same seed, same split, same figures."""
    capsys.readouterr()
    assert main(["evaluate", str(run), str(zoo), "--json"]) == 0
    rows = {row["target"]: row for row in json.loads(capsys.readouterr().out)}
    for row in Results.load(compared / "results.json").rows:
        if row.predictor == "meta-model":
            assert rows[row.target]["accuracy"] == pytest.approx(row.accuracy)
            assert rows[row.target]["low"] == pytest.approx(row.low)


def test_a_file_is_judged_whether_it_describes_itself_or_only_fits(
    run: Path, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.numpy import save_file

    network = Zoo.open(zoo).population("test")[0]
    network.save(tmp_path / "ours.safetensors")
    save_file({name: array.copy() for name, array in network.arrays().items()}, tmp_path / "plain.safetensors")
    capsys.readouterr()
    assert main(["predict", str(run), *map(str, sorted(tmp_path.iterdir())), "--json"]) == 0
    ours, plain = json.loads(capsys.readouterr().out)
    assert ours["targets"] == plain["targets"]
    for classes in ours["targets"].values():
        assert sum(classes.values()) == pytest.approx(1)
    assert main(["predict", str(run), str(tmp_path / "ours.safetensors")]) == 0
    assert "optimiser" in capsys.readouterr().out


def test_one_network_gets_one_answer_from_every_container_and_under_other_names(
    run: Path, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """C13: a `.pt`, and the same architecture with other layer names."""
    import torch

    network = Zoo.open(zoo).population("test")[1]
    network.save(tmp_path / "a.safetensors")
    tensors = {name: torch.from_numpy(array.copy()) for name, array in network.arrays().items()}
    torch.save(tensors, tmp_path / "b.pt")
    renamed = {"conv1": "features.0", "conv2": "features.3", "dense1": "fc"}
    other = {f"{renamed[name.split('.')[0]]}.{name.split('.')[1]}": tensor for name, tensor in tensors.items()}
    torch.save(other, tmp_path / "c.pt")
    torch.save({"epoch": 3, "module": {f"_orig_mod.{n}": t for n, t in tensors.items()}}, tmp_path / "d.ckpt")
    capsys.readouterr()
    assert main(["predict", str(run), *map(str, sorted(tmp_path.iterdir())), "--json"]) == 0
    first, *others = json.loads(capsys.readouterr().out)
    for answer in others:
        for target, classes in answer["targets"].items():
            assert classes == pytest.approx(first["targets"][target])
        assert answer["distance"] == pytest.approx(first["distance"])
    assert "features.0.weight is conv1.weight" in " ".join(others[1]["notes"])
    assert main(["predict", str(run), str(tmp_path / "c.pt")]) == 0
    assert "other names" in capsys.readouterr().out
    torch.save({**other, "features.3.weight": torch.zeros(32, 8, 3, 3)}, tmp_path / "e.pt")
    difference = (
        "its second layer, features.3.weight, is [32, 8, 3, 3]; the meta-model's, conv2.weight, is [16, 8, 3, 3]"
    )
    fails(capsys, ["predict", str(run), str(tmp_path / "e.pt")], "e.pt", "out of scope", difference)


def test_an_untrained_network_is_said_to_be_unlike_anything_it_was_trained_on(
    run: Path, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """C16: it was "sigmoid 100%" without a word."""
    import torch

    from weightspace.zoo.networks import module_of

    module = module_of(Zoo.open(zoo)[0])
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.reset_parameters()
            torch.nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
    torch.save(module.state_dict(), tmp_path / "fresh.pt")
    capsys.readouterr()
    assert main(["predict", str(run), str(tmp_path / "fresh.pt")]) == 0
    said = capsys.readouterr().out
    assert "fresh.pt: unlike anything it was trained on" in said and "the answer means little" in said
    assert "has standard deviation" in said


def test_info_and_check_speak_json(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["zoo", "info", str(zoo), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["networks"] == 60
    assert main(["zoo", "check", str(zoo), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["zoo", "check", str(zoo)]) == 0
    assert "sound, no leaks found" in capsys.readouterr().out


@pytest.mark.parametrize("recipe", [pytest.param("mnist-small", marks=pytest.mark.slow), "fashion-mnist-small"])
def test_the_same_recipe_runs_on_other_images(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real MNIST and Fashion-MNIST, read from WEIGHTSPACE_DATA."""
    beside = Path(__file__).parent.parent.parent.parent / "shared" / "data"
    folder = Path(os.environ.get("WEIGHTSPACE_DATA", beside))
    if not (folder / recipe.removesuffix("-small").replace("-", "_")).is_dir():
        pytest.skip(f"no images in {folder}: set WEIGHTSPACE_DATA to a folder that has them")
    monkeypatch.setenv("WEIGHTSPACE_DATA", str(folder))
    few = ["--count", "20", "--epochs", "1", "--workers", "0"]
    assert main(["zoo", "make", recipe, "--out", str(tmp_path / "zoo"), *few, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["networks"] == 20
    assert facts["test_accuracy"]["max"] > 0.4  # one epoch of 4,000 images; a tenth is chance
    assert main(["compare", str(tmp_path / "zoo"), "--out", str(tmp_path / "out"), *SHORT]) == 0


def test_help_names_every_verb_and_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    usage = capsys.readouterr().out
    for name in VERBS:
        assert name in usage
        assert main([*name.split(), "--help"]) == 0
        assert "usage: weightspace" in capsys.readouterr().out


def test_help_and_import_load_no_torch() -> None:
    code = "import sys; from weightspace.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


# -- bad input --------------------------------------------------------------------------------------------------------


def test_an_unknown_verb_recipe_or_image_set_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(capsys, ["fly"], "no verb 'fly'")
    fails(capsys, ["zoo"], "make, info, check")
    out = ["--out", str(tmp_path / "zoo")]
    fails(capsys, ["zoo", "make", "digits-smal", *out], "did you mean 'digits-small'")
    fails(capsys, ["zoo", "make", "digits-small", "--images", "minst", *out, *MAKE], "'minst'", "did you mean 'mnist'")
    fails(capsys, ["zoo", "make", "digits-small", "--engine", "cloud", *out], "choose process")
    fails(capsys, ["zoo", "make", "digits-small", "--workers", "-3", *out], "--workers -3", "0 or more")
    fails(capsys, ["zoo", "make", "digits-small", "--stack", "0", *out], "--stack 0", "1 or more")
    fails(capsys, ["zoo", "make", "digits-small", "--count", "0", *out], "at least 1")


def test_a_wrong_option_is_one_sentence(zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    fails(capsys, ["zoo", "make", "digits-small", "--colour", "blue"], "--colour")
    for word, value, kind in (("--epochs", "x", "whole number"), ("--cpus", "x", "number")):
        sentence = f"{word} takes a {kind}, not {value!r}: see weightspace zoo make --help"
        fails(capsys, ["zoo", "make", "digits-small", word, value], f"weightspace: {sentence}\n")
    fails(capsys, ["train", str(zoo)], "--out")
    train = ["train", str(zoo), "--out", str(tmp_path / "run")]
    fails(capsys, [*train, "--width", "30"], "width 30", "a multiple of the 4 heads")
    fails(capsys, [*train, "--chunk-size", "7"], "chunk_size 7", "8 to 1024")
    fails(capsys, [*train, "--recipe", "huge"], "'huge'", "small, paper")
    fails(capsys, [*train, "--targets", "colour"], "'colour'", "activation")
    fails(capsys, [*train, "--targets", "optimiser", "optimiser"], "twice")
    fails(capsys, ["predict", str(zoo)], "at least one file")
    fails(capsys, ["zoo", "make", "digits-small", "--seed", "-1"], "seed -1")


def test_a_recipe_gives_the_defaults_and_options_change_them() -> None:
    words = ["zoo", "--out", "run", "--recipe", "paper", "--depth", "2", "--learning-rate", "1e-4"]
    config = dispatch._parse(metamodels.train, "weightspace train", words)[0]["config"]
    assert (config.width, config.depth, config.chunk_size) == (256, 2, 1024)
    assert (config.training.steps, config.training.learning_rate) == (100_000, 1e-4)
    assert dispatch._parse(metamodels.train, "weightspace train", words[:3])[0]["config"] == options.SMALL


def test_the_help_of_zoo_make_names_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    main(["zoo", "make", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for name in ZOO_RECIPES:
        assert name in shown


def _interruptible() -> None:
    """What a shell starts with `&` ignores Ctrl-C, and so does all that it starts: these tests too, perhaps."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_run_that_is_told_to_stop_says_one_sentence(tmp_path: Path, number: int) -> None:
    """To the whole process group, as a terminal does it."""
    words = [COMMAND, "zoo", "make", "digits-small", "--out", tmp_path / "zoo", "--workers", "1", "--shard-size", "4"]
    process = subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=_interruptible
    )
    shards = tmp_path / "zoo" / "shards"
    deadline = time.monotonic() + 60
    while not (shards.is_dir() and list(shards.glob("0*"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=30)
    if number == signal.SIGINT:
        assert process.returncode == 130
    lines = [line for line in errors.splitlines() if not line.startswith("training:")]
    assert lines == ["weightspace: interrupted: run the same command again to go on"]


def test_a_closed_standard_output_is_no_error(zoo: Path) -> None:
    done = subprocess.run(["bash", "-c", f"{COMMAND} zoo info {zoo} >&-"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_flipped_weights_are_not_trained_on(
    zoo: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    shutil.copytree(zoo, tmp_path / "zoo")
    path = shard_path(tmp_path / "zoo", 1)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    capsys.readouterr()
    for words in (
        ["train", str(tmp_path / "zoo"), "--out", str(tmp_path / "run"), *SHORT],
        ["evaluate", str(run), str(tmp_path / "zoo")],
    ):
        fails(capsys, words, "network 31 in shards/00001.safetensors differs from its checksum")


def test_what_is_no_zoo_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str], run: Path) -> None:
    for words in (["zoo", "info"], ["zoo", "check"], ["evaluate", str(run)]):
        fails(capsys, [*words, str(tmp_path)], "is not a zoo", "weightspace zoo make")
    fails(capsys, ["train", str(tmp_path), "--out", str(tmp_path / "run"), *SHORT], "is not a zoo")
    fails(capsys, ["report", str(tmp_path / "none.json")], "none.json")


def test_a_damaged_zoo_names_the_network(zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    shutil.copytree(zoo, tmp_path / "zoo")
    path = shard_path(tmp_path / "zoo", 2)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # in the last network of the third shard of 16
    path.write_bytes(content)
    capsys.readouterr()
    assert main(["zoo", "check", str(tmp_path / "zoo")]) == 1
    assert "network 47 in shards/00002.safetensors" in capsys.readouterr().out
    path.write_bytes(content[:1000])
    # As a process of its own: under test, beartype looks into the population before the verb does.
    words = [COMMAND, "train", tmp_path / "zoo", "--out", tmp_path / "run", *SHORT]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "00002.safetensors is torn" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_network_that_cannot_be_judged_is_named(
    run: Path, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = Zoo.open(zoo).population("test")[0]
    sick = network.weights.copy()
    sick[100] = np.nan
    Network(network.spec, sick).save(tmp_path / "sick.safetensors")
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "sick.safetensors").read_bytes()[:-7])
    (tmp_path / "text.safetensors").write_text("hello")
    whole = (tmp_path / "sick.safetensors").read_bytes()
    (tmp_path / "odd.safetensors").write_bytes(whole.replace(rb"\"metadata\": {}", rb"\"metadata\": []"))
    (tmp_path / "pickle.pt").write_bytes(b"\x80\x04cos\nsystem\n")
    capsys.readouterr()
    fails(capsys, ["predict", str(run), str(tmp_path / "sick.safetensors")], "sick.safetensors", "NaN")
    fails(capsys, ["predict", str(run), str(tmp_path / "torn.safetensors")], "torn.safetensors", "not a whole")
    fails(capsys, ["predict", str(run), str(tmp_path / "text.safetensors")], "text.safetensors", "not a whole")
    fails(capsys, ["predict", str(run), str(tmp_path / "pickle.pt")], "pickle.pt", "nothing in it was executed")
    fails(capsys, ["predict", str(run), str(tmp_path / "odd.safetensors")], "odd.safetensors", "no dictionary")
    fails(capsys, ["predict", str(run), str(tmp_path / "none")], "no file")
    network.save(tmp_path / "well.safetensors")
    assert (
        main(["predict", str(run), *(str(tmp_path / f"{name}.safetensors") for name in ("torn", "well", "text"))]) == 2
    )
    said = capsys.readouterr()
    assert "well.safetensors: " in said.out and said.out.count("\n") == 1  # one bad file does not stop the others
    assert "torn.safetensors" in said.err and "text.safetensors" in said.err and said.err.count("\n") == 2
    fails(capsys, ["predict", str(zoo), str(tmp_path / "sick.safetensors")], "holds no meta-model")
    model = str(run / "model.safetensors")
    fails(capsys, ["predict", str(run), model], "model.safetensors is no network", "such as a meta-model")
    fails(capsys, ["predict", str(tmp_path / "sick.safetensors"), model], "sick.safetensors is no meta-model")


def test_a_meta_model_of_another_zoo_is_one_sentence(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    from weightspace.zoo.engine import ProcessEngine
    from weightspace.zoo.making import make_zoo
    from weightspace.zoo.plan import Choice
    from weightspace.zoo.recipes import zoo_recipe

    config = replace(zoo_recipe("digits-small"), count=12, fixed={"batch_size": 64, "epochs": 1})
    wide = replace(config, fixed={**config.fixed, "width": 4})
    make_zoo(wide, tmp_path / "wide", ProcessEngine(workers=0), show=False)
    fails(capsys, ["evaluate", str(run), str(tmp_path / "wide")], "out of scope")
    fewer = replace(config, space={**config.space, "activation": Choice(("relu", "tanh"))})
    make_zoo(fewer, tmp_path / "fewer", ProcessEngine(workers=0), show=False)
    fails(capsys, ["evaluate", str(run), str(tmp_path / "fewer")], "'activation'", "evaluate it on a zoo of the recipe")


def test_a_run_folder_of_another_meta_model_is_not_overwritten(
    run: Path, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "model.safetensors").read_bytes()
    fails(capsys, ["train", str(zoo), "--out", str(run), *SHORT, "--width", "32"], "choose another folder")
    assert (run / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/zoo/shard"), ("disk is full", "/zoo/shard", "kept")),
        (
            PermissionError(errno.EACCES, "Permission denied", "/zoo"),
            ("/zoo cannot be read or written (permission denied)", "another place"),
        ),
        (MemoryError(), ("not enough memory",)),
    ],
)
def test_what_the_machine_lacks_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, parts: tuple[str, ...]
) -> None:
    def failing() -> int:
        raise error

    monkeypatch.setitem(VERBS, "zoo make", (failing, "fails"))
    fails(capsys, ["zoo", "make"], *parts)


def test_a_reader_that_leaves_early_is_no_error(zoo: Path) -> None:
    shell = f"{COMMAND} zoo info {zoo} | head -1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, env=dict(os.environ), check=True)
    assert done.stderr == ""
