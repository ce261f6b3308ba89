"""What every interactive figure is made of: pictures, the explorer's shell, predict-then-reveal. No browser needed."""

import base64
import io
import re
import time
import warnings

import ipywidgets as W
import numpy as np
import pytest
from PIL import Image

from course import data, widgets
from course.widgets import picture
from course.widgets.explorer import Explorer, choice, live, slider, toggle
from course.widgets.predict import Predict
from tests.figures import without_style

RNG = np.random.default_rng(3)


def decoded(png):
    """The pixels of a PNG as another library reads them, RGBA."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def words(html):
    """What a reader sees of a picture: its text without tags."""
    return " ".join(re.sub(r"<[^>]+>", " ", without_style(html)).split())


# --- numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (-1e-300, "−1e-300"),
        (1.005, "1.00"),
        (-1.25, "−1.25"),
        (3.0, "3"),
        (-7, "−7"),
        (0.004, "4e-3"),
        (-0.004, "−4e-3"),
        (123.456, "123.5"),
        (12345.6, "12346"),
        (1234567.8, "1e6"),
        (np.nan, "nan"),
        (np.inf, "∞"),
        (-np.inf, "−∞"),
        (np.float32(0.5), "0.50"),
    ],
)
def test_numbers_read_as_people_write_them(value, text):
    assert picture.number(value).replace("e−", "e-") == text


def test_no_number_is_minus_zero():
    values = np.concatenate([RNG.normal(size=400) * 10.0 ** RNG.integers(-12, 8, size=400), [-0.0, -1e-9, -0.0049]])
    for digits in range(5):
        texts = {picture.number(v, digits) for v in values}
        assert not {t for t in texts if re.fullmatch(r"−0(\.0*)?", t)}


# --- pixels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("palette", ["signed", "magnitude", "ink"])
def test_png8_has_the_palette_colour_of_every_value(palette):
    array = RNG.normal(size=(9, 14))
    array[2, 3] = 0.0
    pixels = decoded(picture.png8(array, palette, vmax=2))
    assert pixels.shape == (9, 14, 4)
    low, high = (-2, 2) if palette == "signed" else (array.min(), 2)
    place = (np.clip(array, low, high) - low) / (high - low) * 254
    assert (pixels[..., :3] == picture.palette_bytes(palette)[np.rint(place).astype(int)]).all()
    assert (pixels[..., 3] == 255).all()


def test_png8_draws_zero_in_the_middle_and_nan_not_at_all():
    pixels = decoded(picture.png8(np.array([[-3.0, 0.0, 3.0, np.nan, np.inf]]), "signed"))
    dark_purple, middle, dark_orange, hole, endless = pixels[0]
    assert middle[:3].min() > 240 and hole[3] == 0
    assert dark_purple[2] > dark_purple[1] and dark_orange[0] > dark_orange[2]
    assert (endless == dark_orange).all()


def test_png8_takes_a_table_of_colours_for_categories():
    table = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    pixels = decoded(picture.png8(np.array([[2, 0, 1]]), table, 0, 2))
    assert pixels[0, :, :3].tolist() == [[0, 0, 255], [255, 0, 0], [0, 255, 0]]


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4)])
def test_png8_refuses_what_is_no_picture(shape):
    with pytest.raises(ValueError, match="2-D"):
        picture.png8(np.zeros(shape))


def test_one_scale_holds_while_a_slider_moves():
    small, large = (picture.indices(np.array([[1.0, k]]), "signed", vmax=4)[0, 0] for k in (1.0, 3.9))
    assert small == large


def test_constant_and_empty_arrays_have_colours_too():
    for array in (np.zeros((2, 2)), np.full((2, 2), 7.0), np.full((2, 2), np.nan)):
        for palette in ("signed", "magnitude"):
            assert decoded(picture.png8(array, palette)).shape == (2, 2, 4)


def test_mosaic_puts_pictures_side_by_side():
    images = np.arange(5 * 2 * 3, dtype=float).reshape(5, 2, 3)
    sheet = picture.mosaic(images, columns=3)
    assert sheet.shape == (5, 11)
    assert (sheet[3:5, 4:7] == images[4]).all() and np.isnan(sheet[2]).all() and np.isnan(sheet[3:, 8:]).all()


# --- numbers to read ---------------------------------------------------------------------------------------------


def test_heat_prints_every_number_and_the_shape():
    html = picture.heat(np.array([[1.5, -2.0], [0.25, -0.0]]), "x")
    assert words(html) == "x (2, 2) 1.50 −2 0.25 0"


@pytest.mark.parametrize(("array", "cells"), [(np.float64(3), 1), (np.arange(4), 4), (np.zeros((12, 12)), 144)])
def test_heat_takes_scalars_vectors_and_matrices(array, cells):
    assert picture.heat(array, "x").count("<td") == cells


def test_heat_draws_larger_arrays_as_pixels():
    html = picture.heat(np.zeros((13, 4)), "x", alt="thirteen rows")
    assert "<td" not in html and 'alt="thirteen rows"' in html


def test_text_is_readable_on_every_colour():
    def luminance(rgb):
        channels = np.asarray(rgb) / 255
        return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ [
            0.2126,
            0.7152,
            0.0722,
        ]

    for palette in ("signed", "magnitude", "ink"):
        for colour in picture.palette_bytes(palette):
            ink = {"#111": (17, 17, 17), "#fff": (255, 255, 255)}[picture._ink_on(colour)]
            light, dark = sorted([luminance(colour), luminance(ink)], reverse=True)
            assert (light + 0.05) / (dark + 0.05) > 4.0, (palette, colour)


def test_cells_tell_how_they_came_about_on_hover_and_on_focus():
    html = picture.heat(np.eye(2), tips=lambda i, j: f"row {i} < column {j}")
    assert html.count('tabindex="0"') == 4 and "row 1 &lt; column 0" in html
    assert "td:focus .lbl-tip" in picture.style(html) and "td:hover .lbl-tip" in picture.style(html)
    assert "reach it with Tab" in picture.figure(html) and "reach it with Tab" not in picture.figure(
        picture.heat(np.eye(2))
    )


def test_compare_outlines_what_differs_with_both_values():
    want = np.array([[1.0, 2.0], [3.0, 4.0]])
    got = want.copy()
    got[1, 0] = 3.5
    html = picture.compare(got, want, "y")
    assert html.count('class="lbl-differs"') == 1
    assert "3.50 want 3" in words(html) and "1 of 4 cells differ" in words(html)
    assert "lbl-differs" not in picture.compare(want, want) and "same as the reference" in picture.compare(want, want)


@pytest.mark.parametrize(("got", "want"), [(12.3456, 12.3466), (1e-9, 2.0), (np.nan, 0.0), (1.0, np.inf)])
def test_a_cell_that_differs_never_shows_the_same_number_twice(got, want):
    mine, theirs = re.search(
        r"<b>(.*?)</b><small>want (.*?)</small>", picture.compare([[got, 0.0]], [[want, 0.0]])
    ).groups()
    assert mine != theirs


@pytest.mark.parametrize(
    ("got", "want", "wrong"),
    [
        (1.0 + 1e-7, 1.0, False),
        (1.0 + 1e-3, 1.0, True),
        (np.nan, np.nan, False),
        (np.nan, 1.0, True),
        (np.inf, np.inf, False),
        (-np.inf, np.inf, True),
    ],
)
def test_differs_is_as_tolerant_as_the_checks(got, want, wrong):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert picture.differs([got], [want]).tolist() == [wrong]


@pytest.mark.parametrize(
    ("got", "said"),
    [
        (np.zeros((3, 2)), "This gave shape (3, 2); the reference has shape (2, 3)."),
        (np.zeros(3), "This gave shape (3,)"),
        (None, "This gave NoneType, not an array of numbers"),
        ("text", "This gave str, not an array"),
        ([[1, 2], [3]], "This gave list, not an array"),
    ],
)
def test_compare_says_what_cannot_be_compared(got, said):
    assert said in words(picture.compare(got, np.zeros((2, 3)), "y"))


def test_compare_of_large_arrays_names_the_worst_place():
    want = np.zeros((20, 30))
    got = want.copy()
    got[4, 7] = -2.5
    assert "1 of 600 cells differ; at [4, 7]: −2.500, want 0" in words(picture.compare(got, want, "y"))


# --- charts ------------------------------------------------------------------------------------------------------


def paths(svg):
    """The points of every drawn line, in the plot's own coordinates."""
    found = re.findall(r'<path d="(M[^"]*)" fill="none" stroke="#', svg)
    return [[tuple(map(float, p.split())) for p in re.split("[ML]", d)[1:]] for d in found]


def test_a_curve_is_where_its_numbers_are():
    svg = picture.curve(
        {"f": ([0, 5, 10], [0, 1, 2])}, alt="a line", x_range=(0, 10), y_range=(0, 2), width=158, height=150
    )
    (line,) = paths(svg)
    assert line == [(0, 86), (50, 43), (100, 0)]


def test_a_curve_breaks_where_a_value_is_not_finite():
    svg = picture.curve({"f": [1, 2, np.nan, 3, np.inf, 4]}, alt="gaps")
    assert len(re.findall("M", re.search(r'<path d="(M[^"]*)" fill="none" stroke="#', svg)[1])) == 3


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-5, 5, [-4, -2, 0, 2, 4]), (0, 1000, [0, 200, 400, 600, 800, 1000])],
)
def test_ticks_are_round(low, high, expected):
    assert picture.ticks(low, high) == expected


def test_a_chart_names_its_axes_series_and_marks():
    text = words(
        picture.curve(
            {"train": [1, 2], "test": [2, 3]}, alt="", x_label="epoch", y_label="loss", marks=[(0.5, 2, "here")]
        )
    )
    assert {"train", "test", "epoch", "loss", "here"} <= set(text.split())


def test_no_series_no_point_and_constant_series_are_drawn_without_complaint():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for series in ({}, {"f": []}, {"f": [2.0]}, {"f": [3, 3, 3]}, {"f": [np.nan, np.nan]}):
            assert picture.curve(series, alt="nothing much").startswith("<div")


def test_the_plane_has_the_order_of_a_picture():
    points = picture.plane((0, 4), (10, 12), n=2)
    assert points.tolist() == [[1, 11.5], [3, 11.5], [1, 10.5], [3, 10.5]]


@pytest.mark.parametrize("dtype", [float, int, bool])
def test_regions_change_colour_where_the_class_changes(dtype):
    scores = (picture.plane((-1, 1), (-1, 1), 20)[:, 0] > 0).reshape(20, 20).astype(dtype)
    html = picture.regions(scores, [[0.5, 0.5], [-0.5, 0]], [1, 0], alt="left and right")
    uri = re.search(r'href="data:image/png;base64,([^"]+)"', html)[1]
    pixels = decoded(base64.b64decode(uri)).astype(int)
    left, right = pixels[5, 2], pixels[5, 17]
    assert (pixels[:, :10] == left).all() and (pixels[:, 10:] == right).all()
    assert left[2] > left[0] and right[0] > right[2]  # class 0 is blue, class 1 is orange
    for k in (0, 1):
        assert f'fill="{picture.CYCLE[k]}"' in html


def test_regions_want_a_square():
    with pytest.raises(ValueError, match="reshape"):
        picture.regions(np.zeros(400))


@pytest.mark.parametrize(
    "html",
    [
        picture.img(np.zeros((2, 2)), 'a "square" <b>'),
        picture.curve({"f": [1, 2]}, 'a "square" <b>'),
        picture.regions(np.zeros((4, 4)), alt='a "square" <b>'),
        picture.heat(np.zeros((2, 2)), alt='a "square" <b>'),
        picture.heat(np.zeros((20, 2)), alt='a "square" <b>'),
        picture.page("…", 'a "square" <b>'),
    ],
)
def test_every_picture_carries_its_alternative_text(html):
    assert re.search(r'(alt|aria-label)="a &quot;square&quot; &lt;b&gt;"', html)


def test_a_picture_brings_the_rules_that_it_uses_and_no_others():
    chart, cells = picture.curve({"f": [1, 2]}, alt=""), picture.heat(np.eye(2), tips=lambda i, j: "x")
    for html in (chart, cells, picture.page(chart), picture.page(cells)):
        assert ".lbl svg text{" in picture.style(html)
    assert "lbl-heat" in picture.page(cells) and "lbl-heat" not in picture.page(chart)
    assert len(picture.style(chart)) < 1000


def test_text_takes_the_colour_of_the_page():
    chart = picture.curve({"f": [1, 2], "g": [1, 3]}, alt="", x_label="x")
    assert "fill:currentColor" in picture.style(chart) and not re.search(r"<text[^>]*fill=", chart)


# --- the explorer ------------------------------------------------------------------------------------------------


def example(**options):
    def draw(scale, kind, bias):
        x = {"ramp": np.arange(4.0), "steps": np.array([0.0, 0, 1, 1])}[kind]
        return picture.figure(picture.heat(scale * x + bias, "y", vmax=9), f"scaled by {picture.number(scale)}")

    controls = {
        "scale": slider("scale", -2.0, 2.0, 1.0, 0.5),
        "kind": choice("input", ["ramp", "steps"]),
        "bias": toggle("bias"),
    }
    return Explorer(draw, alt=lambda scale, **_: f"four numbers times {scale}", **controls, **options)


def test_snapshot_follows_every_control():
    explorer = example()
    for name in explorer.controls:
        settings = explorer.settings(name)
        assert len(settings) == len({explorer.snapshot(**{name: value}) for value in settings}) > 1


def test_moving_a_control_changes_the_picture():
    explorer = example()
    for control, value in zip(explorer.controls.values(), (2.0, "steps", True), strict=True):
        before = explorer.picture.value
        control.value = value
        assert explorer.picture.value != before
    assert explorer.picture.value == explorer.snapshot(scale=2.0, kind="steps", bias=True)


def test_snapshot_knows_its_controls():
    with pytest.raises(KeyError, match="sclae"):
        example().snapshot(sclae=1)


def test_the_picture_keeps_its_height_and_its_description():
    explorer = example(height=234)
    assert "min-height:234px" in explorer.snapshot() and 'aria-label="four numbers times 1.0"' in explorer.snapshot()


def broken(error):
    def learners_function(x):
        raise error

    return Explorer(lambda k: learners_function(k), alt="broken", k=slider("k", 0, 3))


def test_an_exception_stands_in_the_pictures_place():
    explorer = broken(ValueError("shapes <3> and 4"))
    text = explorer.snapshot()
    assert "lbl-error" in text and "shapes &lt;3&gt; and 4" in text and "in learners_function" in text
    assert "explorer.py" not in text  # only the learner's own lines
    explorer.controls["k"].value = 2  # and the next move does not raise
    assert "ValueError" in explorer.picture.value


def test_an_unwritten_function_is_named():
    text = words(broken(NotImplementedError()).snapshot())
    assert text == "Write learners_function first; run its cell, then move a control."


def test_an_unwritten_method_is_named_with_its_class():
    class Linear:
        def forward(self):
            raise NotImplementedError

    text = words(Explorer(lambda k: Linear().forward(), alt="", k=slider("k", 0, 3)).snapshot())
    assert text.startswith("Write Linear.forward first")


def test_an_exception_in_the_description_is_no_end_either():
    assert "lbl-error" in Explorer(lambda k: "", alt=lambda k: 1 / 0, k=slider("k", 0, 3)).snapshot()


def test_a_rewritten_function_is_the_one_drawn(monkeypatch):
    import __main__

    old, new = (lambda x: "old"), (lambda x: "new")
    for function in (old, new):
        function.__name__, function.__module__ = "learners", "__main__"
    monkeypatch.setattr(__main__, "learners", old, raising=False)
    function = live(old)
    assert function(1) == "old"
    monkeypatch.setattr(__main__, "learners", new)
    assert function(1) == "new"
    assert live(np.tanh) is np.tanh


def test_frames_hold_one_ready_picture_per_setting():
    explorer = example()
    html = explorer.frames("scale").data
    assert html.count('class="lbl-frame"') == 9 and html.count(" hidden>") == 8
    assert 'value="6"' in html  # where the control stands
    for value in explorer.settings("scale"):
        assert without_style(explorer.snapshot(scale=value)) in html
    assert "<script" not in html and " id=" not in html


def test_a_notebook_gets_the_widget_and_a_picture_for_where_no_kernel_answers():
    explorer = example()
    bundle = explorer._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.widget.model_id
    assert "<td" in bundle["text/html"] and "scale: 1 · input: ramp · bias: no" in bundle["text/html"]
    assert bundle["text/plain"] == "<interactive figure: scale, input, bias>"


def test_controls_are_labelled_and_of_the_core_set():
    controls = [
        slider("n", 1, 5),
        slider("x", 0, 1.5),
        choice("a", "xy"),
        choice("b", [f"option {k}" for k in range(9)]),
    ]
    kinds = [W.IntSlider, W.FloatSlider, W.ToggleButtons, W.Dropdown, W.Checkbox]
    for control, kind in zip([*controls, toggle("t")], kinds, strict=True):
        assert type(control) is kind and control.description
    assert (
        choice("f", {"ReLU": 1, "tanh": 2}, 2).value == 2 and slider("x", 0.0, 1.0, 0.25, 0.05).readout_format == ".2f"
    )


# --- predict -----------------------------------------------------------------------------------------------------


def guessed(answer, guess, **options):
    question = Predict("How many?", answer, lambda: "<i>revealed</i>", **options)
    question.field.value = guess
    question.button.click()
    return question


@pytest.mark.parametrize(
    ("guess", "said"),
    [
        ("10", "Yes: 10."),
        (" 9 ", "You said 9; it is 10: off by 1."),
        ("-2,5", "You said −2.5; it is 10: off by 12.5."),
    ],
)
def test_a_guess_reveals_the_picture_and_how_far_off_it_was(guess, said):
    question = guessed(10, guess)
    assert said in question.outcome.value
    assert "revealed" in question.outcome.value and question.field.disabled and question.button.disabled


@pytest.mark.parametrize("guess", ["", "ten", "1/0"])
def test_without_a_guess_nothing_is_revealed(guess):
    question = guessed(10, guess)
    assert "revealed" not in question.outcome.value and "number first" in question.outcome.value
    assert not question.button.disabled


def test_a_near_guess_is_close_enough_within_the_tolerance():
    assert "Close enough" in guessed(0.5, "0.52", tolerance=0.05).outcome.value
    assert "off by" in guessed(0.5, "0.6", tolerance=0.05).outcome.value


def test_a_choice_is_made_before_it_is_judged():
    options = ["relu", "tanh"]
    assert Predict("Which?", "tanh", str, options=options).field.value is None
    assert "You said relu; it is tanh." in guessed("tanh", "relu", options=options).outcome.value
    assert "Yes: tanh." in guessed("tanh", "tanh", options=options).outcome.value
    assert "Choose one first" in guessed("tanh", None, options=options).outcome.value
    with pytest.raises(ValueError, match="none of the options"):
        Predict("Which?", "gelu", str, options=options)


def test_a_failing_reveal_shows_its_exception():
    question = Predict("How many?", 1, lambda: 1 / 0)
    question.field.value = "1"
    question.button.click()
    assert "ZeroDivisionError" in question.outcome.value


def test_without_a_kernel_the_answer_is_folded_away():
    html = Predict("How many?", 10, lambda: "<i>revealed</i>")._repr_mimebundle_()["text/html"]
    assert re.search("How many.*<details>.*>10<.*revealed.*</details>", html)


# --- the package, the data, the pace -----------------------------------------------------------------------------


def test_widgets_modules_are_imported_by_name():
    assert widgets.picture is picture and "explorer" in dir(widgets)
    with pytest.raises(AttributeError, match="no module 'liner'"):
        widgets.liner  # noqa: B018


def test_digits_are_real_scaled_and_always_split_alike():
    split = data.digits()
    assert [a.shape for a in split] == [(1437, 64), (1437,), (360, 64), (360,)]
    assert split.x_train.min() == 0 and split.x_train.max() == 1 and set(split.y_test) == set(range(10))
    assert not (split.x_test[:, None] == split.x_train[:40]).all(-1).any()
    split.x_train[:] = 0  # a notebook may write into its copy
    assert data.digits().x_train.max() == 1


@pytest.mark.parametrize("generate", [data.two_moons, data.xor, data.blobs, data.spirals])
def test_generated_data_are_balanced_and_repeatable(generate):
    x, y = generate(300, 0.05, np.random.default_rng(1))
    again, _ = generate(300, 0.05, np.random.default_rng(1))
    assert x.shape == (300, 2) and y.shape == (300,) and np.issubdtype(y.dtype, np.integer)
    assert (x == again).all() and (x != generate(300, 0.05, np.random.default_rng(2))[0]).any()
    counts = np.bincount(y)
    assert counts.min() > 0.7 * counts.mean()


def test_the_plane_data_are_what_they_are_called():
    x, y = data.xor(400, 0.0, np.random.default_rng(0))
    assert ((x[:, 0] * x[:, 1] < 0) == y).all()
    moons, side = data.two_moons(400, 0.0, np.random.default_rng(0))
    assert np.allclose(np.linalg.norm(moons[side == 0], axis=1), 1)


def big_figure():
    """More than any lesson draws at once."""
    square = RNG.normal(size=(12, 12))
    x = np.linspace(-5, 5, 200)
    return picture.figure(
        picture.row(
            picture.compare(square, square + (square > 1), "y", tips=lambda i, j: f"{i} {j}"),
            picture.img(RNG.normal(size=(112, 112)), "noise", "signed"),
            picture.curve({"f": (x, np.tanh(x)), "g": (x, x**2)}, alt="two curves"),
            picture.regions(
                1 / (1 + np.exp(-picture.plane((-1, 1), (-1, 1))[:, 0])).reshape(80, 80), *data.two_moons()
            ),
        )
    )


def test_a_big_figure_is_drawn_within_60_ms():
    explorer = Explorer(lambda k: big_figure(), alt="everything", k=slider("k", 0, 9))
    taken = []
    for _ in range(9):
        start = time.perf_counter()
        explorer.controls["k"].value += 1
        taken.append(1000 * (time.perf_counter() - start))
    assert sorted(taken)[4] < 60, taken
