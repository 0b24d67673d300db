"""The verbs of RASP: programs drawn at random, shown, run, compiled and checked, and every bad input one sentence."""

import io
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from tests.cli.test_cli import COMMAND, fails
from weightspace.cli import main
from weightspace.cli.dispatch import GROUPS
from weightspace.errors import RaspError
from weightspace.rasp.compiler.agreement import agreement, agrees
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.storage import load_compiled
from weightspace.rasp.functions import Value
from weightspace.rasp.interpreter import evaluate
from weightspace.rasp.program import Program
from weightspace.rasp.reading import read_input, read_vocabulary, token_text
from weightspace.rasp.sampler import sample
from weightspace.rasp.statistics import PUBLISHED, format_statistics, statistics

HIST = """# How often each token occurs.
vocab = ['e', 'h', 'l', 'o']
max_seq_len = 5
same_tok = Select(PRED_EQ, tokens, tokens)
hist = SelectorWidth(same_tok)
return hist
"""
SHARE = """
vocab = [0, 1]
max_seq_len = 4
flag: numerical = Map(x == 1, tokens)
all = Select(PRED_TRUE, tokens, tokens)
share: numerical = Aggregate(all, flag)
many = Map(x > 0.5, share)
"""
MEANINGLESS = """
vocab = [1, 2, 3]
max_seq_len = 4
all = Select(PRED_TRUE, tokens, tokens)
mean = Aggregate(all, tokens)
"""
WRONG = """
vocab = ['a', 'b']
max_seq_len = 3
v1: numerical = Map(1 / x, indices)
v2 = SequenceMap(x + y, v1, v1)
return v2
"""


@pytest.fixture
def hist(tmp_path: Path) -> str:
    return written(tmp_path, HIST)


def written(folder: Path, text: str, name: str = "program.rasp") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def says(capsys: pytest.CaptureFixture[str], words: list[str], code: int = 0) -> str:
    """Run a verb, which must end with an exit status and say nothing on stderr, and give what it prints."""
    capsys.readouterr()
    assert main(words) == code
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


# -- show -------------------------------------------------------------------------------------------------------------


def test_show_prints_text_graph_sizes_and_named_directions(hist: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = says(capsys, ["rasp", "show", hist])
    assert shown.startswith(str(Program.parse(HIST)))
    assert "depth 2   hist = SelectorWidth(same_tok)" in shown
    assert "1,208 parameters" in shown
    assert "hist_selector_width_attn_output" in shown
    assert "compiler_bos" in shown


def test_show_with_an_input_prints_what_every_variable_gives_and_the_answer(
    hist: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The paper's Figure 15: hist("hello") is 1 1 2 2 1."""
    shown = says(capsys, ["rasp", "show", hist, "--input", "hello"])
    assert "hist         1 1 2 2 1\ntransformer  1 1 2 2 1   (the same)" in shown
    assert shown.split("same_tok  h")[1].split().count("x") == 7  # pairs of equal tokens


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_show_draws_the_graph_and_with_an_input_the_stream(
    suffix: str, hist: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pictures" / f"hist.{suffix}"
    graph, stream = out, out.with_name(f"hist-stream.{suffix}")
    shown = says(capsys, ["rasp", "show", hist, "--out", str(out)])
    assert str(graph) in shown and str(stream) not in shown and "--input" in shown
    assert [*out.parent.iterdir()] == [graph]
    shown = says(capsys, ["rasp", "show", hist, "--out", str(out), "--input", "hello"])
    assert str(graph) in shown and str(stream) in shown
    assert {*out.parent.iterdir()} == {graph, stream}


def test_show_speaks_json(hist: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["rasp", "show", hist, "--json", "--input", "h e", "--out", str(tmp_path / "p.svg")]
    shown = json.loads(says(capsys, words))
    assert Program.parse(shown["text"]).output is not None
    assert [node["variable"] for node in shown["graph"]] == ["tokens", "same_tok", "hist"]
    assert shown["transformer"]["parameters"] == 1208
    named = {group["label"]: group for group in shown["transformer"]["directions"]}
    assert named["selector_width_01"]["variable"] == "hist"
    assert shown["trace"]["hist"] == shown["answer"] == [1, 1]
    assert len(shown["written"]) == 2


def test_show_gives_what_it_can_of_a_program_that_cannot_be_compiled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = says(capsys, ["rasp", "show", written(tmp_path, WRONG)])
    assert "depth 2   v2" in shown
    assert "it cannot be compiled:\n  v1: division by zero" in shown
    assert len(json.loads(says(capsys, ["rasp", "show", written(tmp_path, WRONG), "--json"]))["reasons"]) == 3
    bare = written(tmp_path, "v1 = Map(x + 1, tokens)")
    assert "give --vocab and --max-seq-len" in says(capsys, ["rasp", "show", bare])
    assert "parameters" in says(capsys, ["rasp", "show", bare, "--vocab", "0,1", "--max-seq-len", "2"])


# -- run --------------------------------------------------------------------------------------------------------------


def test_run_gives_the_interpreters_answer_and_the_transformers(hist: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = says(capsys, ["rasp", "run", hist, "--input", "hello", "--input", "l,o l"])
    assert shown == (
        "input        h e l l o\ninterpreter  1 1 2 2 1\ntransformer  1 1 2 2 1   (the same)\n\n"
        "input        l o l\ninterpreter  2 1 2\ntransformer  2 1 2   (the same)\n"
    )
    assert "transformer" not in says(capsys, ["rasp", "run", hist, "--input", "hello", "--no-compiled"])


def test_run_says_plainly_where_they_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tracr forgets that a mean can be 2/3."""
    words = ["rasp", "run", written(tmp_path, SHARE), "--input", "0 1 1", "--mode"]
    assert "(the same)" in says(capsys, [*words, "fixed"])
    shown = says(capsys, [*words, "tracr_compat"])
    assert "interpreter  True True True\ntransformer  False False False   (THEY DIFFER)" in shown
    (answer,) = json.loads(says(capsys, [*words, "tracr_compat", "--json"]))
    assert answer["interpreter"] == [True] * 3 and answer["transformer"] == [False] * 3
    assert answer["equal"] is False and answer["input"] == [0, 1, 1]


def test_run_works_without_a_transformer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "vocab = [1, 2]\nmax_seq_len = 3\na: numerical = Map(x, tokens)\nb: numerical = Map(x, indices)\n"
    file = written(tmp_path, text + "c = SequenceMap(x + y, a, b)")
    shown = says(capsys, ["rasp", "run", file, "--input", "12"])
    assert "interpreter  1 3\n" in shown and "no transformer: it cannot be compiled: c: " in shown
    (answer,) = json.loads(says(capsys, ["rasp", "run", file, "--input", "12", "--json"]))
    assert answer["transformer"] is None and "numerical" in answer["obstacle"]
    bare = written(tmp_path, "v1 = Map(x + 1, tokens)")
    assert "interpreter  8 10" in says(capsys, ["rasp", "run", bare, "--input", "7 9", "--no-compiled"])


def test_vocabulary_and_length_are_taken_from_the_options(hist: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--vocab", "10,2.5", "--max-seq-len", "9"]
    shown = says(capsys, ["rasp", "run", hist, "--input", "10 2.5 2.5 10.0 10 10 10", *options])
    assert "interpreter  5 2 2 5 5 5 5" in shown


# -- compile ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fixed", "tracr_compat"])
def test_compile_writes_a_transformer_that_can_be_loaded(
    mode: str, hist: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "models" / "hist.safetensors"
    shown = says(capsys, ["rasp", "compile", hist, "--out", str(out), "--mode", mode])
    assert str(out) in shown and "1 layer" in shown and f"({mode})" in shown
    transformer = load_compiled(out)
    assert transformer.mode == mode
    assert transformer.run([list("hello")]) == [[1, 1, 2, 2, 1]]
    sizes = json.loads(says(capsys, ["rasp", "compile", hist, "--out", str(out), "--mode", mode, "--json"]))
    assert sizes["parameters"] == len(transformer) and sizes["num_layers"] == 1


# -- check ------------------------------------------------------------------------------------------------------------


def test_check_compares_on_every_input(hist: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "agrees with the interpreter on all 1,364 inputs" in says(capsys, ["rasp", "check", hist])
    found = json.loads(says(capsys, ["rasp", "check", hist, "--json"]))
    assert found["reasons"] == []
    assert found["agreement"] == {
        "inputs": 1364, "tried": 1364, "undefined": 0, "differing": 0, "counterexample": None, "obstacle": None,
        "complete": True,
    }  # fmt: skip


def test_check_says_when_it_draws_a_sample(hist: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["rasp", "check", hist, "--max-seq-len", "12", "--seed", "3"]
    assert "a sample of 20,000 of the 2.237e+07 inputs (lengths equally likely, seed 3)" in says(capsys, words)


def test_check_gives_every_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = says(capsys, ["rasp", "check", written(tmp_path, WRONG)], code=1)
    assert len(shown.splitlines()) == 4
    assert "v1: division by zero" in shown and "v2: its second input is numerical" in shown
    found = json.loads(says(capsys, ["rasp", "check", written(tmp_path, WRONG), "--json"], code=1))
    assert [reason["variable"] for reason in found["reasons"]] == ["v1", "v2", "v2"]


def test_check_gives_the_shortest_counterexample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["rasp", "check", written(tmp_path, SHARE), "--mode", "tracr_compat"]
    shown = says(capsys, words, code=1)
    # those with two ones among three tokens
    assert "differs from the interpreter on 3 of all 30 inputs" in shown
    assert shown.endswith("  input        0 1 1\n  interpreter  True True True\n  transformer  False False False\n")
    counterexample = json.loads(says(capsys, [*words, "--json"], code=1))["agreement"]["counterexample"]
    assert counterexample["input"] == [0, 1, 1]
    assert "agrees" in says(capsys, ["rasp", "check", written(tmp_path, SHARE)])


def test_agreement_counts_inputs_on_which_the_program_has_no_answer() -> None:
    """The mean of two different strings is none; that of one is itself."""
    program = Program.parse(MEANINGLESS).meant_for(("a", "b"), 3)
    found = agreement(program, compile_program(program))
    assert (found.inputs, found.undefined, found.differing) == (14, 2 + 6, 0)
    assert found.obstacle is not None and "mean of 'a', 'b'" in found.obstacle
    numbers = Program.parse(MEANINGLESS)
    found = agreement(numbers, compile_program(numbers))
    assert found.differing > 0 and found.counterexample is not None
    tokens, expected = found.counterexample.input, found.counterexample.expected
    assert len(tokens) == 2 and tuple(evaluate(numbers, tokens)) == expected


def test_numbers_agree_within_single_precision_and_values_exactly() -> None:
    assert agrees([1 / 3, None, "a", True], [0.33333334, None, "a", 1])
    assert agrees([1e6 / 3], [333333.34])
    assert not agrees([1 / 3], [0.335])
    assert not agrees([0.0], [None])
    assert not agrees([1], ["1"])
    assert not agrees([1, 2], [1])


# -- sample -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distribution", ["typed", "paper"])
def test_sample_prints_programs_that_parse_and_the_same_for_the_same_seed(
    distribution: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["rasp", "sample", "--distribution", distribution, "--count", "3", "--seed", "5"]
    text = says(capsys, words)
    parts = text.split("\n\n")
    assert [part.splitlines()[0] for part in parts] == ["# program 0", "# program 1", "# program 2"]
    drawn = list(islice(sample("paper" if distribution == "paper" else "typed", 5), 3))
    assert [str(Program.parse(part)) for part in parts] == [str(program) for program in drawn]
    assert says(capsys, words) == text
    records = json.loads(says(capsys, [*words, "--json"]))
    assert [record["id"] for record in records] == [f"{distribution}-5-{i}" for i in range(3)]
    assert [str(Program.from_record(record)) for record in records] == [str(program) for program in drawn]


def test_sample_gives_the_lengths_that_are_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    text = says(capsys, ["rasp", "sample", "--count", "5", "--lengths", "2", "--distribution", "typed"])
    for part in text.split("\n\n"):
        assert len(Program.parse(part)) <= 2  # an input and an S-op, and its selector


def test_sample_has_statistics_beside_what_is_published(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["rasp", "sample", "--statistics", "--count", "60", "--distribution", "paper"]
    table = says(capsys, words)
    assert "fewer than 50,000, on average 3,000" in table and "4 (30.8%)" in table
    figures = json.loads(says(capsys, [*words, "--json"]))
    assert figures["draws"] == 60 + sum(figures["rejected"].values())
    assert figures["compiled"] == 60 - sum(figures["not_compiled"].values()) == figures["parameters"]["count"]


@pytest.mark.parametrize("distribution", ["typed", "paper"])
def test_statistics_are_those_of_the_programs(distribution: str) -> None:
    name = "paper" if distribution == "paper" else "typed"
    figures = statistics(name, 40, 1)
    programs = list(islice(sample(name, 1), 40))
    assert figures["length"]["mean"] == pytest.approx(sum(map(len, programs)) / 40)
    for shares in ("operations", "predicates", "map_functions", "sequence_map_functions"):
        assert sum(figures[shares].values()) == pytest.approx(1)
    calls = [type(node).__name__ for program in programs for _, node in program.statements]
    assert figures["operations"]["Map"] == pytest.approx(calls.count("Map") / len(calls))
    assert figures["parameters_kept"]["max"] <= PUBLISHED[name]["most_parameters"]
    if name == "paper":
        assert all("c" in function for function in figures["map_functions"])  # constants are not told apart
    else:
        assert 4 <= figures["s_ops"]["median"] <= figures["s_ops"]["max"] <= 8
    table = format_statistics(figures)
    assert all(operation in table for operation in PUBLISHED[name]["weights"])


# -- programs, vocabularies and inputs as a person gives them ---------------------------------------------------------


def test_a_program_comes_from_standard_input_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in (HIST, json.dumps(Program.parse(HIST).to_record())):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        assert "interpreter  1 1 2 2 1" in says(capsys, ["rasp", "run", "-", "--input", "hello"])


def test_verbs_can_be_piped_into_each_other() -> None:
    shell = f"{COMMAND} rasp sample --count 1 --seed 3 | {COMMAND} rasp check -"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert "agrees with the interpreter on all 3,905 inputs" in done.stdout and done.stderr == ""


def test_of_several_records_one_is_chosen_by_its_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, says(capsys, ["rasp", "sample", "--count", "12", "--json"]), "records.json")
    third = [*islice(sample("typed", 0), 3)][-1]
    assert says(capsys, ["rasp", "show", file, "--id", "typed-0-2"]).startswith(str(third))
    fails(capsys, ["rasp", "show", file], "holds 12 records", "--id", "typed-0-0, typed-0-1", "...")
    fails(capsys, ["rasp", "show", file, "--id", "x"], "no record has the id 'x'", "typed-0-0")
    one = written(tmp_path, json.dumps([third.to_record()]), "one.json")
    assert says(capsys, ["rasp", "show", one]).startswith(str(third))
    fails(capsys, ["rasp", "show", written(tmp_path, "[]")], "empty list")
    fails(capsys, ["rasp", "show", written(tmp_path, HIST), "--id", "x"], "no records")


@pytest.mark.parametrize(
    ("text", "vocabulary"),
    [
        ("b,a", ("a", "b")),
        ("2, 0,1", (0, 1, 2)),
        ("0.5,1", (0.5, 1)),
        ("1,a", ("1", "a")),
        ("'1','2'", ("1", "2")),
        ("\"a b\",'c,d'", ("a b", "c,d")),
        ("[0, 2, 1]", (0, 1, 2)),
        ("['b', 'a']", ("a", "b")),
    ],
)
def test_vocabularies_are_numbers_where_all_are_else_strings(text: str, vocabulary: tuple[object, ...]) -> None:
    found = read_vocabulary(text)
    assert found == vocabulary
    assert [type(token) for token in found] == [type(token) for token in vocabulary]


@pytest.mark.parametrize("text", ["", " , ", "a,a", "[0, 0]", "[open('x')]", "[", "nan,1", "compiler_bos"])
def test_what_is_no_vocabulary_is_refused(text: str) -> None:
    with pytest.raises(RaspError):
        read_vocabulary(text)


@pytest.mark.parametrize(
    ("text", "vocab", "tokens"),
    [
        ("h e l l o", ("e", "h", "l", "o"), list("hello")),
        ("h,e, l", ("e", "h", "l"), list("hel")),
        ("hello", ("e", "h", "l", "o"), list("hello")),
        ("102", (0, 1, 2), [1, 0, 2]),
        ("10", (1, 10), [10]),
        ("t1 t0", ("t0", "t1"), ["t1", "t0"]),
        ("1.0 2", (1, 2), [1, 2]),
        ("'a b' c", ("a b", "c"), ["a b", "c"]),
        ("ab", ("ab", "cd"), ["ab"]),
        ("1 2.5", None, [1, 2.5]),
        ("1 x", None, ["1", "x"]),
    ],
)
def test_inputs_are_words_or_one_word_of_single_characters(
    text: str, vocab: tuple[Value, ...] | None, tokens: list[Value]
) -> None:
    assert read_input(text, vocab) == tokens


def test_values_are_written_as_they_are_read() -> None:
    assert token_text([1, 0.5, -0.0, "a", "a b", "", None, True, 1 / 3]) == "1 0.5 0 a 'a b' '' - True 0.3333"
    assert read_input(token_text(["a b", "c,d"]), ("a b", "c,d")) == ["a b", "c,d"]


# -- bad input --------------------------------------------------------------------------------------------------------


def test_what_is_no_verb_of_rasp_is_answered_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, ["rasp"], f"needs one of {', '.join(GROUPS['rasp'])}, not nothing")
    fails(capsys, ["rasp", "nonsense"], f"{', '.join(GROUPS['rasp'])}, not nonsense")
    assert "rasp sample" in says(capsys, ["rasp", "--help"])


@pytest.mark.parametrize("verb", ["show", "run", "compile", "check"])
def test_a_file_that_holds_no_program_is_one_sentence(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"run": ["--input", "a"], "compile": ["--out", str(tmp_path / "x.safetensors")]}.get(verb, [])

    def refused(text: str | bytes, *parts: str) -> None:
        (tmp_path / "file").write_bytes(text.encode() if isinstance(text, str) else text)
        fails(capsys, ["rasp", verb, str(tmp_path / "file"), *more], str(tmp_path / "file"), *parts)

    refused("", "line 1, column 1", "no program")
    refused("v1 = Map(x +, tokens)", "line 1, column ")
    refused("v1 = Mop(x, tokens)", "unknown operation 'Mop'")
    refused(b"\xff\xfe\x00", "not text in UTF-8")
    refused('{"ops": [', "cannot be read")
    refused("[" * 100_000, "cannot be read")
    refused('{"ops": 3}', "record")
    refused("[1, 2]", "2 records", "none has an id")
    fails(capsys, ["rasp", verb, str(tmp_path), *more], "is a directory")
    fails(capsys, ["rasp", verb, str(tmp_path / "none"), *more], "none: no such file")
    assert not (tmp_path / "x.safetensors").exists()


def test_an_input_that_does_not_suit_is_one_sentence(hist: str, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("run", "show"):
        fails(capsys, ["rasp", verb, hist, "--input", "help"], "the token 'p' is unknown", "'e', 'h', 'l', 'o'")
        fails(capsys, ["rasp", verb, hist, "--input", "h e l l o o"], "6 tokens is too long")
        fails(capsys, ["rasp", verb, hist, "--input", ""], "is empty")
    fails(capsys, ["rasp", "run", hist], "--input")
    fails(capsys, ["rasp", "run", hist, "--input", "h", "e"], "e")


def test_a_wrong_option_of_rasp_is_one_sentence(hist: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, ["rasp", "show", hist, "--out", str(tmp_path / "x.pdf")], ".png or .svg")
    assert [path.name for path in tmp_path.iterdir()] == ["program.rasp"]
    fails(capsys, ["rasp", "show", hist, "--vocab", "a,a"], "'a' twice")
    fails(capsys, ["rasp", "check", hist, "--max-seq-len", "0"], "1 to 1,000, not 0")
    fails(capsys, ["rasp", "check", hist, "--mode", "tracr"], "'tracr'", "tracr_compat")
    fails(capsys, ["rasp", "compile", hist], "--out")
    fails(capsys, ["rasp", "sample", "--distribution", "x"], "'x'", "typed", "paper")
    fails(capsys, ["rasp", "sample", "--count", "0"], "at least 1")
    fails(capsys, ["rasp", "sample", "--lengths", "99"], "2 to 20, not 99")
    fails(capsys, ["rasp", "sample", "--lengths", "1", "--distribution", "paper", "--statistics"], "3 to 15, not 1")
    bare = written(tmp_path, "v1 = Map(x + 1, tokens)")
    for words in (["check", bare], ["run", bare, "--input", "1"], ["compile", bare, "--out", str(tmp_path / "x")]):
        fails(capsys, ["rasp", *words], "give --vocab a,b,c and --max-seq-len N")
    fails(capsys, ["rasp", "check", bare, "--vocab", "0,1"], "give --max-seq-len N")
    lengthless = ["rasp", "run", bare, "--input", "1", "--no-compiled", "--max-seq-len", "0"]
    fails(capsys, lengthless, "1 to 1,000, not 0")


def test_what_cannot_be_compiled_or_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, WRONG)
    out = tmp_path / "x.safetensors"
    fails(capsys, ["rasp", "compile", file, "--out", str(out)], "v1: division by zero", "v2: its first input")
    assert not out.exists()
    fails(capsys, ["rasp", "run", file, "--input", "a b"], "v1: division by zero")
    (tmp_path / "taken").write_text("")
    hist = written(tmp_path, HIST)
    fails(capsys, ["rasp", "compile", hist, "--out", str(tmp_path / "taken" / "x")], "taken")


def test_a_closed_standard_input_is_one_sentence() -> None:
    done = subprocess.run(["bash", "-c", f"{COMMAND} rasp show - <&-"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "standard input" in done.stderr


def test_verbs_of_rasp_load_no_torch(hist: str) -> None:
    code = (
        "import sys; from weightspace.cli import main; "
        f"main(['rasp', 'show', {hist!r}, '--input', 'hello']); main(['rasp', 'sample', '--count', '1']); "
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
