"""Two invented languages and the exact translation between them, word order and agreement included.

The source says [time] subject verb object, adjectives behind their nouns; the target says subject object verb [time],
adjectives before their nouns and with the ending, -a or -o, that the noun's class asks for. So the word orders differ,
every target word comes from one known source word, and an adjective's ending needs a second one: its noun.
"""

from typing import NamedTuple

import numpy as np

__all__ = [
    "CLASSES", "ENTROPY", "LENGTH", "SOURCE", "START", "TARGET", "Sentences",
    "alignment", "english", "sample", "translate",
]  # fmt: skip

STOP, START = ".", "<start>"
# English, source, target; nouns and adjectives of the target are stems, of the adjectives the ending is lacking.
NOUNS = (
    ("dog", "kulo", "binep"), ("cat", "mira", "sotul"), ("king", "dran", "fekil"), ("bird", "pelu", "gamos"),
    ("child", "tibo", "rivan"), ("fish", "zena", "holim"), ("girl", "vask", "netur"), ("bear", "lomi", "dakes"),
    ("witch", "rufa", "jolin"), ("horse", "gedo", "wamur"), ("baker", "sinu", "pirok"), ("snake", "hask", "timel"),
)  # fmt: skip
ADJECTIVES = (
    ("old", "ebi", "karm"), ("red", "oxo", "lisk"), ("small", "uti", "vend"), ("angry", "ama", "hurt"),
    ("clever", "iso", "pralt"), ("sad", "eku", "nomb"),
)  # fmt: skip
VERBS = (
    ("sees", "brat", "zilfe"), ("hears", "clem", "rovne"), ("follows", "frin", "tulke"), ("helps", "grun", "masde"),
    ("fears", "plod", "welte"), ("finds", "stev", "birge"), ("knows", "trom", "feshe"), ("calls", "snib", "dorle"),
)  # fmt: skip
TIMES = (("today", "wai", "quon"), ("often", "yau", "quib"), ("never", "wei", "quem"), ("again", "yui", "quas"))
CLASSES = np.array([0, 1, 0, 0, 1, 1, 0, 1, 1, 0, 1, 0])  # of the nouns: -a or -o; nothing in their form tells
ENDINGS = ("a", "o")

SOURCE = (STOP, *(word for group in (NOUNS, ADJECTIVES, VERBS, TIMES) for _, word, _ in group))
TARGET = (STOP, *(word for _, _, word in NOUNS), *(stem + ending for _, _, stem in ADJECTIVES for ending in ENDINGS),
          *(word for group in (VERBS, TIMES) for _, _, word in group), START)  # fmt: skip
LENGTH = 7  # of the longest sentence, its stop included
HELD_BACK = 1 / 6  # of the pairs of noun and adjective


def _entropy():
    """Nats per place of a sentence (LENGTH of them, stops included): what a perfect model of either language loses.

    A noun phrase has an adjective in 5 of 11 cases: every second is drawn with one, a sixth of those is drawn anew.
    """
    count, kept = len(NOUNS) * len(ADJECTIVES), 1 - HELD_BACK
    p = kept / (1 + kept)
    phrase = p * np.log(count * kept / p) + (1 - p) * np.log(len(NOUNS) / (1 - p))
    return float(2 * phrase + np.log(len(VERBS)) + np.log(2) + np.log(len(TIMES)) / 2) / LENGTH


ENTROPY = _entropy()
_ENGLISH = {word: gloss for group in (NOUNS, ADJECTIVES, VERBS, TIMES) for gloss, word, _ in group}
_OF = {word: number for group in (NOUNS, ADJECTIVES, VERBS, TIMES) for number, (_, word, _) in enumerate(group)}
_KIND = {word: kind for kind, group in enumerate((NOUNS, ADJECTIVES, VERBS, TIMES)) for _, word, _ in group}
_NOUN, _ADJECTIVE, _VERB, _TIME = range(4)


class Sentences(NamedTuple):
    """Pairs of sentences as numbers (n, LENGTH) of words in SOURCE and TARGET; stops fill up the shorter ones."""

    source: np.ndarray
    target: np.ndarray


def sample(n, seed, unseen=False):
    """n pairs of sentences.

    One sixth of the pairs of noun and adjective are held back: none of them occurs, unless `unseen`, and then at least
    one does in every sentence.
    """
    rng, found = np.random.default_rng(seed), []
    while len(found) < n:
        words = _drawn(rng)
        if _held_back(words) == unseen:
            found.append(words)
    return Sentences(_numbers(found, SOURCE), _numbers([translate(words) for words in found], TARGET))


def translate(words):
    """The words of a target sentence for those of a source sentence, without stops."""
    return [_word(words, places) for places in alignment(words)]


def alignment(words):
    """For each word of the translation, the places in the source that decide it: its own word's first, then others."""
    time = [place for place, word in enumerate(words) if _KIND[word] == _TIME]
    (verb,) = (place for place, word in enumerate(words) if _KIND[word] == _VERB)
    subject, thing = (noun for noun, word in enumerate(words) if _KIND[word] == _NOUN)
    places = []
    for noun in (subject, thing):
        if noun + 1 < len(words) and _KIND[words[noun + 1]] == _ADJECTIVE:
            places.append((noun + 1, noun))
        places.append((noun,))
    return [*places, (verb,), *((place,) for place in time)]


def english(words):
    """What a source sentence says, word for word."""
    return " ".join(_ENGLISH[word] for word in words)


def _drawn(rng):
    """A source sentence: every word equally likely; adjectives and the time in every second sentence."""
    words = [_any(rng, TIMES)] if rng.random() < 0.5 else []
    for part in (NOUNS, VERBS, NOUNS):
        words.append(_any(rng, part))
        if part is NOUNS and rng.random() < 0.5:
            words.append(_any(rng, ADJECTIVES))
    return words


def _any(rng, group):
    return group[rng.integers(len(group))][1]


def _held_back(words):
    pairs = ((words[a[1]], words[a[0]]) for a in alignment(words) if len(a) == 2)
    return any((_OF[noun] + _OF[adjective]) % 6 == 0 for noun, adjective in pairs)


def _word(words, places):
    """The target word that the source words at these places decide."""
    word = words[places[0]]
    form = (NOUNS, ADJECTIVES, VERBS, TIMES)[_KIND[word]][_OF[word]][2]
    return form if len(places) == 1 else form + ENDINGS[CLASSES[_OF[words[places[1]]]]]


def _numbers(sentences, vocabulary):
    number, table = {word: k for k, word in enumerate(vocabulary)}, np.zeros((len(sentences), LENGTH), int)
    for row, words in zip(table, sentences, strict=True):
        row[: len(words)] = [number[word] for word in words]
    return table
