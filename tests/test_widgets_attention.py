"""The interactive figures of lesson 18 and their tasks: what they compute, and that every control moves the picture."""

import numpy as np
import pytest

from autograder import reference
from course.data import patterns
from course.widgets import attention
from tests.figures import each_control_changes, seconds, spoiled, unwritten

LOOKS, ATTENDS, BACK = (reference(f"attention_{name}") for name in ("weights", "forward", "backward"))
RNG = np.random.default_rng(0)
SAMPLES = {task: patterns.sample(task, 3, RNG) for task in patterns.NAMES}


def answer(task, moment, on):
    """Made-up weights and answers: later snapshots are better, a head that is off costs answers."""
    pattern, rng = SAMPLES[task], np.random.default_rng(moment)
    w = rng.dirichlet(np.ones(pattern.mask.shape[-1]), (3, 2, pattern.mask.shape[1])) * pattern.mask[:, None]
    wrong = rng.random(pattern.targets.shape) < 0.4 * (2 - len(on)) + 0.1 * (2 - moment)
    return w, np.where(wrong, 0, np.maximum(pattern.targets, 0))


# --- the tasks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", patterns.NAMES)
def test_the_right_keys_are_allowed_and_tell_the_answer(task):
    batch = patterns.sample(task, 100, np.random.default_rng(1))
    n, t_q, t_k = batch.right.shape
    assert batch.queries.shape[:2] == batch.targets.shape == (n, t_q)
    assert batch.keys.shape[:2] == (n, t_k) and batch.mask.shape == (n, t_q, t_k)
    asked = batch.targets >= 0
    assert not (batch.right & ~batch.mask).any()
    np.testing.assert_array_equal(batch.right.any(-1), asked)
    for i, q in np.argwhere(asked):
        names = [batch.key_labels[i][k] for k in np.flatnonzero(batch.right[i, q])]
        named = patterns.NAMES[task][batch.targets[i, q]]
        if task == "compare":
            mine, other = batch.key_labels[i][q], batch.key_labels[i][patterns.LENGTH - 1 - q]
            assert set(names) == {mine, other} and (named == "<") == (mine < other)
        else:
            assert names == [named]


def test_sorted_letters_come_out_in_order_and_brackets_close_the_last_open_one():
    batch = patterns.sample("sort", 50, np.random.default_rng(2))
    for targets, labels in zip(batch.targets, batch.key_labels, strict=True):
        named = "".join(patterns.LETTERS[k] for k in targets if k >= 0)
        assert named == "".join(sorted(labels)) and patterns.SHORTEST <= len(named) <= patterns.LENGTH
    batch = patterns.sample("brackets", 50, np.random.default_rng(2))
    for right, labels in zip(batch.right, batch.key_labels, strict=True):
        waiting = []
        for i, label in enumerate(labels):
            if label == patterns.CLOSE:
                assert right[i].argmax() == waiting.pop()
            elif label:
                waiting.append(i)
        assert not waiting


def test_the_same_seed_gives_the_same_batch_and_an_unknown_task_is_refused():
    one, two = (patterns.sample("brackets", 5, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one.keys, two.keys)
    with pytest.raises(ValueError, match="'swap'; there are copy, reverse"):
        patterns.sample("swap", 1, RNG)


# --- what the figures compute ----------------------------------------------------------------------------------------


def test_the_output_stays_between_the_values_and_is_zero_where_nothing_is_seen():
    q, k, v, mask = attention.plane(60, 1.5, 20, 30, (True, True, True))
    y = ATTENDS(q, k, v, mask)[0]
    shares = np.linalg.solve(np.vstack([v.T, np.ones(3)]), [*y, 1])
    np.testing.assert_allclose(shares, LOOKS(q, k, mask)[0])
    q, k, v, mask = attention.plane(60, 1.5, 20, 30, (False, False, False))
    np.testing.assert_array_equal(ATTENDS(q, k, v, mask), [[0, 0]])


def test_scores_spread_like_the_root_of_the_size():
    for size in attention.SIZES[1:]:
        assert attention.saturation(size, False)[0].std() == pytest.approx(np.sqrt(size), rel=0.2)
        assert attention.saturation(size, True)[0].std() == pytest.approx(1, rel=0.2)
    assert (
        attention.slope(attention.saturation(1024, False)[1])
        < 0.1
        < attention.slope(attention.saturation(1024, True)[1])
    )


@pytest.mark.parametrize("kind", attention.KINDS)
def test_masks_are_what_they_are_called(kind):
    q, k, _, mask = attention.layer_inputs(kind)
    if kind in ("none", "three queries"):
        assert mask is None and len(q) == (3 if kind == "three queries" else 5)
    else:
        assert mask.shape == (len(q), len(k))
        assert ("causal" in kind) == (not np.triu(mask, 1).any())
        assert (kind == "padding in front, causal") == (not mask.any(-1).all())


@pytest.mark.parametrize(
    "question", [attention.guess_length(reference), attention.guess_spread(), attention.guess_shuffled(reference)]
)
def test_a_guess_is_answered(question):
    assert question.verdict(question.answer).startswith("Yes")
    assert 'class="lbl-error"' not in question.reveal()


def test_the_first_picture_says_what_it_shows():
    html = attention.diagram()
    assert 'role="img"' in html and html.count("key of") == html.count("value of") == 4


# --- the figures -----------------------------------------------------------------------------------------------------


def figures(change=None):
    """The figures that show the learner's functions; `change` spoils these."""
    change = change or (lambda f: f)
    return {
        "one layer": attention.one_layer(change(LOOKS), change(ATTENDS), LOOKS, ATTENDS),
        "one gradient": attention.one_gradient(change(BACK), BACK),
    }


EVERY = figures() | {
    "vectors": attention.vectors(LOOKS, ATTENDS),
    "scaling": attention.scaling(),
    "heads": attention.heads(SAMPLES, answer, lambda w, pattern: [0.5, 0.25], [0, 10, 20]),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_control_changes_the_picture(name):
    explorer = EVERY[name]
    before = explorer.snapshot()
    assert 'class="lbl-error"' not in before and 'class="lbl-differs"' not in before and ">nan<" not in before
    each_control_changes(explorer, before)


@pytest.mark.parametrize("kind", attention.KINDS)
@pytest.mark.parametrize("row", [0, 4])
def test_every_mask_is_drawn(kind, row):
    for name in ("one layer", "one gradient"):
        html = EVERY[name].snapshot(kind=kind, row=row)
        assert 'class="lbl-error"' not in html and "same as the reference" in html


@pytest.mark.parametrize("task", patterns.NAMES)
def test_every_task_is_drawn_and_wrong_answers_stand_out(task):
    html = EVERY["heads"].snapshot(task=task, example=2, first=False, second=False)
    assert html.count("lbl-off") >= 2 and 'class="lbl-error"' not in html
    assert "class=lbl-differs" in html


@pytest.mark.parametrize("name", figures())
def test_wrong_answers_show_beside_the_reference(name):
    html = figures(spoiled)[name].snapshot()
    assert "lbl-differs" in html and "differ" in html


@pytest.mark.parametrize("name", figures())
def test_an_unwritten_function_is_said_and_not_raised(name):
    assert 'class="lbl-error"' in figures(unwritten)[name].snapshot()


@pytest.mark.parametrize("name", EVERY)
def test_a_step_of_a_slider_is_fast(name):
    largest = {"task": "brackets"} if name == "heads" else {"size": 1024} if name == "scaling" else {}
    assert seconds(lambda: EVERY[name].snapshot(**largest)) < 0.05
