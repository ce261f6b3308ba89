"""Scenes with known truth: what is drawn, that labels are true of it, and that brightness tells nothing."""

import numpy as np
import pytest

from course.data import scenes
from tests.figures import seconds


def nearest_mean(features, labels):
    """The accuracy of the nearest class mean, fitted on the first half and tested on the second."""
    features = (features - features.mean(0)) / features.std(0)
    half = len(labels) // 2
    means = np.stack([features[:half][labels[:half] == k].mean(0) for k in range(labels.max() + 1)])
    guess = ((features[half:, None] - means) ** 2).sum(2).argmin(1)
    return (guess == labels[half:]).mean()


@pytest.mark.parametrize("level", scenes.LEVELS)
def test_images_and_labels_are_what_they_are_said_to_be(level):
    images, labels = scenes.sample(level, 96, seed=3)
    assert images.shape == (96, 1, scenes.SIZE, scenes.SIZE) and images.dtype == np.float32
    assert np.abs(images).max() < 1.5 and abs(images.mean()) < 0.1
    assert np.bincount(labels).tolist() == [96 // len(scenes.CLASSES[level])] * len(scenes.CLASSES[level])


@pytest.mark.parametrize("level", scenes.LEVELS)
def test_a_seed_is_a_drawing(level):
    first, again, other = (scenes.sample(level, 20, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


@pytest.mark.parametrize("level", scenes.LEVELS)
def test_brightness_and_contrast_tell_no_class(level):
    images, labels = scenes.sample(level, 2000, seed=0)
    pixels = images.reshape(len(images), -1)
    features = np.stack([pixels.mean(1), pixels.std(1), pixels.min(1), pixels.max(1)], axis=1)
    chance = 1 / len(scenes.CLASSES[level])
    assert nearest_mean(features[:, :2], labels) < chance + 0.06
    assert nearest_mean(features, labels) < 1.5 * chance


def test_labels_of_a_scene_are_true_of_it_and_tell_nothing_of_each_other():
    _, labels = scenes.scenes(4000, seed=0)
    pairs = [scenes.CLASSES["scene"][k].split(", ") for k in labels["scene"][:50]]
    for pair, present in zip(pairs, labels["object"], strict=False):
        assert {name for name, there in zip(scenes.OBJECTS, present, strict=True) if there} == set(pair)
    singles = {name: values for name, values in labels.items() if name != "object"}
    for a, first in singles.items():
        for b, second in singles.items():
            if a < b:
                together = np.histogram2d(first, second, [first.max() + 1, second.max() + 1])[0] / len(first)
                assert np.abs(together - together.mean()).max() < 0.35 * together.mean(), (a, b)


def test_every_scene_is_made_of_the_same_shapes():
    shapes = [
        sorted(shape for name in pair.split(", ") for shape in scenes.OBJECTS[name]) for pair in scenes.CLASSES["scene"]
    ]
    assert all(bag == shapes[0] for bag in shapes) and len(set(scenes.CLASSES["scene"])) == 8


def test_edges_run_as_their_names_say():
    images, labels = scenes.sample("edge", 400, seed=5)
    down, right = np.gradient(images[:, 0], axis=(1, 2))
    angle = np.arctan2((2 * down * right).sum((1, 2)), (right**2 - down**2).sum((1, 2))) / 2  # of the gradient
    line = np.rad2deg(angle) + 90  # rows count downwards: 45 degrees falls to the right
    off = (line - 45 * labels + 90) % 180 - 90
    assert np.abs(off).max() < 20


def test_textures_repeat_and_have_no_orientation_in_common():
    images, labels = scenes.sample("texture", 200, seed=6)
    spectrum = np.abs(np.fft.fft2(images[:, 0] - images[:, 0].mean((1, 2), keepdims=True)))
    strongest = spectrum.reshape(200, -1).argmax(1)
    for kind in range(4):
        rows, columns = np.divmod(strongest[labels == kind], scenes.SIZE)
        angle = np.arctan2((rows + 24) % 48 - 24, (columns + 24) % 48 - 24) % np.pi
        assert np.histogram(angle, 4, (0, np.pi))[0].min() > 0, scenes.CLASSES["texture"][kind]


def test_an_unknown_level_is_refused_by_name():
    with pytest.raises(ValueError, match="no level named 'face': there are edge, texture"):
        scenes.sample("face", 4, 0)


def test_two_thousand_scenes_are_drawn_in_two_seconds():
    assert seconds(lambda: scenes.scenes(500, 0)) < 0.5
