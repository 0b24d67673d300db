"""The help of every verb, what starting it loads, and the words around it: near names, files of options, shells."""

from __future__ import annotations

import inspect
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from weightspace.cli.arguments import EVERYWHERE, OPERANDS, Argument, arguments, described
from weightspace.cli.completion import script
from weightspace.cli.dispatch import GROUPS, VERBS, _parse, main
from weightspace.cli.help import STATUSES
from weightspace.cli.output import say_tables
from weightspace.cli.words import filled, read, required
from weightspace.evaluation.tables import markdown_table, records
from weightspace.files.progress import QUIET, VERBOSE, _bar, loudness, progress, stage

ROOT = Path(__file__).parent.parent.parent
SILENT = {"completion"}
"""Verbs whose output is for a program already."""


def fails(capsys: pytest.CaptureFixture[str], words: list[str], *parts: str) -> None:
    """It must fail with exit status 2 and one sentence."""
    capsys.readouterr()
    assert main(words) == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith("weightspace: ") and sentence.count("\n") == 1
    assert not re.search(r"[╭╰│]|Traceback", sentence)
    for part in parts:
        assert part in sentence


@pytest.mark.parametrize("name", VERBS)
def test_the_help_of_a_verb_names_operands_shows_two_examples_and_every_option(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb = VERBS[name][0]
    assert main([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    known = arguments(verb)
    assert "{None}" not in shown and not re.search(r"\b(PATH|TEXT|STR|INT)\b", shown.splitlines()[0].split(" --")[0])
    for argument in known:
        assert argument.help, f"{name}: nothing is said of {argument.name}"
        assert argument.value in shown if argument.operand else argument.name in shown
    assert len(described(verb).examples) >= 2, f"{name} has no two examples"
    assert all(f"  {example}" in shown for example in described(verb).examples)
    assert name in SILENT or "--json" in shown, f"{name} reports, and has no --json"
    for everywhere in ("--config", "-v, --verbose", "-q, --quiet", "-h, --help"):
        assert everywhere in shown


@pytest.mark.parametrize("name", VERBS)
def test_the_examples_of_a_verb_can_be_typed(name: str) -> None:
    for example in described(VERBS[name][0]).examples:
        words = shlex.split(re.sub(r"^source <\((.*)\)$|( >.*)$", r"\1", example))
        assert words[: 1 + len(name.split())] == ["weightspace", *name.split()], example
        _parse(VERBS[name][0], f"weightspace {name}", words[1 + len(name.split()) :])


def test_a_parameter_that_the_docstring_does_not_explain_has_no_help() -> None:
    def verb(zoo: str = "x") -> int:
        """Does nothing."""
        return len(zoo)

    assert [argument.help for argument in arguments(verb)] == [""] and described(verb).examples == ()


@pytest.mark.parametrize("group", GROUPS)
def test_the_help_of_a_group_is_the_group(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([group, "--help"]) == 0
    shown = capsys.readouterr().out
    verbs = re.findall(rf"^  ({group} [a-z-]+)  ", shown, re.MULTILINE)
    assert verbs == [f"{group} {second}" for second in GROUPS[group]]


def test_the_exit_statuses_are_one_table_in_help_and_document(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    shown = capsys.readouterr().out
    page = (ROOT / "docs" / "command-line.md").read_text()
    assert dict(re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE)) == {str(k): v for k, v in STATUSES.items()}
    for status, text in STATUSES.items():
        assert f"{status:>3}  {text}" in shown


@pytest.mark.parametrize("words", ["--help", "zoo --help", "train --help", "scan --help", "zoo mak", "completion bash"])
def test_help_loads_nothing_heavy(words: str) -> None:
    """Instead of a clock: 0.1 s of CPU is what Python and these files take, and a library is what would be added."""
    heavy = ["torch", "numpy", "scipy", "sklearn", "pandas", "pyarrow", "matplotlib", "lightgbm", "rich", "jinja2"]
    code = f"import sys; from weightspace.cli import main; main({words.split()!r}); "
    code += f"sys.exit(', '.join(sorted(set({heavy!r}) & set(sys.modules))) or None)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_wrong_verb_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, ["decompil"], "did you mean 'decompile'?")
    fails(capsys, ["zoo", "mkae", "digits-small"], "one of make, info", "did you mean 'make'?")
    fails(capsys, ["make", "digits-small"], "did you mean 'zoo make'?")
    fails(capsys, ["zoomake"], "did you mean 'zoo make'?")
    fails(capsys, ["qqqq"], "no verb 'qqqq': see weightspace --help")
    fails(capsys, ["hyperparameters", "compare", "zoo"], "is called weightspace compare --methods all now")


def test_a_wrong_word_is_one_line_that_names_what_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, ["zoo", "make", "digits-small", "--epoch", "3"], "no option --epoch: did you mean '--epochs'?")
    fails(capsys, ["scan", "x", "--fail-on", "suspicous"], "did you mean 'suspicious'?")
    fails(capsys, ["rasp", "sample", "--distribution", "foo"], "takes one of typed, paper, not 'foo'")
    fails(capsys, ["train", "zoo", "--out", "run", "--betas", "1"], "--betas needs 2 values")
    fails(capsys, ["decompile", "a", "--vocab"], "--vocab needs a text")
    fails(capsys, ["decompile", "a", "b"], "decompile takes FILE, and 'b' is one too many")
    fails(capsys, ["rasp", "show"], "rasp show needs FILE (program text")
    fails(capsys, ["train", "zoo"], "train needs --out PATH (folder for the meta-model")
    fails(capsys, ["zoo", "info", "zoo", "--json=yes"], "--json takes no value")
    fails(capsys, ["zoo", "make", "x", "-c", "3"], "no option -c")


def given(words: str, verb: str) -> dict[str, object]:
    return _parse(VERBS[verb][0], f"weightspace {verb}", shlex.split(words))[0]


def test_words_become_values_of_the_right_kind() -> None:
    found = given("digits-small --workers -3 --cpus=.5 --lengths 3 4 --data images --json --out s3://a/b", "zoo make")
    assert (found["workers"], found["cpus"], found["lengths"]) == (-3, 0.5, (3, 4))
    assert (found["data"], found["json"], found["out"], found["recipe"]) == (
        Path("images"), True, "s3://a/b", "digits-small",
    )  # fmt: skip
    assert found["count"] is None and found["engine"] == "process"
    found = given("- --input 'a b' --input c --no-compiled", "rasp run")
    assert (found["inputs"], found["compiled"], found["file"]) == (("a b", "c"), False, Path("-"))
    found = given("zoo --out run --clip-norm none --no-permute --betas 0.5 0.6 --learning_rate 1e-4", "train")
    config = found["config"]
    assert (config.training.clip_norm, config.permute, config.training.betas) == (None, False, (0.5, 0.6))  # pyright: ignore
    assert config.training.learning_rate == 1e-4  # pyright: ignore
    assert given("--fpr 0.1 -- --odd.pt b.pt", "scan")["targets"] == ("--odd.pt", "b.pt")
    assert given("a.pt --fpr 0.1 b.pt", "scan")["targets"] == ("a.pt", "b.pt")


def test_fields_that_are_only_allowed_together_are_changed_together() -> None:
    config = given("zoo --out run --bins 8 --scale ranks --summary", "train")["config"]
    assert (config.bins, config.scale, config.summary) == (8, "ranks", True)  # pyright: ignore


def test_an_operand_behind_a_list_of_operands_gets_the_last_word() -> None:
    known = [
        Argument(("sources",), "SOURCE", str, count=None, operand=True),
        Argument(("to",), "PLACE", str, operand=True),
    ]
    values = read(["a", "b", "c"], known, "copy")
    assert filled(values, known, {}) == {"sources": ("a", "b"), "to": "c"}
    with pytest.raises(ValueError, match="needs PLACE"):
        required({known[0]: ("a",)}, known, "copy")


def test_a_file_of_options_gives_what_the_line_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('width = 128\nlearning-rate = 1e-4\ntargets = ["optimiser"]\njson = true\nrecipe = "paper"\n')
    words = f"zoo --out run --config {file} --width 64"
    found = given(words, "train")
    config = found["config"]
    assert (config.width, config.training.learning_rate, config.depth) == (64, 1e-4, 6)  # pyright: ignore
    assert (found["targets"], found["json"]) == (("optimiser",), True)
    for text, part in (
        ("widht = 3", "'widht', which is no option of weightspace train: did you mean 'width'?"),
        ("width = 'x'", "takes a whole number, not 'x'"),
        ("json = 3", "takes true or false, not 3"),
        ("betas = [1.0]", "takes 2 values, not 1"),
        ("width = {a = 1}", "takes a whole number"),
        ("width = ", "is no TOML"),
    ):
        file.write_text(text)
        fails(capsys, ["train", "zoo", "--out", "run", "--config", str(file)], part)
    fails(capsys, ["train", "zoo", "--out", "run", "--config", str(tmp_path / "none.toml")], "none.toml: no such file")


def shown_by(level: int, monkeypatch: pytest.MonkeyPatch) -> str:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with loudness(level), progress("counting", 2, "things") as advance:
        advance(1)
        advance(1)
    return stream.getvalue()


def test_quiet_shows_no_progress_and_verbose_shows_that_of_short_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weightspace.files.progress.PATIENCE", 0.0)
    assert "2/2 things" in shown_by(1, monkeypatch)
    assert shown_by(QUIET, monkeypatch) == ""
    monkeypatch.setattr("weightspace.files.progress.PATIENCE", 60.0)
    assert shown_by(1, monkeypatch) == ""
    assert "2/2 things" in shown_by(VERBOSE, monkeypatch)


def test_verbose_says_how_long_it_took_and_where_it_failed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rasp", "check", str(ROOT / "examples" / "hist.rasp"), "-v"]) == 0
    assert re.search(r"weightspace rasp check took \d+\.\d s, exit status 0", capsys.readouterr().err)
    assert main(["zoo", "info", "nowhere", "-v"]) == 2
    said = capsys.readouterr().err
    assert "store.py" in said and said.splitlines()[-1].startswith("weightspace: nowhere")


def test_no_color_takes_the_colours_out_of_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn() -> str:
        stream = io.StringIO()
        bar = _bar("training", 2, stream)
        bar.start()
        bar.update(0, completed=1, text="half")
        bar.stop()
        return stream.getvalue()

    colour = re.compile(r"\x1b\[(?:\d+;)*(?:3\d|38;[\d;]+)m")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert colour.search(drawn()), "without NO_COLOR it has some"
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour.search(drawn())


def completed(line: str) -> list[str]:
    """What bash offers behind a line whose last word is being typed."""
    words = line.split(" ")
    code = f"{script('bash', VERBS)}\nCOMP_WORDS=({' '.join(f'{w!r}' for w in words)}); COMP_CWORD={len(words) - 1}\n"
    code += '_weightspace; printf "%s\\n" "${COMPREPLY[@]}"'
    run = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


def test_bash_completes_verbs_groups_options_and_choices() -> None:
    assert completed("weightspace zo") == ["zoo"]
    assert completed("weightspace zoo ") == GROUPS["zoo"]
    assert completed("weightspace zoo m") == ["make"]
    assert completed("weightspace decomp") == ["decompile", "decompiler"]
    assert completed("weightspace zoo make digits-small --eng") == ["--engine"]
    assert completed("weightspace rasp sample --distribution ") == ["typed", "paper"]
    assert completed("weightspace scan ") == [], "files"
    assert {f"--{one.name}" for one in EVERYWHERE} <= set(completed("weightspace env --"))


def test_zsh_reads_the_script_of_bash_and_fish_gets_one_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    zsh = capsys.readouterr().out
    assert zsh.startswith("#compdef weightspace\nautoload -U +X bashcompinit && bashcompinit\n")
    assert zsh.rstrip().endswith("complete -o default -F _weightspace weightspace")
    assert main(["completion", "fish"]) == 0
    fish = capsys.readouterr().out
    assert "-n '__fish_seen_subcommand_from rasp; and __fish_seen_subcommand_from sample' -l distribution" in fish
    for line in fish.splitlines()[1:]:
        assert line.startswith("complete -c weightspace ") and len(shlex.split(line.replace("\\'", "'\\''"))) > 4
    fails(capsys, ["completion", "powershell"], "SHELL takes one of bash, zsh, fish")


def test_env_says_versions_and_no_path_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WEIGHTSPACE_DATA", "/secret/place")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert main(["env"]) == 0
    shown = capsys.readouterr().out
    import torch

    assert torch.__version__ in shown and "WEIGHTSPACE_DATA" in shown
    assert "secret" not in shown and str(Path.home()) not in shown


def test_tables_are_printed_or_given_as_rows(capsys: pytest.CaptureFixture[str]) -> None:
    table = markdown_table(["method", "a"], [["one", "**0.5** "], ["t\\|wo", None]])
    assert records(table) == [{"method": "one", "a": "0.5"}, {"method": "t\\|wo", "a": ""}]
    assert records("0.12") == [{"value": "0.12"}]
    say_tables({"title": table}, json=False)
    assert capsys.readouterr().out == f"title\n\n{table}\n"
    say_tables({"title": table}, json=True)
    assert '"method": "one"' in capsys.readouterr().out


def test_the_options_of_a_study_need_the_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, ["compare", str(tmp_path), "--seeds", "3"], "need --methods, such as all")
    fails(capsys, ["compare", str(tmp_path), "--methods", "all", "--width", "32"], "leave out the options of config")


def test_every_verb_that_draws_has_a_seed() -> None:
    for name in ("zoo make", "zoo import", "train", "compare", "evaluate", "decompile", "decompiler evaluate"):
        assert "seed" in {argument.name for argument in arguments(VERBS[name][0])}, name
    for name in ("decompiler ladder", "decompiler ceiling", "rasp sample", "rasp check"):
        assert "seed" in {argument.name for argument in arguments(VERBS[name][0])}, name


def test_an_operand_of_another_name_is_one_of_some_verb() -> None:
    used = {name for verb, _ in VERBS.values() for name in inspect.signature(verb).parameters}
    assert set(OPERANDS) <= used


def test_help_is_read_where_nothing_is_known_of_the_terminal() -> None:
    words = [sys.executable, "-m", "weightspace", "zoo", "make", "--help"]
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "TERM", "LANG")}
    run = subprocess.run(words, capture_output=True, env=environment, check=True)
    assert run.stdout.isascii() and max(map(len, run.stdout.splitlines())) <= 120


class Clock:
    """A clock that tests set."""

    now = 0.0


def left(monkeypatch: pytest.MonkeyPatch, steps: list[tuple[float, int]], **options: float) -> list[str]:
    """The time left that is shown after each step: seconds on the clock, and units done."""
    clock, stream = Clock(), io.StringIO()
    monkeypatch.setattr("weightspace.files.progress.monotonic", lambda: clock.now)
    monkeypatch.setattr("sys.stderr", stream)
    with loudness(VERBOSE), progress("counting", 100, "things", **options) as advance:  # pyright: ignore
        for now, count in steps:
            clock.now = now
            advance(count)
    return re.findall(r", ([^,]+) left", stream.getvalue())


def test_workers_that_start_slowly_do_not_make_the_estimate_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was "about 2 min" beside "1 h left": the first network came after the start of every worker."""
    assert left(monkeypatch, [(40, 1), (51, 10)]) == ["1 h 06 min", "6 min 53 s"]
    with_estimate = left(monkeypatch, [(40, 1), (51, 10)], expected=100.0)
    assert with_estimate == ["1 min 39 s", "1 min 33 s"], "what is measured is a second each, as expected"
    assert left(monkeypatch, [(20, 0), (40, 1)], expected=100.0) == ["1 min 40 s", "1 min 39 s"], "nothing is done yet"
    slower = left(monkeypatch, [(40, 1), (80, 20), (120, 20), (220, 50)], expected=100.0)
    assert slower == ["1 min 39 s", "2 min 12 s", "1 min 46 s", "17 s"], "two seconds each: it moves there"


def test_stages_share_one_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = Clock(), io.StringIO()
    monkeypatch.setattr("weightspace.files.progress.monotonic", lambda: clock.now)
    monkeypatch.setattr("sys.stderr", stream)
    with loudness(VERBOSE), stage("stage 1 of 2 (first)", 100.0, 50.0), progress("counting", 10) as advance:
        clock.now = 10.0
        advance(5)
        clock.now = 90.0
        advance(4)
    shown = stream.getvalue().splitlines()
    assert shown[0].startswith("stage 1 of 2 (first), counting: 5/10 steps") and shown[0].endswith("2 min 20 s left")
    assert shown[1].endswith("1 min 00 s left"), "10 s of this stage, which has 10 s of its own left, and 50 s behind"
