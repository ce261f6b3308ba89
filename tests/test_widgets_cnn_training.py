"""The small figure of lesson 11's first half."""

import numpy as np

from course.widgets import cnn_training

RESULTS = {"CNN": np.array([[0.97, 0.5], [0.95, 0.6]]), "MLP": np.array([[0.95, 0.4], [0.97, 0.44]])}


def test_moving_an_image_takes_its_pixels_along():
    image = np.arange(12.0).reshape(1, 1, 3, 4)
    np.testing.assert_array_equal(cnn_training.moved(image, 1, 0)[0, 0], [[0, 0, 0, 0], [0, 1, 2, 3], [4, 5, 6, 7]])
    np.testing.assert_array_equal(cnn_training.moved(image, 0, -1)[0, 0, 0], [1, 2, 3, 0])
    np.testing.assert_array_equal(cnn_training.moved(image, 0, 0), image)


def test_the_table_holds_means_and_tells_each_seed():
    html = cnn_training.table(RESULTS)
    assert ">96<" in html and ">55<" in html and "50, 60 %" in html


def test_the_answer_is_what_was_measured():
    guess = cnn_training.guess_moved(RESULTS, "CNN")
    assert guess.answer == 55
    assert guess.verdict("52").endswith("Close enough.")
    assert "55" in guess.reveal()
