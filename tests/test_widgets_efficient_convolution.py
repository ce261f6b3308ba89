"""The interactive figures of lesson 13: what they compute, and that every control moves the picture."""

import numpy as np
import pytest

from autograder import reference
from course.widgets import efficient_convolution as efficient
from tests.figures import seconds, unwritten, without_style

DEPTHWISE, POINTWISE, SHUFFLE, FLOPS, SCALING = (
    reference(name)
    for name in (
        "depthwise_conv2d_forward",
        "pointwise_conv2d_forward",
        "channel_shuffle",
        "count_flops",
        "compound_scaling",
    )
)
RNG = np.random.default_rng(0)
MEASURED = {name: (*efficient.traffic(name, 64, 56), 1e-3) for name in ("standard", "depthwise", "pointwise")}
LABELS = np.arange(60) % 10
GATES = {f"block {k}": RNG.uniform(size=(60, 20)) for k in (1, 2)}
KERNELS = {f"block {k}": RNG.normal(size=(20, 3, 3)) for k in (1, 2)}
PLANES = [{f"block {k}": RNG.normal(size=(10, 20, 4, 4)) for k in (1, 2)} for _ in range(2)]


@pytest.mark.parametrize(
    ("kind", "want"),
    [
        ("standard", [[range(8)] * 8]),
        ("4 groups", [[(2 * (o // 2), 2 * (o // 2) + 1) for o in range(8)]]),
        ("depthwise", [[(o,) for o in range(8)]]),
        ("twice", [[(o // 2,) for o in range(16)]]),
        ("pointwise", [[range(8)] * 8]),
        ("separable", [[(o,) for o in range(8)], [range(8)] * 8]),
    ],
)
def test_an_output_reads_the_channels_of_its_layer(kind, want):
    found = [stage for _, stage, _ in efficient.stages(kind, DEPTHWISE, POINTWISE, 8, 3)]
    for reads, rows in zip(found, want, strict=True):
        assert [np.nonzero(row)[0].tolist() for row in reads] == [list(row) for row in rows]


def test_a_shuffle_lets_groups_meet_if_there_are_channels_enough():
    straight = np.arange(efficient.WIRES)
    for groups, many in ((2, 12), (3, 12), (4, 9), (6, 4)):
        order = efficient.order_of(SHUFFLE, groups)
        assert sorted(order) == straight.tolist()
        assert len(efficient.reached(order, groups, 5)[2]) == many
        assert len(efficient.reached(straight, groups, 5)[2]) == efficient.WIRES // groups


def test_the_guess_is_the_count():
    standard, separable = FLOPS(128, 128, (3, 3), (1, 1)), efficient.costs_of(FLOPS, 128, 128, 3, 1, 4)["separable"]
    ratio = float(standard[1]) / sum(float(part[1]) for part in separable)
    assert efficient.guess_cost().answer == pytest.approx(ratio, abs=0.05)


def test_bytes_per_mac_of_a_depthwise_layer_do_not_depend_on_its_channels():
    few, many = (efficient.traffic("depthwise", c, 56) for c in (8, 512))
    assert few[0] / few[1] == pytest.approx(many[0] / many[1])
    assert few[0] / few[1] == pytest.approx(2.25, rel=0.02)
    flops, moved = efficient.traffic("standard", 64, 56)
    assert flops == 2 * FLOPS(64, 64, (3, 3), (56, 56))[1] and moved == 4 * (2 * 64 * 56**2 + 64 * 64 * 9)


def test_a_relu_loses_less_in_more_dimensions_and_nothing_is_lost_without_it():
    few, many = (np.mean([efficient.lost(d, seed, True) for seed in range(6)]) for d in (2, 30))
    assert few > 0.3 > 0.1 > many
    assert efficient.lost(2, 0, False) < 1e-9


def test_all_ways_of_growing_cost_the_same():
    for phi in (0.0, 1.5, 3.0):
        factors = [efficient.scaled(way, phi, SCALING) for way in efficient.WAYS.values()]
        for depth, width, resolution, cost in factors:
            assert cost == pytest.approx(factors[0][3])
            assert depth * width**2 * resolution**2 == pytest.approx(cost)
    assert efficient.built(1, 1, 1) == (8, 16, 32, 1.0)


@pytest.mark.parametrize("question", [efficient.guess_cost(), efficient.guess_time((7.9, 3.2))])
def test_a_guess_is_answered(question):
    assert question.verdict(question.answer).startswith("Yes")
    assert 'class="lbl-error"' not in question.reveal()


def test_the_overview_has_its_four_layers():
    html = efficient.overview()
    assert html.count('role="img"') == 4 and "nan" not in html


def figures(change=lambda function: function):
    """Every figure of the lesson that runs a function; `change` spoils the learner's."""
    return {
        "reads": efficient.reads([change(DEPTHWISE), change(POINTWISE)], [DEPTHWISE, POINTWISE], kind="separable"),
        "planes": efficient.planes(change(DEPTHWISE), DEPTHWISE),
        "wires": efficient.wires(change(SHUFFLE), SHUFFLE),
        "costs": efficient.costs(change(FLOPS), FLOPS),
        "growth": efficient.growth(change(SCALING), SCALING),
    }


EVERY = figures() | {
    "lossy": efficient.lossy(),
    "roof": efficient.roof(1.5e11, 1.3e10, MEASURED),
    "gates": efficient.gates(GATES, LABELS),
    "kernels": efficient.kernels(KERNELS, *PLANES),
}
START = {"wires": {"shuffled": True}}


def spoiled(function):
    """The function with its outputs in another order, or larger."""

    def wrong(*args, **kwargs):
        result = function(*args, **kwargs)
        if isinstance(result, tuple):
            return tuple(1.5 * part for part in result)
        return result[:, ::-1] + result[:, :1]

    return wrong


@pytest.mark.parametrize("name", EVERY)
def test_every_control_changes_the_picture(name):
    explorer, start = EVERY[name], START.get(name, {})
    before = explorer.snapshot(**start)
    assert 'class="lbl-error"' not in before and 'class="lbl-differs"' not in before and "nan" not in before
    for key, now in (explorer.values | start).items():
        other = next(value for value in explorer.settings(key)[::-1] if value != now)
        after = explorer.snapshot(**start | {key: other})
        assert 'class="lbl-error"' not in after
        assert without_style(after) != without_style(before), f"{name}: {key} changes nothing"


@pytest.mark.parametrize("name", EVERY)
def test_every_setting_can_be_drawn(name):
    explorer = EVERY[name]
    for key in explorer.controls:
        for value in explorer.settings(key, 5):
            assert 'class="lbl-error"' not in explorer.snapshot(**{key: value}), f"{name}: {key} = {value}"


@pytest.mark.parametrize("name", figures())
def test_wrong_answers_show_beside_the_reference(name):
    wrong = figures(spoiled)[name].snapshot(**START.get(name, {}))
    assert any(sign in wrong for sign in ("differ from the reference", "(reference ", "cells differ"))


@pytest.mark.parametrize("name", figures())
def test_an_unwritten_function_is_said_and_not_raised(name):
    assert 'class="lbl-error"' in figures(unwritten)[name].snapshot(**START.get(name, {}))


@pytest.mark.parametrize("name", EVERY)
def test_a_step_of_a_slider_is_fast(name):
    assert seconds(EVERY[name].snapshot) < 0.06
