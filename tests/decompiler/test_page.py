"""The page of a decompilation: complete, self-contained, true to what was found, and safe with any text."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weightspace.decompiler import drawing
from weightspace.decompiler.decompile import decompile
from weightspace.decompiler.distortion import rotated as turned
from weightspace.decompiler.drawing import drawn
from weightspace.decompiler.page import _spans, render_decompilation, write_decompilation
from weightspace.decompiler.proof.ownership import shares
from weightspace.decompiler.proof.verify import behaviour, certify, distance, permuted
from weightspace.decompiler.result import Decompilation, summary
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.language import Aggregate, Map, Select, SelectorWidth, SequenceMap, indices, tokens
from weightspace.rasp.program import Program

VOID = {"meta", "br", "img", "i-void", "path", "use", "rect"}


class Elements(HTMLParser):
    """What stands in a page, and whether every element that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img", "input"):
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def program() -> Program:
    same = Select(tokens, tokens, "EQ")
    often = SelectorWidth(same)
    before = Aggregate(
        Select(indices, indices, "LT"), Map("x == 1", tokens, encoding="numerical"), encoding="numerical"
    )
    late = Map("x > 0.2", before)
    return Program.of(SequenceMap("x + y", often, late), vocab=range(3), max_seq_len=3)


def found_in(bare: BareTransformer, guess: Program) -> Decompilation:
    certificate = certify(guess, bare)
    compared = behaviour(guess, bare, certificate=certificate)
    assert compared is not None
    status = "certified" if certificate else "behaviour_equal" if compared.equal else "best_guess"
    far = None if certificate else distance(guess, bare)
    return Decompilation(status, guess, "search", certificate, compared, far, 1.25, 77, ("v1: <3> candidates",), 1)


@pytest.fixture(scope="module")
def bare() -> BareTransformer:
    return permuted(BareTransformer.of(compile_program(program())), 3)


@pytest.fixture(scope="module")
def page(bare: BareTransformer) -> str:
    return render_decompilation(found_in(bare, program()), bare, name="model <7>.npz")


def test_every_variable_has_its_own_directions_heads_and_units() -> None:
    meant = program()
    candidate = compile_program(meant)
    found = {share.variable: share for share in shares(meant, candidate)}
    assert [*found] == ["tokens", "indices", "one", *(name for name, _ in meant.statements)]
    every = sorted(direction for share in found.values() for direction in share.directions)
    assert every == list(range(candidate.layout.width))  # each direction has one owner
    kinds = {name: type(node).__name__ for name, node in meant.statements}
    for name, kind in kinds.items():
        assert bool(found[name].heads) == (kind in ("Select", "SelectorWidth", "Aggregate")), name
        assert bool(found[name].units) == (kind in ("Map", "SequenceMap", "SelectorWidth")), name
    for layer in range(candidate.configuration.num_layers):
        units = [u for share in found.values() for k, own in share.units if k == layer for u in own]
        assert len(units) == len(set(units))


def test_through_a_certificate_the_places_are_those_of_the_given_weights(bare: BareTransformer) -> None:
    meant = program()
    candidate, certificate = compile_program(meant), certify(meant, bare)
    assert certificate is not None and bare.readout is not None
    last = meant.name(meant.output)
    found = {share.variable: share for share in shares(meant, candidate, certificate.columns)}
    assert set(found[last].directions) == set(bare.readout.directions.argmax(0))
    [(layer, units)] = found[last].units
    written = np.flatnonzero(bare.second[layer][list(units)].any(0))
    assert set(written) == set(found[last].directions)


def test_the_page_shows_program_proof_graph_places_and_stream(page: str) -> None:
    text = " ".join(" ".join(Elements(page).text).split())
    for wanted in (
        "model <7>.npz", "Certified", "SequenceMap(x + y", "Where each line stands", "residual stream", "Its graph",
        "Try an input", "The given weights run here",
        "parameters of the compiled program (fixed) were compared", "the same answer on all 39 inputs", "1.25 s",
        "One function is printed as a table", "v1: <3> candidates",
    ):  # fmt: skip
        assert wanted in text, wanted


def test_the_page_needs_nothing_else_and_runs_its_own_script_alone(page: str) -> None:
    found = Elements(page)
    assert not found.opened
    assert not {tag for tag, _ in found.tags} & {"link", "iframe", "object", "form"}
    for tag, attributes in found.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href"):
                assert value is not None and value.startswith(("#", "data:image/png;base64,"))
    data, script = (a for tag, a in found.tags if tag == "script")
    assert data == {"type": "application/json", "id": "data"} and script == {}
    text = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)[0]
    assert "eval(" not in text and "innerHTML" not in text and "http" not in text
    [rule] = (a["content"] for tag, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
    own = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert rule is not None and f"default-src 'none'; script-src 'sha256-{own}';" in rule
    assert not re.search(r"url\((?!#)", page)
    named = [attributes["id"] for _, attributes in found.tags if attributes.get("id")]
    assert len(named) == len(set(named))


def data_of(page: str) -> dict[str, Any]:
    """What the page's script reads."""
    text = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[0]
    return json.loads(text)


def test_the_weights_in_the_page_are_the_given_ones_each_with_its_owner(page: str, bare: BareTransformer) -> None:
    data = data_of(page)
    for name, array in bare.params.items():
        if name not in data["transformer"]["arrays"]:
            assert not array.any() and name.endswith("/b")
            continue
        stored = data["transformer"]["arrays"][name]
        values = np.frombuffer(base64.b64decode(stored["values"]), "<f4")
        if "places" in stored:
            whole = np.zeros(array.size, np.float32)
            whole[np.frombuffer(base64.b64decode(stored["places"]), "<u4")] = values
            values = whole
        assert stored["shape"] == [*array.shape] and np.array_equal(values.reshape(array.shape), array)
    owned = sorted(direction for line in data["lines"] for direction in line["directions"])
    assert owned == list(range(bare.width)) and len(data["directions"]) == bare.width
    assert bare.readout is not None and data["answer"]["read"] == [int(i) for i in bare.readout.directions.argmax(0)]


def test_where_the_stream_is_turned_the_programs_own_weights_are_drawn_and_the_page_says_so() -> None:
    meant = program()
    rotated = turned(compile_program(meant), 0)
    found = decompile(rotated, budget=20.0)
    assert found.status == "certified" and found.certificate is not None and found.certificate.rewrite is not None
    shown = drawn(found, rotated)
    assert not shown.given and shown.weights is not rotated
    assert "with the stream turned" in render_decompilation(found, rotated, name="x")


def test_a_program_that_is_too_large_to_draw_is_text_and_the_page_says_so(
    bare: BareTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit, said in (
        ("MOST_ENTRIES", "parameters are too many to draw"),
        ("MOST_BYTES", "of the page, which holds"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(drawing, limit, 100)
            text = render_decompilation(found_in(bare, program()), bare, name="x")
        assert said in text and "Too large to draw" in text and "SequenceMap(x + y" in text
        assert "<script" not in text, text[text.index("<script") - 50 :][:200]
        assert "Where each line stands" in text and "script-src &#39;none&#39;" in text


def test_a_long_table_is_folded_and_can_be_opened() -> None:
    table = {letter: number * 7 % 13 for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    meant = Program.of(Map(table, tokens), vocab=tuple("abcdefghijklmnopqrstuvwxyz"), max_seq_len=2)
    bare = BareTransformer.of(compile_program(meant))
    text = " ".join(Elements(render_decompilation(found_in(bare, meant), bare, name="x")).text)
    assert " more}" in text and "The whole table" in text and "'z': 6" in text


def test_the_same_result_gives_the_same_page(page: str, bare: BareTransformer) -> None:
    assert render_decompilation(found_in(bare, program()), bare, name="model <7>.npz") == page


def test_a_best_guess_shows_the_counterexample_and_says_that_nothing_is_proved(bare: BareTransformer) -> None:
    guess = Program.of(Map("x + 1", SelectorWidth(Select(tokens, tokens, "EQ"))), vocab=range(3), max_seq_len=3)
    found = replace(found_in(bare, guess), notes=("the weights are noisy.",))
    text = " ".join(" ".join(Elements(render_decompilation(found, bare, name="x")).text).split())
    for wanted in ("Best guess", "What is known", "The shortest input on which they differ", "There is no certificate"):
        assert wanted in text, wanted
    assert "the weights are noisy." in text and "What is proved" not in text


def test_nothing_found_is_a_page_too(bare: BareTransformer, tmp_path: Path) -> None:
    write_decompilation(Decompilation("none", None, "", seconds=30.0), bare, tmp_path / "deep" / "page.html", name="x")
    text = (tmp_path / "deep" / "page.html").read_text()
    assert "No program was found" in text and "The program</h2>" not in text and not Elements(text).opened
    data = data_of(text)  # the weights are there to be looked at, without names
    assert data["lines"] == [] and set(data["directions"]) == {""} and data["answer"]["strict"] is True


def test_tokens_and_names_are_only_text() -> None:
    meant = Program.of(Map("x == '<b>&'", tokens), vocab=("<b>&", "</li></script><script>"), max_seq_len=2)
    bare = BareTransformer.of(compile_program(meant))
    text = render_decompilation(found_in(bare, meant), bare, name="<script>alert(1)</script>")
    assert "alert(1)" in text and "<script>alert" not in text and "</li><script>" not in text and "<b>" not in text
    assert [tag for tag, _ in Elements(text).tags].count("script") == 2
    tokens_of = {token["text"] for token in data_of(text)["transformer"]["tokens"]}
    assert tokens_of == {"<b>&", "</li></script><script>"}


def test_runs_of_numbers_are_shown_short() -> None:
    assert _spans([]) == ""
    assert _spans([4, 1, 2, 3, 9]) == "1\u20134, 9"
    assert _spans(range(0, 60, 2)).endswith("and 16 more")


def test_the_summary_says_status_program_and_cost(bare: BareTransformer) -> None:
    lines = summary(found_in(bare, program())).splitlines()
    assert lines[0] == "vocab = [0, 1, 2]" and lines[-1] == "found by search in 1.25 s, 77 operations checked"
    assert any(line.startswith("certified: ") for line in lines)
