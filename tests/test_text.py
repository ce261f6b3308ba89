"""The written language of lessons 16, 17 and 19: its entropy, its true probabilities, its agreement."""

import numpy as np
import pytest

from course.data import text


def test_a_text_has_its_length_and_is_the_same_for_the_same_seed():
    assert len(text.sample(1234, 0)) == 1234
    assert text.sample(1000, 0) == text.sample(2000, 0)[:1000] != text.sample(1000, 1)
    assert "".join(text.sentences(9, 0)) == text.sample(100, 0) + "".join(text.sentences(9, 0))[100:]


def test_characters_and_numbers_go_over_into_each_other():
    string = text.sample(500, 3)
    assert text.decode(text.encode(string)) == string
    assert set(text.sample(50_000, 1)) == set(text.CHARACTERS)
    with pytest.raises(KeyError):
        text.encode("Q")


def test_the_entropy_rate_is_what_the_true_probabilities_cost():
    string = text.sample(100_000, 2)
    bits = -np.log2(text.probabilities(string)[np.arange(len(string)), text.encode(string)])
    ends = np.flatnonzero(text.encode(string) == 0) + 1
    spread = np.std([part.sum() for part in np.split(bits, ends)]) * np.sqrt(len(ends)) / len(bits)
    assert abs(bits.mean() - text.ENTROPY_RATE) < 4 * spread < 0.02


def test_the_true_probabilities_are_those_of_many_texts():
    string = text.sample(200_000, 4)
    after = [string[k + 4] for k in range(len(string) - 4) if string[k : k + 4] == "\na b"]
    row = text.probabilities("a bo")[-1]
    found = np.array([after.count(c) for c in text.CHARACTERS]) / len(after)
    assert row.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, row, atol=0.05)


def test_what_is_not_in_the_language_is_named():
    with pytest.raises(ValueError, match="goes on with 's' after 'two dogs sleep'"):
        text.probabilities("two dogs sleeps.\n")


def test_a_verb_shows_the_number_of_its_subject_at_any_distance():
    line = "the dog near two cats sleeps.\nthe dogs near a cat see a boy.\n"
    places, distances = text.agreements(line)
    assert [line[place] for place in places] == ["s", " "]
    assert [line[place - distance] for place, distance in zip(places, distances, strict=True)] == ["g", "s"]
    certain = text.probabilities(line)[places, text.encode(line)[places]]
    assert certain.tolist() == [1, 1]
