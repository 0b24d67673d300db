"""`weightspace decompile` in a person's hands: every kind of file, every bad input a sentence, its exit codes.

The search itself is a stand-in here: it is handed the program, and proves it as the real one does.
"""

import errno
import json
import os
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from weightspace.cli import main
from weightspace.cli.options import seconds_of
from weightspace.decompiler.proof.verify import behaviour, certify, distance, permuted
from weightspace.decompiler.result import Decompilation
from weightspace.errors import RaspError
from weightspace.files.tensors import read_safetensors
from weightspace.rasp.compiler import storage as files
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import TOKENS, BareTransformer
from weightspace.rasp.compiler.storage import METADATA_KEY, load_bare, save_transformer
from weightspace.rasp.language import Map, Select, SelectorWidth, SequenceMap, indices, tokens
from weightspace.rasp.program import Program

HIST = Program.of(SelectorWidth(Select(tokens, tokens, "EQ")), vocab=("a", "b", "c"), max_seq_len=4)
WRONG = Program.of(SequenceMap("x + y", Map("1 if x == 'a' else 2", tokens), indices), max_seq_len=4)
NAMES = "transformer/layer_0/attn/query/w"


def proved(program: Program | None, asked: list[dict[str, Any]] | None = None) -> Callable[..., Decompilation]:
    """A search that comes up with one program."""

    def search(bare: BareTransformer, **options: Any) -> Decompilation:
        if asked is not None:
            asked.append({"bare": bare, **options})
        if program is None:
            return Decompilation("none", None, "stand-in", seconds=0.5)
        found = certify(program, bare)
        compared = behaviour(program, bare, certificate=found)
        assert compared is not None
        status = "certified" if found else "behaviour_equal" if compared.equal else "best_guess"
        far = None if found else distance(program, bare)
        return Decompilation(status, program, "stand-in", found, compared, far, 0.5, 3, ("v1: 2 candidates",))

    return search


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def use(program: Program | None, asked: list[dict[str, Any]] | None = None) -> None:
        module = ModuleType("weightspace.decompiler.decompile")
        module.decompile = proved(program, asked)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "weightspace.decompiler.decompile", module)

    return use


def params_of(program: Program = HIST, seed: int = 1) -> dict[str, np.ndarray]:
    return dict(permuted(BareTransformer.of(compile_program(program, mode="tracr_compat")), seed).params)


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    np.savez(tmp_path / "model.npz", **params_of())  # type: ignore[arg-type]
    return tmp_path / "model.npz"


# -- files ----------------------------------------------------------------------------------------------------------


def test_our_own_file_is_read_without_its_names(tmp_path: Path) -> None:
    save_transformer(compile_program(HIST), tmp_path / "model.safetensors")
    bare = load_bare(tmp_path / "model.safetensors")
    assert bare.vocab == ("a", "b", "c") and bare.mode == "fixed" and bare.readout is not None
    assert certify(HIST, bare) is not None


def test_a_half_precision_copy_and_a_damaged_description_are_refused_with_their_reason(tmp_path: Path) -> None:
    save_transformer(compile_program(HIST), tmp_path / "model.safetensors")
    params, metadata = read_safetensors(tmp_path / "model.safetensors")
    save_file(
        {name: value.astype(np.float16) for name, value in params.items()}, tmp_path / "half.safetensors", metadata
    )
    with pytest.raises(RaspError, match="parameters are float16, and its description is of a file in float32"):
        load_bare(tmp_path / "half.safetensors")
    (about,) = metadata.values()
    for damaged, reason in (
        ({"format": 1}, "it lacks 'configuration'"),
        ({**json.loads(about), "directions": 7}, "of another form"),
    ):
        save_file(params, tmp_path / "damaged.safetensors", {METADATA_KEY: json.dumps(damaged)})
        with pytest.raises(RaspError, match=f"damaged description .*{reason}"):
            load_bare(tmp_path / "damaged.safetensors")


def test_what_rounding_to_half_precision_leaves_is_not_called_nothing() -> None:
    exact = BareTransformer.of(compile_program(HIST, mode="tracr_compat"))
    params = {name: value * np.float32(1 + 3e-6) for name, value in exact.params.items()}
    far = distance(HIST, BareTransformer.of_params(params, exact.vocab, num_heads=exact.num_heads))
    assert far is not None and "differ by 0.0003% of their norm" in far.explain()


def test_safetensors_without_a_description_need_the_vocabulary_in_any_order(tmp_path: Path) -> None:
    save_file(params_of(), str(tmp_path / "model.safetensors"))
    bare = load_bare(tmp_path / "model.safetensors", vocab=["c", "a", "b"])
    assert bare.readout is None and bare.mode is None
    found = certify(HIST, bare)
    assert found is not None and found.mode == "tracr_compat"
    with pytest.raises(RaspError, match=r"give a vocabulary of 3 \(--vocab\)"):
        load_bare(tmp_path / "model.safetensors")


def test_an_npz_of_tracrs_parameters_is_read_under_any_prefix(tmp_path: Path, npz: Path) -> None:
    assert certify(HIST, load_bare(npz, vocab=["a", "b", "c"])) is not None
    one = {f"run/7/{name}": array for name, array in params_of().items()}
    np.savez_compressed(tmp_path / "one.npz", **one)  # type: ignore[arg-type]
    assert certify(HIST, load_bare(tmp_path / "one.npz", vocab=["a", "b", "c"])) is not None
    two = one | {f"other/{name}": array for name, array in params_of(seed=2).items()}
    np.savez(tmp_path / "two.npz", **two)  # type: ignore[arg-type]
    with pytest.raises(RaspError, match=r"holds 2 transformers: say which .* other, run/7"):
        load_bare(tmp_path / "two.npz", vocab=["a", "b", "c"])
    assert certify(HIST, load_bare(tmp_path / "two.npz", vocab=["a", "b", "c"], identifier="other")) is not None
    with pytest.raises(RaspError, match="holds no transformer 'third': there are other, run/7"):
        load_bare(tmp_path / "two.npz", vocab=["a", "b", "c"], identifier="third")


def _without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda params: params.pop(name)


def _with(name: str, array: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda params: params.update({name: array})


def _nan(params: dict[str, Any]) -> None:
    params[NAMES] = params[NAMES].copy()
    params[NAMES][0, 0] = np.nan


def _huge(params: dict[str, Any]) -> None:
    for name in params:
        params[name] = params[name] * np.float32(1e19)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda params: params.clear() or params.update(conv=np.ones((3, 3))), "it is no transformer under Tracr"),
        (_without("pos_embed/embeddings"), "there is no 'pos_embed/embeddings'"),
        (_without(NAMES), f"the parameter '{NAMES}' is missing"),
        (_without("transformer/layer_0/mlp/linear_2/w"), "linear_2/w' is missing"),
        (_nan, f"'{NAMES}' holds NaN"),
        (_with("transformer/layer_0/attn/key/w", np.ones((5, 5), np.float32)), "has shape \\(5, 5\\): expected"),
        (_with("transformer/layer_0/attn/key/w", np.ones(5, np.float32)), "expected 2 axes"),
        (_with("transformer/layer_7/attn/key/w", np.ones((5, 5), np.float32)), "without gaps"),
        (_with("lm_head/w", np.ones((5, 5), np.float32)), "'lm_head/w' is none of Tracr's"),
        (_with("pos_embed/embeddings", np.ones((5, 3), np.float32)), "expected \\(2 or more, "),
        (_with("token_embed/embeddings", np.array([[1, 2]])), "axes of floating-point numbers"),
        (_with(NAMES, np.array([[None]], object)), "holds pickled objects, which are never read"),
        (_huge, "so large that its forward pass overflows"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_such_transformer_is_refused_in_one_sentence(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], sentence: str
) -> None:
    params: dict[str, Any] = params_of()
    change(params)
    np.savez(tmp_path / "model.npz", **params)
    with pytest.raises(RaspError, match=sentence) as error:
        load_bare(tmp_path / "model.npz", vocab=["a", "b", "c"])
    assert "model.npz" in str(error.value) and "\n" not in str(error.value)


def test_damaged_files_folders_and_missing_ones_are_refused(tmp_path: Path, npz: Path) -> None:
    content = npz.read_bytes()
    (tmp_path / "torn.npz").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.npz").write_text("not a zip")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    flipped = bytearray(content)
    for place in range(200, len(flipped) - 400, 97):
        flipped[place] ^= 0xFF
    (tmp_path / "flipped.npz").write_bytes(bytes(flipped))
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    for name in ("torn.npz", "text.npz", "empty.safetensors", "flipped.npz", "other.npz"):
        with pytest.raises(RaspError, match=name):
            load_bare(tmp_path / name, vocab=["a", "b", "c"])
    with pytest.raises(RaspError, match="is a folder"):
        load_bare(tmp_path)
    with pytest.raises(RaspError, match="there is no file"):
        load_bare(tmp_path / "nothing.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(RaspError, match=r"pipe\.npz is no regular file"):
        load_bare(tmp_path / "pipe.npz")


def test_an_array_of_more_entries_than_there_are_numbers_for_is_refused(tmp_path: Path) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**30}, 2)}}".ljust(117) + "\n"
    with zipfile.ZipFile(tmp_path / "lying.npz", "w") as archive:
        archive.writestr(f"{TOKENS}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.encode() + bytes(64))
    with pytest.raises(RaspError, match=r"lying.npz says that it holds more than fits into memory"):
        load_bare(tmp_path / "lying.npz")


def test_an_npz_that_unpacks_to_more_than_a_transformer_can_be_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", **{TOKENS: np.zeros((1_000, 1_000))})  # type: ignore[arg-type]
    assert (tmp_path / "bomb.npz").stat().st_size < 20_000
    monkeypatch.setattr(files, "LARGEST_FILE", 1_000_000)
    with pytest.raises(RaspError, match=r"holds 8,000,[0-9]* bytes when it is unpacked: at most 1,000,000 are read"):
        load_bare(tmp_path / "bomb.npz")


def test_what_is_said_against_the_file_is_refused(tmp_path: Path, npz: Path) -> None:
    save_transformer(compile_program(HIST), tmp_path / "model.safetensors")
    with pytest.raises(RaspError, match="says that its vocabulary is 'a', 'b', 'c'"):
        load_bare(tmp_path / "model.safetensors", vocab=["a", "b"])
    with pytest.raises(RaspError, match="says that it has 1 head, not 2"):
        load_bare(tmp_path / "model.safetensors", num_heads=2)
    with pytest.raises(RaspError, match="says that each place sees all others"):
        load_bare(tmp_path / "model.safetensors", causal=True)
    with pytest.raises(RaspError, match="one for each of the 2 tokens of the vocabulary, BOS and PAD"):
        load_bare(npz, vocab=["a", "b"])
    with pytest.raises(RaspError, match="cannot share"):
        load_bare(npz, vocab=["a", "b", "c"], num_heads=4)
    with pytest.raises(RaspError, match="compiler's own token"):
        load_bare(npz, vocab=["a", "compiler_bos", "c"])


# -- the verb -------------------------------------------------------------------------------------------------------


def test_a_certified_program_is_printed_written_and_ends_with_0(
    tmp_path: Path, npz: Path, search: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []
    search(HIST, asked)
    out, page = tmp_path / "found.rasp", tmp_path / "report.html"
    options = ["--vocab", '["a", "b", "c"]', "--budget", "2m", "--out", str(out), "--html", str(page), "-v"]
    assert main(["decompile", str(npz), *options]) == 0
    printed = capsys.readouterr().out
    assert "return v2" in printed and "certified" in printed and "v1: 2 candidates" in printed
    assert asked[0]["budget"] == 120
    again = Program.parse(out.read_text())
    assert certify(again, load_bare(npz, vocab=["a", "b", "c"])) is not None
    assert "certificate" in page.read_text() and "script-src &#39;sha256-" in page.read_text()


def test_json_says_what_was_found_and_how_far_it_is_proved(
    npz: Path, search: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    search(HIST)
    assert main(["decompile", str(npz), "--vocab", "a,b,c", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == "certified" and found["mode"] == "tracr_compat" and found["method"] == "stand-in"
    assert found["inputs_checked"] == 3 + 9 + 27 + 81 and found["exhaustive"] and found["counterexample"] is None
    assert found["checked_operations"] == 3 and found["seconds"] == 0.5 and found["tables"] == 0
    assert sorted(found["certificate"]["directions"]) == list(range(len(found["certificate"]["directions"])))
    assert Program.parse(found["program"]).vocab == ("a", "b", "c")


def test_a_best_guess_ends_with_3_and_is_written_with_what_differs(
    tmp_path: Path, npz: Path, search: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    search(WRONG.meant_for(("a", "b", "c")))
    out, page = tmp_path / "found.rasp", tmp_path / "report.html"
    vocab = tmp_path / "vocab.json"
    vocab.write_text('["c", "b", "a"]')
    options = ["--vocab", str(vocab), "--out", str(out), "--html", str(page)]
    assert main(["decompile", str(npz), *options]) == 3
    printed = capsys.readouterr().out
    assert "best guess" in printed and "the weights" in printed and "differ" in printed
    assert Program.parse(out.read_text()) and page.is_file()
    assert main(["decompile", str(npz), *options, "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == "best_guess" and found["counterexample"]["input"] and found["certificate"] is None


def test_where_nothing_is_found_that_is_said_and_the_exit_code_is_3(
    tmp_path: Path, npz: Path, search: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    search(None)
    options = ["--vocab", "a,b,c", "--out", str(tmp_path / "found.rasp"), "--html", str(tmp_path / "report.html")]
    assert main(["decompile", str(npz), *options]) == 3
    assert "no program was found" in capsys.readouterr().out
    assert not (tmp_path / "found.rasp").exists() and (tmp_path / "report.html").exists()
    assert main(["decompile", str(npz), "--vocab", "a,b,c", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["program"] is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--vocab", "a,b,c", "--budget", "soon"], "--budget 'soon' is no time"),
        (["--vocab", "a,b,c", "--budget", "0"], "is no time"),
        (["--vocab", "[1, 2"], "--vocab is no JSON list"),
        (["--vocab", '{"a": 1}'], "--vocab is a JSON dict"),
        (["--vocab", "missing.json"], "missing.json, which is not there"),
        (["--vocab", "[[1], [2], [3]]"], "tokens are numbers or strings"),
        (["--vocab", "a,b"], "one for each of the 2 tokens"),
        ([], "give a vocabulary of 3"),
        (["--vocab", "a,b,c", "--heads", "0"], "0 heads"),
        (["--vocab", "a,b,c", "--id", "x"], "holds one transformer: leave out the identifier 'x'"),
        (["--vocab", "a,b,c", "--out", "."], "is a folder"),
        (["--vocab", "abc"], "--vocab abc is no file and no list of tokens"),
        (["--vocab", "[true, 1, 2]"], "holds True and 1, which are equal"),
        (["--vocab", "a,b,c", "--out", "/dev/null"], "--out /dev/null is no regular file"),
        (["--vocab", "a,b,c", "--out", "x", "--html", "x"], "--html x is that of --out too"),
    ],
)
def test_bad_input_is_one_sentence_and_ends_with_2(
    npz: Path, search: Callable[..., None], capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    search(HIST)
    assert main(["decompile", str(npz), *options]) == 2
    said = capsys.readouterr()
    assert sentence in said.err and said.err.count("\n") == 1 and not said.out


def test_the_file_that_is_read_is_never_written(
    npz: Path, search: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    search(HIST)
    before = npz.read_bytes()
    for option in ("--out", "--html"):
        assert main(["decompile", str(npz), "--vocab", "a,b,c", option, str(npz.parent / "." / npz.name)]) == 2
        assert "is the file that is read too: name another file" in capsys.readouterr().err
    assert npz.read_bytes() == before


def test_on_a_full_disk_the_program_is_printed_and_the_file_named(
    tmp_path: Path, npz: Path, search: Callable[..., None],
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    search(HIST)
    monkeypatch.setattr("os.fsync", full)
    out = tmp_path / "found.rasp"
    assert main(["decompile", str(npz), "--vocab", "a,b,c", "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert "return v2" in said.out
    assert said.err == (
        f"weightspace: the disk is full while writing {out}: free some space and run the same command again\n"
    )
    assert list(tmp_path.iterdir()) == [npz]


def test_an_older_file_is_not_said_to_be_written_where_nothing_was_found(
    tmp_path: Path, npz: Path, search: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    search(None)
    out = tmp_path / "found.rasp"
    out.write_text("older\n")
    assert main(["decompile", str(npz), "--vocab", "a,b,c", "--out", str(out)]) == 3
    said = capsys.readouterr()
    assert str(out) not in said.out and f"{out} was left as it was" in said.err
    assert out.read_text() == "older\n"


def test_budgets_are_read_in_seconds_minutes_and_hours() -> None:
    assert [seconds_of(text) for text in ("30s", "2m", "45", "0.5s", " 1 h")] == [30, 120, 45, 0.5, 3600]
