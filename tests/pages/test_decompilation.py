"""The page of a decompilation in a browser: it lights up, computes, keeps its address, and everybody can use it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.pages import chromium
from weightspace.decompiler.page import write_decompilation
from weightspace.decompiler.proof.verify import behaviour, certify, distance, permuted
from weightspace.decompiler.result import Decompilation
from weightspace.experiments.comparison import DEMO_PROGRAM
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.interpreter import evaluate
from weightspace.rasp.program import Program

SHARE = """\
vocab = ['</script>', "it's", 'two words', '<b>']
max_seq_len = 4
first: numerical = Map(x == '<b>', tokens)
before = Select(PRED_LEQ, indices, indices)
share: numerical = Aggregate(before, first)
return share
"""


def written(text: str, path: Path, seed: int = 5, guess: str = "") -> Program:
    """The page of a program found in its own permuted weights, or of a guess that is another."""
    meant = Program.parse(text)
    bare = permuted(BareTransformer.of(compile_program(meant)), seed)
    program = Program.parse(guess or text)
    certificate = certify(program, bare)
    compared = behaviour(program, bare, certificate=certificate)
    far = None if certificate else distance(program, bare)
    found = Decompilation("best_guess" if guess else "certified", program, "lifter", certificate, compared, far, 0.5)
    assert (certificate is None) == bool(guess)
    write_decompilation(found, bare, path, name=path.name)
    return meant


@pytest.fixture(scope="session")
def sort_page(folder: Path) -> Path:
    written(DEMO_PROGRAM, folder / "sort.html")
    return folder / "sort.html"


@pytest.fixture(scope="session")
def share_page(folder: Path) -> Path:
    written(SHARE, folder / "share.html")
    return folder / "share.html"


@pytest.fixture
def window(windows: chromium.Windows) -> Any:
    """Opens a page whose script has started."""
    return partial(windows.open, ready="html.alive")


def answers(page: Any, line: str = "answer") -> list[str]:
    """What the table of values says of a line at each place."""
    row = page.locator("#values tr", has=page.locator("th", has_text=line)).first
    return row.locator("td:not(.from)").all_inner_texts()


def test_a_typed_input_gives_the_interpreters_answer(window: Any, sort_page: Path) -> None:
    page, program = window(sort_page), Program.parse(DEMO_PROGRAM)
    for typed in ("3 1 2", "52413", "5,5,1,1", "4"):
        page.fill("#input", typed)
        wanted = evaluate(program, [int(letter) for letter in typed if letter.isdigit()])
        assert answers(page) == [str(value) for value in wanted], typed
    page.fill("#input", "3 1 2")
    assert answers(page, "place") == ["2", "0", "1"]


def test_numbers_and_tokens_that_look_like_markup_are_computed_and_shown_as_they_are(
    window: Any, share_page: Path
) -> None:
    page = window(share_page)
    page.fill("#input", "<b> </script> 'two words' \"it's\"")
    assert [float(text) for text in answers(page)] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4], abs=1e-3)
    heads = page.locator("#values thead th").all_inner_texts()
    assert heads[2:] == ["<b>", "</script>", "'two words'", "it's"]
    assert page.locator("b").count() == 0


def test_an_unknown_token_or_too_many_are_told_in_a_sentence_and_the_last_answer_stays(
    window: Any, sort_page: Path
) -> None:
    page = window(sort_page)
    page.fill("#input", "2 1")
    for typed, said in (("2 9", "The token 9 is unknown"), ("1 1 1 1 1 1", "takes up to 5"), ("", "at least one")):
        page.fill("#input", typed)
        assert said in page.inner_text("#problem")
        assert answers(page) == ["1", "2"]


def test_a_line_lights_up_what_it_has_by_pointer_by_keyboard_and_by_touch(window: Any, sort_page: Path) -> None:
    page = window(sort_page)
    line = page.locator(".listing button[data-line=place]")
    dark = page.evaluate("grids.find((grid) => grid.near && grid.spec.columnsOf).over.toDataURL()")
    line.hover()
    assert "layer 1 head 0" in page.inner_text("#where-text") and "units" in page.inner_text("#where-text")
    assert page.evaluate("grids.find((grid) => grid.near && grid.spec.columnsOf).over.toDataURL()") != dark
    assert "lit" in page.locator("#values tr[data-line=place]").get_attribute("class")
    page.mouse.move(700, 5)
    assert "No line is chosen" in page.inner_text("#where-text")
    page.locator(".listing button[data-line=smaller]").focus()
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#where-text").startswith("place:")
    page.keyboard.press("Enter")
    assert line.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert line.get_attribute("aria-pressed") == "false"
    phone = window(sort_page, width=390)
    phone.locator(".listing button[data-line=place]").tap()
    assert phone.inner_text("#where-text").startswith("place:")
    phone.locator("#next").tap()
    assert phone.inner_text("#where-text").startswith("there:")


def test_a_number_of_a_matrix_is_told_with_its_place_and_the_line_that_has_it(window: Any, sort_page: Path) -> None:
    page = window(sort_page)
    grid = page.get_by_role("application", name="tokens of embeddings")
    grid.scroll_into_view_if_needed()
    grid.focus()
    page.keyboard.press("ArrowDown")
    told = page.inner_text("#cell")
    assert told.startswith("tokens, embeddings, token 1, direction 0 (")
    shown = page.evaluate("grids.find((g) => g.spec.label.startsWith('tokens of')).spec.at(0, 0)")
    assert float(told.rsplit(": ", 1)[1]) == shown


def test_the_address_keeps_line_and_input_and_a_sent_address_shows_the_same(window: Any, sort_page: Path) -> None:
    page = window(sort_page)
    page.fill("#input", "3 1 2")
    page.locator(".listing button[data-line=place]").click()
    fragment = page.evaluate("location.hash").removeprefix("#")
    other = window(sort_page, fragment=fragment, scheme="dark")
    assert other.input_value("#input") == "3 1 2" and answers(other) == ["1", "2", "3"]
    assert other.locator(".listing button[data-line=place]").get_attribute("aria-pressed") == "true"
    wild = window(sort_page, fragment="line=%3Cscript%3E&input=%3Cimg%20src=x%3E")
    assert "unknown" in wild.inner_text("#problem") and wild.locator("img").count() == 0


def test_a_best_guess_is_drawn_in_the_programs_own_weights_and_begins_with_the_counterexample(
    window: Any, folder: Path
) -> None:
    guess = DEMO_PROGRAM.replace("PRED_LT", "PRED_GT")
    written(DEMO_PROGRAM, folder / "guess.html", guess=guess)
    page = window(folder / "guess.html")
    assert "these are the compiled program's weights" in page.inner_text("main")
    typed = [int(word) for word in page.input_value("#input").split()]
    assert answers(page) == [str(value) for value in evaluate(Program.parse(guess), typed)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", chromium.WIDTHS)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(
    window: Any, sort_page: Path, width: int, scheme: str
) -> None:
    page = window(sort_page, width=width, scheme=scheme, fragment="line=place")
    assert chromium.violations(page) == [] and chromium.overflow(page) <= 0


def test_what_axe_is_for_is_really_found(windows: chromium.Windows, folder: Path) -> None:
    broken = folder / "broken.html"
    broken.write_text("<html><title>x</title><main><h1>x</h1><img src='data:,'><button></button></main></html>")
    found = {line.split(":")[0] for line in chromium.violations(windows.open(broken))}
    assert found >= {"image-alt", "button-name", "html-has-lang"}


def test_a_hover_takes_less_than_a_frame_or_three(window: Any, sort_page: Path) -> None:
    page = window(sort_page)
    script = "(name) => { const start = performance.now(); show(name); return performance.now() - start; }"
    hover = partial(page.evaluate, script)
    times = sorted(hover(name) for _ in range(5) for name in ("place", "there", "keys"))
    assert times[len(times) // 2] < 50
