"""The figures of lesson 11 and the network they look into: what they compute, that every control moves the picture."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from autograder import reference
from course.data import make_scene_cnn, scene_cnn, scenes
from course.widgets import cnn
from tests.figures import other_value, seconds, unwritten

NAMES = ("activation_maps", "top_patches", "maximise_activation", "saliency", "ablate_channel")
FUNCTIONS = {name: reference(name) for name in NAMES}
MAPS = FUNCTIONS["activation_maps"]
IMAGES, LABELS = (torch.from_numpy(array) for array in scenes.sample("scene", 60, seed=9))
MODEL = scene_cnn.load(0, folder="no such folder")
RESULTS = {
    "trained": np.random.default_rng(0).uniform(0.5, 1, (3, 4, 5)),
    "untrained": np.random.default_rng(1).uniform(0.2, 0.6, (3, 4, 5)),
    "pixels": np.full(5, 0.25),
}


def figures():
    film = scene_cnn.snapshots()[::10]
    return {
        "maps": cnn.maps(MODEL, MAPS),
        "microscope": cnn.microscope(MODEL, IMAGES, FUNCTIONS, FUNCTIONS),
        "trail": cnn.trail(MODEL, IMAGES, FUNCTIONS),
        "scrubber": cnn.scrubber(film, IMAGES, LABELS, MAPS, at=1),
        "probes": cnn.probes(RESULTS),
    }


# --- the network and its weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", scene_cnn.SEEDS)
def test_shipped_weights_tell_scenes_apart(seed):
    images, labels = map(torch.from_numpy, scenes.sample("scene", 400, seed=3))
    assert make_scene_cnn.accuracy(scene_cnn.load(seed, folder="no such folder"), images, labels) > 0.94


def test_a_network_is_its_seed_and_leaves_pytorchs_random_numbers_alone():
    torch.manual_seed(7)
    want = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = (scene_cnn.network(seed).conv1.weight for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other) and torch.equal(torch.rand(3), want)
    assert sum(p.numel() for p in scene_cnn.network().parameters()) < 60_000


def test_a_short_run_is_the_beginning_of_a_long_one():
    images, labels = map(torch.from_numpy, scenes.sample("scene", 130, seed=3))
    runs = [list(scene_cnn.train(scene_cnn.network(0), images, labels, steps)) for steps in (3, 6)]
    assert runs[0] == runs[1][:3] and [step for step, _ in runs[1]] == [1, 2, 3, 4, 5, 6]
    rates = [scene_cnn.learning_rate(step) for step in range(scene_cnn.STEPS + 1)]
    assert 100 < np.argmax(rates) < 130 and rates[-1] == 0 and min(rates[:-1]) > 0


def test_own_weights_take_the_place_of_the_shipped_ones(tmp_path, capsys):
    own = scene_cnn.network(11)
    scene_cnn.save(own, 0, tmp_path)
    loaded = scene_cnn.load(0, tmp_path)
    assert "your own weights" in capsys.readouterr().out
    torch.testing.assert_close(loaded.fc.weight, own.fc.weight, atol=1e-3, rtol=1e-2)
    scene_cnn.load(1, tmp_path)
    assert "shipped with the course" in capsys.readouterr().out


def test_the_film_goes_from_the_untrained_to_the_trained_network():
    film = scene_cnn.snapshots()
    assert [film[0][0], film[-1][0], len(film)] == [0, scene_cnn.STEPS, 31]
    for state, model in ((film[0][1], scene_cnn.network(0)), (film[-1][1], MODEL)):
        for name, value in model.state_dict().items():
            torch.testing.assert_close(state[name], value, atol=1e-3, rtol=1e-3)


# --- where a unit looks, and what feeds it ---------------------------------------------------------------------------


@pytest.mark.parametrize(("layer", "size"), [("relu1", 5), ("relu2", 10), ("relu3", 20), ("relu4", 40)])
def test_a_field_holds_all_pixels_that_reach_a_unit_and_no_others(layer, size):
    row, column = 4, 3
    nudged = IMAGES[:1].clone().requires_grad_()
    parts = [part for name, part in MODEL.named_children() if name.startswith(("conv", "pool"))]
    smooth = [torch.nn.AvgPool2d(2) if isinstance(part, torch.nn.MaxPool2d) else part for part in parts]
    smooth = torch.nn.Sequential(*smooth[: 2 * scene_cnn.LAYERS.index(layer) + 1])  # nothing in it hides a pixel
    smooth(nudged)[0, 0, row, column].backward()
    rows, columns = np.nonzero(nudged.grad[0, 0].numpy())
    top, left, seen = cnn.field(layer, row, column)
    assert seen == size
    assert (rows.min(), columns.min()) == (max(top, 0), max(left, 0))
    assert (rows.max(), columns.max()) == (min(top + size, scenes.SIZE) - 1, min(left + size, scenes.SIZE) - 1)


@pytest.mark.parametrize("layer", scene_cnn.LAYERS)
def test_the_terms_of_a_unit_add_up_to_it(layer):
    x, channel, conv = IMAGES[:1], 3, layer.replace("relu", "conv")
    want = MAPS(MODEL, x, conv)[0, channel]
    for row, column in ((0, 0), (2, 5)):
        terms = cnn.feeding(MODEL, MAPS, x, layer, channel, row, column)
        bias = MODEL.get_submodule(conv).bias[channel].item()
        assert terms.sum() + bias == pytest.approx(want[row, column].item(), abs=1e-3)


def test_a_walk_goes_down_through_what_a_pool_passes_on():
    x = IMAGES[2:3]
    units = cnn.walk(MODEL, MAPS, x, "relu4", 3)
    assert [unit[0] for unit in units] == list(scene_cnn.LAYERS)[::-1]
    for (layer, channel, row, column), (lower, source, a, b) in pairwise(units):
        terms = cnn.feeding(MODEL, MAPS, x, layer, channel, row, column).sum((1, 2))
        assert source == terms.argmax()
        pooled = MAPS(MODEL, x, cnn.below(layer))[0, source, a // 2, b // 2]
        assert MAPS(MODEL, x, lower)[0, source, a, b] == pooled
        assert max(abs(a // 2 - row), abs(b // 2 - column)) <= 1


def test_a_recording_answers_as_the_model_does():
    look = cnn.Looks(MODEL, IMAGES, FUNCTIONS)
    for layer in scene_cnn.LAYERS:
        got = FUNCTIONS["top_patches"](look.recording, IMAGES, layer, 5, 4)
        want = FUNCTIONS["top_patches"](MODEL, IMAGES, layer, 5, 4)
        np.testing.assert_array_equal(np.array(got), np.array(want))
        patches = look.patches(layer, 5, 4)
        assert patches.shape == (4, *(cnn.geometry(layer)[0],) * 2)


def test_preferred_pictures_excite_more_than_noise_of_the_same_strength():
    look, rng = cnn.Looks(MODEL, IMAGES, FUNCTIONS), np.random.default_rng(0)
    for layer in ("conv1", "conv2", "conv3"):
        cut = cnn.upto(MODEL, layer)
        for channel in (0, 7):
            liked = look.preferred(layer.replace("conv", "relu"), channel)
            noise = rng.standard_normal(liked.shape)
            noise *= np.linalg.norm(liked) / np.linalg.norm(noise)
            canvas = np.zeros((2, 1, scenes.SIZE, scenes.SIZE), np.float32)
            side = len(liked)
            canvas[0, 0, 12 : 12 + side, 12 : 12 + side], canvas[1, 0, 12 : 12 + side, 12 : 12 + side] = liked, noise
            with torch.no_grad():
                found, other = cut(torch.from_numpy(canvas))[:, channel]
            assert found > other, (layer, channel)


def test_film_marks_channels_that_answer_to_nothing():
    (step, state), *_ = scene_cnn.snapshots()
    state["conv2.weight"][3], state["conv2.bias"][3] = 0, -1
    shares, alive = cnn.film([(step, state)], IMAGES, LABELS)
    assert shares.shape == (1, 8) and not alive[0, 1, 3] and alive[0, 1].sum() == scene_cnn.WIDTH - 1
    figure = cnn.scrubber([(step, state)] * 2, IMAGES, LABELS, MAPS)
    assert "channel 3" in figure.snapshot(layer="relu2")


# --- the figures -----------------------------------------------------------------------------------------------------


def test_every_control_moves_the_picture():
    for name, figure in figures().items():
        for key, control in figure.controls.items():
            before, changed = figure.snapshot(), figure.snapshot(**{key: other_value(control)})
            assert before != changed, (name, key)
            assert "lbl-error" not in changed and "nan" not in changed.replace("nance", ""), (name, key)


def test_every_move_is_quick_and_every_static_picture_small():
    for name, figure in figures().items():
        for key, control in figure.controls.items():
            assert seconds(lambda f=figure, k=key, c=control: f.snapshot(**{k: other_value(c)})) < 0.25, (name, key)
        assert len(figure._repr_mimebundle_()["text/html"]) < 30_000, name
    assert len(cnn.levels()) < 18_000
    assert len(cnn.hierarchy(MODEL, IMAGES, FUNCTIONS)) < 30_000


def test_the_button_walks_to_the_strongest_input():
    figure = cnn.microscope(MODEL, IMAGES, FUNCTIONS, image=2, layer="relu4", channel=3)
    button = figure.widget.children[0].children[-1]
    unit = cnn.walk(MODEL, MAPS, IMAGES[2:3], "relu4", 3)[1]
    button.click()
    assert (figure.values["layer"], figure.values["channel"]) == unit[:2]
    for _ in range(5):
        button.click()
    assert figure.values["layer"] == "relu1"


def test_a_wrong_function_is_named():
    wrong = FUNCTIONS | {"saliency": lambda model, x, target: 0 * FUNCTIONS["saliency"](model, x, target)}
    html = cnn.microscope(MODEL, IMAGES, wrong, FUNCTIONS).snapshot()
    assert "<code>saliency</code> differs" in html and html.count("differs from the reference") == 1


def test_a_dead_channel_is_called_dead():
    assert "is dead" in cnn.microscope(MODEL, IMAGES, FUNCTIONS).snapshot(layer="relu4", channel=8)
    html = cnn.trail(MODEL, IMAGES, FUNCTIONS, channel=8).snapshot()
    assert "is dead" in html and "lbl-error" not in html


def test_functions_still_to_be_written_are_named():
    stubs = {name: unwritten(function) for name, function in FUNCTIONS.items()}
    assert "first; run its cell" in cnn.microscope(MODEL, IMAGES, stubs, FUNCTIONS).snapshot()
    assert "first; run its cell" in cnn.maps(MODEL, stubs["activation_maps"]).snapshot()


def test_probes_say_where_a_level_is_most_readable():
    results = {name: values.copy() for name, values in RESULTS.items()}
    results["trained"][:, 2, 3] = 1.0
    figure = cnn.probes(results)
    html = figure.snapshot(level="object", network="both")
    assert "object at relu3 (100 %)" in html and "chance 25 %" in html and "relu4" in html
