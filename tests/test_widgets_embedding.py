"""The interactive figures of lesson 15, and the data behind them: what they compute, and that every control acts."""

import numpy as np
import pytest

from autograder import reference
from course.data import language
from course.data.ratings import ratings
from course.widgets import embedding
from tests.figures import each_control_changes, seconds, spoiled, unwritten

LOOKUP = [reference(name) for name in ("embedding_forward", "embedding_backward")]
SKIPGRAM = [reference(name) for name in ("skipgram_loss_forward", "skipgram_loss_backward")]
LANG = language.language(2000, np.random.default_rng(0), noise=0.3)
GROUPS = {kind: group for kind, (_, group, _) in language.KINDS.items()} | dict.fromkeys(language.JOBS, "job")
RNG = np.random.default_rng(0)


def ideal():
    """A table in which every noun is the sum of what it means."""
    parts = {}
    for word, noun in LANG.nouns.items():
        for part in noun:
            parts.setdefault(part, RNG.normal(size=6))
        yield word, sum(parts[part] for part in noun)


TRUE = dict(ideal())
TABLE = np.array([TRUE.get(word, RNG.normal(size=6)) for word in LANG.words])
SNAPSHOTS = [share * TABLE + 0.01 * RNG.normal(size=TABLE.shape) for share in (0.0, 0.5, 1.0)]
STARS = ratings(np.random.default_rng(0))


# --- data ------------------------------------------------------------------------------------------------------------


def test_analogies_are_all_that_are_valid():
    for changed, count in (("gender", 48 * 23), ("number", 48 * 23), ("kind", 48 * 11 * 3)):
        quads = language.analogies(LANG, changed)
        assert quads.shape == (count, 4) and len(np.unique(quads, axis=0)) == count
        for quad in quads[:: count // 40]:
            assert len(set(quad.tolist())) == 4
            a, b, c, d = (LANG.nouns[LANG.words[k]] for k in quad)
            assert a._replace(**{changed: getattr(b, changed)}) == b
            assert c._replace(**{changed: getattr(b, changed)}) == d
            assert getattr(a, changed) == getattr(c, changed)


def test_words_around_a_noun_go_by_its_meaning():
    sure = language.language(400, np.random.default_rng(1), noise=0.0)
    for sentence in sure.sentences:
        number, adjective, noun, verb, gender, thing = (sure.words[k] for k in sentence)
        meaning = sure.nouns[noun]
        assert number in language.NUMBERS[meaning.number] and adjective in language.ADJECTIVES
        if meaning.gender:
            _, group, things = language.KINDS[meaning.kind]
            assert gender == language.GENDERS[meaning.gender]
            assert verb in language.VERBS[group] and thing in things.split()
        else:
            assert verb in language.VERBS["job"] and thing in language.JOBS[meaning.kind][1].split()


def test_noise_replaces_the_gender_word_as_often_as_it_says():
    noisy = language.language(20000, np.random.default_rng(2), noise=0.3)
    kings = noisy.sentences[noisy.sentences[:, language.NOUN] == noisy.ids("king")[0]]
    assert (kings[:, 4] == noisy.ids("his")[0]).mean() == pytest.approx(0.85, abs=0.04)


def test_the_factors_behind_the_ratings_are_balanced():
    assert np.allclose(STARS.p.T @ STARS.p, STARS.q.T @ STARS.q)
    assert (STARS.p @ STARS.q.T).std() == pytest.approx(1, abs=0.02)
    rest = STARS.stars - (STARS.p[STARS.users] * STARS.q[STARS.items]).sum(1)
    assert rest.std() == pytest.approx(0.5, abs=0.03)
    assert len({*zip(STARS.users, STARS.items, strict=True)}) == len(STARS.users)


# --- what the figures compute ----------------------------------------------------------------------------------------


def test_without_negatives_everything_is_believed_and_with_them_the_topics_part():
    tables, losses = embedding.tug(*SKIPGRAM, 0, embedding.MOST)
    assert losses[-1] < 0.02 and min(embedding.believed(tables[-1])) > 0.9
    tables, _ = embedding.tug(*SKIPGRAM, 2, embedding.MOST)
    true, across = embedding.believed(tables[-1])
    assert true > across + 0.25


@pytest.mark.parametrize("which", embedding.AXES)
def test_the_axes_of_the_map_are_orthonormal(which):
    nouns = list(LANG.nouns.values())
    axes = embedding.axes_of(TABLE[[LANG.words.index(word) for word in LANG.nouns]], nouns, which)
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-12)


def test_sums_of_meanings_have_parallel_differences_and_noise_has_not():
    nouns = list(LANG.nouns.values())
    assert min(embedding.parallel(np.array(list(TRUE.values())), nouns).values()) > 0.999
    assert max(embedding.parallel(RNG.normal(size=(len(nouns), 30)), nouns).values()) < 0.2


def test_neighbours_are_sorted_and_leave_the_word_out():
    for measure in ("cosine", "dot product"):
        order, similarity = embedding.nearest(TABLE, 3, measure)
        assert 3 not in order and (np.diff(similarity) <= 0).all()


def test_procrustes_is_at_least_as_near_as_any_angle():
    found = STARS.p @ embedding.turn_by(130, True)
    best = embedding.distance(found @ reference("procrustes")(found, STARS.p), STARS.p)
    by_hand = [embedding.distance(found @ embedding.turn_by(a, m), STARS.p) for a in range(0, 360, 5) for m in (0, 1)]
    assert best < 1e-9 <= min(by_hand) + 1e-9


# --- the figures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "question",
    [embedding.guess_repeat(reference), embedding.guess_no_negatives(reference), embedding.guess_inputs(0.67)],
)
def test_a_guess_is_answered(question):
    assert question.verdict(question.answer).startswith("Yes")
    assert 'class="lbl-error"' not in question.reveal()


def figures(change=lambda f: f):
    """The figures that show the learner's functions; `change` spoils these."""
    lookup, skipgram, turn = ([change(f) for f in fs] for fs in (LOOKUP, SKIPGRAM, [reference("procrustes")]))
    factors = (STARS.p @ embedding.turn_by(40, False), STARS.q @ embedding.turn_by(40, False)), (STARS.p, STARS.q)
    return {
        "lookup": embedding.lookup(*lookup, *LOOKUP),
        "tug": embedding.tug_of_war(*skipgram, *SKIPGRAM),
        "turned": embedding.turned(*factors, turn[0], reference("procrustes")),
    }


EVERY = figures() | {
    "map": embedding.word_map(SNAPSHOTS, 100, LANG.words, LANG.nouns, GROUPS),
    "neighbours": embedding.neighbours(TABLE, LANG.words, np.arange(len(LANG.words)), "king"),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_control_changes_the_picture(name):
    explorer = EVERY[name]
    for start in ({}, {"steps": 20} if name == "tug" else {}):
        before = explorer.snapshot(**start)
        assert 'class="lbl-error"' not in before and 'class="lbl-differs"' not in before and "nan" not in before
    each_control_changes(explorer, before, **start)


def test_the_map_moves_without_a_kernel():
    html = EVERY["map"]._static()
    assert html.count('class="lbl-frame"') == 3 and 'type="range"' in html and "oninput" in html


@pytest.mark.parametrize("values", [dict(group="royal", lines=""), dict(lines="number"), dict(axes=embedding.AXES[1])])
def test_maps_of_all_kinds_are_drawn(values):
    html = EVERY["map"].snapshot(**values)
    assert 'class="lbl-error"' not in html and "nan" not in html


SETTINGS = {"lookup": {}, "tug": {"steps": 5}, "turned": {"best": True}}


@pytest.mark.parametrize("name", SETTINGS)
def test_wrong_answers_show_beside_the_reference(name):
    mark = ">loss: reference<" if name == "tug" else 'class="lbl-differs"'
    assert mark in figures(spoiled)[name].snapshot(**SETTINGS[name])
    assert mark not in figures()[name].snapshot(**SETTINGS[name])


@pytest.mark.parametrize("name", SETTINGS)
def test_an_unwritten_function_is_said_and_not_raised(name):
    assert 'class="lbl-error"' in figures(unwritten)[name].snapshot(**SETTINGS[name])


@pytest.mark.parametrize("name", EVERY)
def test_a_step_of_a_slider_is_fast(name):
    assert seconds(lambda: EVERY[name].snapshot(**({"steps": embedding.MOST} if name == "tug" else {}))) < 0.06
