"""Pictures of programs: nothing overlaps, every direction has its name, and what is drawn is what is computed."""

from collections.abc import Sequence
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import BboxBase

from weightspace.errors import RaspError
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.directions import direction_names, named
from weightspace.rasp.compiler.figure import save_figure
from weightspace.rasp.compiler.graph import graph
from weightspace.rasp.compiler.graph_picture import draw_graph
from weightspace.rasp.compiler.stream_picture import draw_stream
from weightspace.rasp.compiler.terminal import graph_text, trace_text, transformer_text
from weightspace.rasp.interpreter import trace
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import sample

HIST = """
vocab = ['e', 'h', 'l', 'o']
max_seq_len = 5
same_tok = Select(PRED_EQ, tokens, tokens)
hist = SelectorWidth(same_tok)
"""
MEAN = """
vocab = [0, 1, 2]
max_seq_len = 4
flag: numerical = Map(x == 1, tokens)
before = Select(PRED_LEQ, indices, indices)
share: numerical = Aggregate(before, flag)
many = Map(x > 0.5, share)
"""
FIGURE_13 = """
v1 = Select(PRED_NEQ, indices, tokens)
v2 = SelectorWidth(v1)
v3 = Select(PRED_LT, v2, v2)
v4 = SelectorWidth(v3)
v5 = Aggregate(v3, v4)
v6 = SequenceMap(x + y, v2, v5)
v7 = Map(x <= 3, v6)
"""


def texts(figure: Any) -> list[str]:
    """Every text of a figure, the names of places among them."""
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found += [text.get_text() for text in axes.texts]
        found += [label.get_text() for label in axes.get_yticklabels()]
    return found


def programs() -> list[Program]:
    """Long programs: the distributions' longest."""
    return [*islice(sample("paper", 0, [15]), 4), *islice(sample("typed", 0, [12]), 2)]


# -- the graph --------------------------------------------------------------------------------------------------------


def test_the_graph_goes_by_depth_and_then_alphabetically() -> None:
    """The paper's Figure 12, on its example program 1."""
    nodes = graph(Program.parse(FIGURE_13))
    assert [node.variable for node in nodes] == ["tokens", "indices", "v1", "v2", "v3", "v4", "v5", "v6", "v7"]
    assert [node.depth for node in nodes] == [0, 0, 1, 2, 3, 4, 5, 6, 7]
    assert [node.variable for node in nodes if node.is_output] == ["v7"]
    side_by_side = graph(Program.parse("b = Map(x + 2, tokens)\na = Map(x + 1, tokens)\nc = SequenceMap(x, b, a)"))
    assert [node.call for node in side_by_side[1:3]] == ["Map(x + 1, tokens)", "Map(x + 2, tokens)"]


def test_the_graph_knows_encodings_and_values_where_it_knows_what_the_program_is_meant_for() -> None:
    nodes = {node.variable: node for node in graph(Program.parse(MEAN))}
    assert (nodes["before"].kind, nodes["before"].values, nodes["before"].reads) == ("selector", None, ("indices",) * 2)
    assert (nodes["flag"].encoding, nodes["flag"].about) == ("numerical", "numerical, 2 values")
    assert nodes["many"].values == (False, True)
    assert all(node.values is None for node in graph(Program.parse(FIGURE_13)))


def test_the_text_of_a_graph_has_a_line_for_each_node() -> None:
    lines = graph_text(Program.parse(MEAN)).splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("depth 0   tokens")
    assert lines[0].endswith("categorical, 3 values: 0, 1, 2")
    assert "share = Aggregate(before, flag)" in lines[4]
    assert lines[-1].endswith("categorical, 2 values: False, True  <- output")


def test_the_text_of_a_graph_names_what_is_not_needed_and_the_picture_leaves_it_out() -> None:
    program = Program.parse("a = Map(x + 1, tokens)\nunused = Map(x + 2, indices)\nreturn a")
    assert "unused = Map(x + 2, indices)  categorical  (the output does not need it)" in graph_text(program)
    assert not {"unused", "indices"} & set(texts(draw_graph(program)))


def test_no_two_boxes_of_a_graph_overlap_and_every_text_is_inside_one() -> None:
    """For the longest programs of both distributions; the legend, last in the figure, is looked at too."""
    for program in programs():
        figure = draw_graph(program)
        axes = figure.axes[0]
        shapes = [patch for patch in axes.patches if type(patch).__name__ in ("FancyBboxPatch", "Polygon", "Rectangle")]
        boxes = [shape.get_window_extent() for shape in shapes]
        assert len(boxes) == sum(node.needed for node in graph(program)) + 4
        for first, second in combinations(boxes, 2):
            assert not first.overlaps(second)
        page = figure.bbox
        extents = [text.get_window_extent() for text in axes.texts]
        for text, extent in zip(axes.texts, extents, strict=True):
            assert page.x0 <= extent.x0 and extent.x1 <= page.x1, text
            inside = [box.x0 <= extent.x0 and extent.x1 <= box.x1 and box.y0 <= extent.y0 for box in boxes[:-4]]
            assert any(inside) or text.get_text() in ("input", "S-op", "selector", "output")
        for first, second in combinations(extents, 2):
            assert not first.overlaps(second.shrunk(0.99, 0.6))  # lines of text may touch


def test_no_arrow_of_a_graph_runs_through_a_box() -> None:
    for program in programs():
        figure = draw_graph(program)
        axes = figure.axes[0]
        shapes = [patch for patch in axes.patches if type(patch).__name__ in ("FancyBboxPatch", "Polygon")]
        boxes = [shape.get_window_extent().padded(-1.5) for shape in shapes]  # an arrow begins and ends on borders
        arrows = [patch for patch in axes.patches if type(patch).__name__ in ("FancyArrowPatch", "PathPatch")]
        assert len(arrows) >= len(program)
        for arrow in arrows:
            points = arrow.get_path().transformed(axes.transData).interpolated(8).vertices
            for box in boxes:
                assert not any(box.contains(*point) for point in points)


def test_the_kinds_of_nodes_have_shapes_of_their_own() -> None:
    axes = draw_graph(Program.parse(HIST)).axes[0]
    shapes = [type(patch).__name__ for patch in axes.patches]
    assert shapes.count("Polygon") == 1
    assert shapes.count("FancyBboxPatch") == 2
    widths = {patch.get_linewidth() for patch in axes.patches if type(patch).__name__ == "FancyBboxPatch"}
    assert len(widths) == 2  # the output has a thicker border


# -- the residual stream ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [HIST, MEAN])
def test_the_stream_has_every_directions_name(text: str) -> None:
    program = Program.parse(text)
    transformer = compile_program(program)
    inputs = list(program.vocab or ())
    shown = texts(draw_stream(transformer, inputs))
    assert set(transformer.residual_labels) <= set(shown)
    names = direction_names(program, transformer)
    shown = texts(draw_stream(transformer, inputs, names))
    expected = [name for group in transformer.directions for name in named(group, names)]
    assert len(expected) == len(transformer.residual_labels)
    for name in expected:
        assert shown.count(name) >= 2  # above the first panel and below the last
    assert {"BOS", *map(str, inputs)} <= set(shown)


def test_directions_are_called_by_the_programs_variables() -> None:
    program = Program.parse(HIST)
    names = direction_names(program, compile_program(program))
    assert names == {"selector_width_01": "hist"}
    text = transformer_text(compile_program(program), names)
    assert "1 layer, 1 head of 6" in text and "1,208 parameters" in text
    assert "hist_selector_width_attn_output" in text
    compat = compile_program(program, mode="tracr_compat")
    assert set(direction_names(program, compat).values()) == {"hist"}


def test_a_label_that_begins_like_another_keeps_its_own_variable() -> None:
    program = Program.parse("vocab = [0, 1]\nmax_seq_len = 2\na = Map(x + 1, tokens)\nb = Map(x + 2, a)\nreturn b")
    program = program.with_labels({"a": "map_1", "b": "map_1_none_2"})
    transformer = compile_program(program, mode="tracr_compat")
    names = direction_names(program, transformer)
    called = [named(group, names) for group in transformer.directions]
    assert called[1:3] == [("a:1", "a:2"), ("b:3", "b:4")]


def test_panels_hold_the_stream_after_every_half_that_writes() -> None:
    """Figures 17 to 20 for "hello": embedding, attention with its pattern, MLP with its hidden units."""
    program = Program.parse(HIST)
    transformer = compile_program(program)
    figure = draw_stream(transformer, list("hello"))
    maps = [np.asarray(axes.collections[0].get_array()) for axes in figure.axes]
    codes = np.array(transformer.encode(["hello"]))
    stages = [stream[0] for _, stream in transformer.stages(codes)]
    before, after = transformer.hidden(codes)[0]
    expected = [
        stages[0], stages[1], transformer.attention_patterns(codes)[0, 0][0], stages[2], before[0], after[0],
    ]  # fmt: skip
    assert len(maps) == len(expected)
    for drawn, computed in zip(maps, expected, strict=True):
        np.testing.assert_allclose(drawn.reshape(computed.shape), computed, atol=1e-6)
    shown = texts(figure)
    assert "h e l l o  ->  1 1 2 2 1" in shown
    assert "layer 0 attention writes selector_width_01_selector_width_attn_output" in shown
    assert "0.5" in shown and "0.33" in shown  # 1 / (1 + how often a token occurs)


def test_halves_that_write_nothing_have_no_panel() -> None:
    transformer = compile_program(Program.parse(MEAN))
    titles = [text for text in texts(draw_stream(transformer, [1, 0])) if text.startswith(("layer", "embedding"))]
    assert len(titles) == 4 < 1 + 2 * transformer.configuration.num_layers


def test_of_many_directions_those_that_are_ever_used_are_shown_and_the_others_counted() -> None:
    program = Program.parse(
        "vocab = [1, 2, 3, 4, 5]\nmax_seq_len = 5\nkeys = SequenceMap(x + y / 5, tokens, indices)\n"
        "smaller = Select(PRED_LT, keys, keys)\nplace = SelectorWidth(smaller)"
    )
    transformer = compile_program(program)
    assert transformer.layout.width > 40
    shown = texts(draw_stream(transformer, [3, 1]))
    codes = np.array(transformer.encode([[3, 1]]))
    used = np.any([np.abs(stream[0]).max(0) > 1e-6 for _, stream in transformer.stages(codes)], axis=0)
    for name, ever in zip(transformer.residual_labels, used, strict=True):
        assert (name in shown) == bool(ever)
    left = transformer.layout.width - int(used.sum())
    assert f"{left} of {transformer.layout.width} directions are zero throughout and left out" in shown


def test_panels_and_their_titles_do_not_overlap() -> None:
    for program in [Program.parse(HIST), programs()[0], programs()[-1]]:
        transformer = compile_program(program)
        vocab = transformer.vocab
        inputs = [vocab[i % len(vocab)] for i in range(transformer.max_seq_len)]
        figure = draw_stream(transformer, inputs, direction_names(program, transformer))
        assert not overlapping(panels := [axes.bbox for axes in figure.axes], panels)
        written = [text for axes in figure.axes for text in axes.texts]
        renderer = FigureCanvasAgg(figure).get_renderer()  # without one, each text would make its own
        extents = [text.get_window_extent(renderer) for text in written]
        title_sizes = (8.5, 8.0)
        titles = [extent for text, extent in zip(written, extents, strict=True) if text.get_fontsize() in title_sizes]
        assert titles and not overlapping(titles, titles)
        assert not overlapping(extents, [text.get_window_extent(renderer) for text in figure.texts])
        for extent in extents:
            assert figure.bbox.y0 <= extent.y0 and extent.y1 <= figure.bbox.y1
            assert figure.bbox.x0 <= extent.x0 and extent.x1 <= figure.bbox.x1


def overlapping(some: Sequence[BboxBase], others: Sequence[BboxBase]) -> bool:
    """Whether a box of the one sequence overlaps one of the other, or of the same where both are one."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = (
        np.array([(*box.min, *box.max) for box in boxes]).T for boxes in (some, others)
    )
    wide = (ax0[:, None] <= bx1) & (bx0 <= ax1[:, None])
    both = wide & (ay0[:, None] <= by1) & (by0 <= ay1[:, None])
    return bool((both & ~np.eye(len(some), dtype=bool) if some is others else both).any())


def test_hidden_units_are_what_the_mlp_adds_its_result_from() -> None:
    program = next(islice(sample("typed", 3, [8]), 1))
    transformer = compile_program(program)
    codes = np.array(transformer.encode([[0, 1, 2, 3, 4], [4, 4, 2, 0, 1]]))
    stages = dict(transformer.stages(codes))
    hidden = transformer.hidden(codes)
    assert hidden
    for layer, (before, after) in hidden.items():
        np.testing.assert_array_equal(after, np.maximum(before, 0))
        second = transformer.params[f"transformer/layer_{layer}/mlp/linear_2/w"]
        added = stages[f"layer {layer} MLP"] - stages[f"layer {layer} attention"]
        # the units that write nothing are left out
        np.testing.assert_allclose(after @ second[second.any(1)], added, atol=1e-2)


def test_an_input_that_cannot_be_drawn_is_refused() -> None:
    transformer = compile_program(Program.parse(HIST))
    with pytest.raises(RaspError, match="without tokens"):
        draw_stream(transformer, [])
    with pytest.raises(RaspError, match="too long"):
        draw_stream(transformer, list("hellohello"))
    long = compile_program(Program.parse(HIST).meant_for(None, 80))
    with pytest.raises(RaspError, match="61 tokens is too long for a picture: at most 60"):
        draw_stream(long, ["h"] * 61)


# -- the trace and files ----------------------------------------------------------------------------------------------


def test_the_trace_shows_selectors_by_query() -> None:
    lines = trace_text(trace(Program.parse(HIST), list("hel"))).splitlines()
    assert [line.split() for line in lines] == [
        ["tokens", "h", "e", "l"],
        ["indices", "0", "1", "2"],
        ["same_tok", "h", "x", ".", "."],
        ["e", ".", "x", "."],
        ["l", ".", ".", "x"],
        ["hist", "1", "1", "1"],
    ]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_same_picture_gives_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    program = Program.parse(MEAN)
    for name in ("a", "b"):
        save_figure(draw_stream(compile_program(program), [0, 1, 2]), tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {f"a.{suffix}", f"b.{suffix}"}


def test_texts_of_an_svg_stay_texts_whatever_the_tokens_hold(tmp_path: Path) -> None:
    """A dollar sign is no mathematics, and a letter that the font lacks is no error."""
    program = Program.parse("vocab = ['$x$', '日', '<b>']\nmax_seq_len = 3\nv1 = Map(x == '日', tokens)")
    save_figure(draw_stream(compile_program(program), ["$x$", "日", "<b>"]), tmp_path / "stream.svg")
    text = (tmp_path / "stream.svg").read_text()
    for name in ("tokens:$x$", "tokens:&lt;b&gt;", "tokens:日", "$x$"):
        assert f">{name}</text>" in text
    save_figure(draw_graph(program), tmp_path / "graph.png")
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_is_png_or_svg(tmp_path: Path) -> None:
    with pytest.raises(RaspError, match=r"\.png or \.svg file, not 'graph\.pdf'"):
        save_figure(draw_graph(Program.parse(HIST)), tmp_path / "graph.pdf")
    assert not list(tmp_path.iterdir())
