"""The interactive figures of lesson 19: what they compute, and that every control moves the picture."""

import numpy as np
import pytest

from autograder import reference
from course.data import text, translation
from course.widgets import transformer
from tests.figures import each_control_changes, seconds, spoiled, unwritten

RNG = np.random.default_rng(0)
PAIRS = translation.sample(6, 0)
SHAPE = 6, translation.LENGTH, len(translation.TARGET)


def shares(*shape):
    p = RNG.random(shape)
    return p / p.sum(-1, keepdims=True)


def next_logits(texts):
    """A made-up model that knows the last character only."""
    last = text.encode("".join(written[-1] for written in texts))
    return 3 * np.random.default_rng(1).normal(size=(27, 27))[last]


def figures(change=None):
    """The figures that show the learner's functions; `change` spoils these."""
    change = change or (lambda f: f)
    pairs = {name: (change(reference(name)), reference(name)) for name in
             ("sinusoidal_positions", "rope_forward", "transformer_block_backward", "top_k_probabilities")}  # fmt: skip
    return {
        "positions": transformer.positions(*pairs["sinusoidal_positions"]),
        "rope": transformer.rope(*pairs["rope_forward"]),
        "block": transformer.block_gradient(*pairs["transformer_block_backward"]),
        "next token": transformer.next_token(next_logits, *pairs["top_k_probabilities"]),
    }


EVERY = figures() | {
    "order": transformer.order(reference),
    "fill in": transformer.fill_in(PAIRS.target, shares(*SHAPE), shares(*SHAPE)),
    "alignments": transformer.alignments(shares(6, 2, translation.LENGTH, translation.LENGTH), PAIRS),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_control_changes_the_picture(name):
    explorer = EVERY[name]
    before = explorer.snapshot()
    assert 'class="lbl-error"' not in before and "from the reference" not in before and ">nan<" not in before
    each_control_changes(explorer, before)


@pytest.mark.parametrize("question", [transformer.guess_order(reference), transformer.guess_temperature()])
def test_a_guess_is_answered(question):
    assert question.verdict(question.answer).startswith("Yes")
    assert 'class="lbl-error"' not in question.reveal()


def test_every_kind_of_block_is_drawn():
    html = transformer.diagrams(*transformer.BLOCKS)
    assert html.count('role="img"') == 3 and html.count(">norm<") == 7


def test_without_positions_a_sentence_is_a_set_unless_it_is_read_from_the_left():
    first, turned = (transformer.ORDERS[name] for name in ("dog bites man", "man bites dog"))

    def changed(positions, masked):
        one, two = (transformer.meanings(reference, order, positions, masked) for order in (first, turned))
        return np.abs(one - two).max() > 1e-6

    assert not changed(False, False)
    assert changed(True, False) and changed(False, True)


def test_the_rotary_score_depends_on_the_distance_alone():
    rope = reference("rope_forward")
    scores = transformer.rotary_score(rope, np.array([5, 9, 23]), np.array([2, 6, 20]))
    np.testing.assert_allclose(scores, scores[0])
    assert abs(transformer.rotary_score(rope, 5, 3) - scores[0]) > 1e-3


def test_the_truth_follows_the_language():
    singular, plural = (transformer.truth(start) for start in transformer.STARTS[-1:-3:-1])
    s, space = text.encode("s ")
    assert singular[s] == 1 and plural[space] == 1
    assert transformer.truth("dog the") is None


def test_what_leaves_the_language_is_found():
    assert transformer.inside("the dog sings.") == len("the dog sings.")
    assert transformer.inside("the dogs sings.") == len("the dogs sing")
    assert "<s " in transformer._written("the ", "the dogs sings.")


def test_the_same_seed_draws_the_same_sentences():
    def drawn(seed):
        return transformer.continued(next_logits, reference("top_k_probabilities"), "the ", 1.0, 5, seed)

    assert drawn(3) == drawn(3) != drawn(4)
    assert all(line.startswith("the ") for line in drawn(3))


@pytest.mark.parametrize("name", figures())
def test_wrong_answers_show_beside_the_reference(name):
    html = figures(spoiled)[name].snapshot()
    assert "from the reference" in html or 'class="lbl-differs"' in html


@pytest.mark.parametrize("name", figures())
def test_an_unwritten_function_is_said_and_not_raised(name):
    assert 'class="lbl-error"' in figures(unwritten)[name].snapshot()


@pytest.mark.parametrize("name", EVERY)
def test_a_step_of_a_slider_is_fast(name):
    assert seconds(EVERY[name].snapshot, times=3) < (0.25 if name == "next token" else 0.06)


def test_a_translation_keeps_what_is_said():
    words = ["wai", "kulo", "ebi", "brat", "mira", "oxo"]
    assert translation.english(words) == "today dog old sees cat red"
    assert translation.translate(words) == ["karma", "binep", "lisko", "sotul", "zilfe", "quon"]
    assert translation.alignment(words) == [(2, 1), (1,), (5, 4), (4,), (3,), (0,)]


def test_held_back_pairs_occur_only_where_they_are_asked_for():
    def kinds(sentences):
        found = set()
        for row in sentences.source:
            words = [translation.SOURCE[j] for j in row if j]
            found |= {(words[a[0]], words[a[1]]) for a in translation.alignment(words) if len(a) == 2}
        return found

    usual, unseen = (kinds(translation.sample(800, 1, unseen=flag)) for flag in (False, True))
    assert len(usual) == 60 and len(unseen - usual) == 12
