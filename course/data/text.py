"""A small written language whose entropy rate is known: sentences of a probabilistic grammar, one per line.

"the young queen near two dogs sees herself.": the subject decides, over any distance, whether the verb ends in s
and which pronoun refers to it. Each word is drawn from a state, and the word decides the state that follows, so a
text can be read in one way only: its entropy is that of the words' choices, and the true distribution of the next
character, given all before it, is known at every place.
"""

import re
from collections.abc import Iterator
from functools import cache

import numpy as np

__all__ = [
    "CHARACTERS",
    "ENTROPY_RATE",
    "agreements",
    "decode",
    "encode",
    "probabilities",
    "sample",
    "sentences",
]

PRONOUNS = {"he": "himself", "she": "herself", "it": "itself", "they": "themselves"}
NOUNS = {"dog": ("it", 5), "girl": ("she", 4), "cat": ("it", 3), "king": ("he", 3), "queen": ("she", 2),
         "boy": ("he", 2), "bird": ("it", 1)}  # fmt: skip
ADJECTIVES = {"small": 4, "young": 3, "red": 2, "big": 1}
ALONE = {"sleep": 4, "sing": 2, "jump": 2}  # verbs without an object
WITH = {"see": 4, "like": 3, "help": 2}  # verbs with one
DETERMINERS = {"the": 5, "a": 3, "two": 2}


def _phrase(determiner: str, again, then, end: str = " ") -> dict:
    """What follows a determiner: an adjective, and `again`; a noun, and then(its class). Word -> (weight, state)."""
    words = {adjective + " ": (0.3 * weight, again) for adjective, weight in ADJECTIVES.items()}
    for noun, (kind, weight) in NOUNS.items():
        if determiner != "two":
            words[noun + end] = (0.35 * weight, then(kind))
        if determiner != "a":
            words[noun + "s" + end] = (0.25 * weight, then("they"))
    return words


def _grammar() -> dict:
    """State -> {word with the characters after it: (weight, next state)}; a sentence runs from "start" to "end"."""
    states: dict = {"start": {}}
    for determiner, weight in DETERMINERS.items():
        subject, thing = ("subject", determiner), ("object", determiner)
        states["start"][determiner + " "] = (weight, subject)
        states[subject] = _phrase(determiner, subject, lambda kind: ("verb", kind))
        states[thing] = _phrase(determiner, thing, lambda kind: "end", end=".\n")
        for kind in PRONOUNS:
            place = ("near", determiner, kind)
            states[place] = _phrase(determiner, place, lambda _, kind=kind: ("verb", kind))
    for kind, pronoun in PRONOUNS.items():
        s = "" if kind == "they" else "s"
        near, object_ = ("near", kind), ("object of", kind)
        states["verb", kind] = {"near ": (8, near)}
        states["verb", kind] |= {verb + s + ".\n": (weight, "end") for verb, weight in ALONE.items()}
        states["verb", kind] |= {verb + s + " ": (weight, object_) for verb, weight in WITH.items()}
        states[near] = {d + " ": (weight, ("near", d, kind)) for d, weight in DETERMINERS.items()}
        states[object_] = {d + " ": (weight, ("object", d)) for d, weight in DETERMINERS.items()}
        states[object_][pronoun + ".\n"] = (4, "end")
    return {state: _normalised(words) for state, words in states.items()}


def _normalised(words: dict) -> dict:
    total = sum(weight for weight, _ in words.values())
    return {word: (weight / total, then) for word, (weight, then) in words.items()}


_GRAMMAR = _grammar()
CHARACTERS = "".join(sorted({c for words in _GRAMMAR.values() for word in words for c in word}))
_INDEX = {character: k for k, character in enumerate(CHARACTERS)}


def _entropy_rate() -> float:
    """Bits per character: the expected bits of a sentence over its expected length.

    Both are sums over the states, weighted with how often a sentence is expected to visit each.
    """
    number = {state: k for k, state in enumerate(_GRAMMAR)}
    moves, bits, lengths = np.zeros((len(number), len(number))), np.zeros(len(number)), np.zeros(len(number))
    for state, words in _GRAMMAR.items():
        for word, (p, then) in words.items():
            bits[number[state]] -= p * np.log2(p)
            lengths[number[state]] += p * len(word)
            if then != "end":
                moves[number[state], number[then]] += p
    start = np.eye(len(number))[number["start"]]
    visits = np.linalg.solve(np.eye(len(number)) - moves.T, start)
    return float(visits @ bits / (visits @ lengths))


ENTROPY_RATE = _entropy_rate()


def encode(string: str) -> np.ndarray:
    """The characters' numbers (len(string),); a KeyError names a character that the language does not have."""
    return np.array([_INDEX[character] for character in string], dtype=int)


def decode(ids) -> str:
    """The string that these numbers stand for."""
    return "".join(CHARACTERS[k] for k in ids)


def sentences(n: int, seed: int) -> list[str]:
    """n sentences, drawn independently; each ends with a full stop and a line break."""
    draw = _drawn(seed)
    return [next(draw) for _ in range(n)]


def sample(n: int, seed: int) -> str:
    """A text of n characters; it begins with a sentence and breaks off where it is long enough."""
    parts, length, draw = [], 0, _drawn(seed)
    while length < n:
        parts.append(next(draw))
        length += len(parts[-1])
    return "".join(parts)[:n]


def _drawn(seed: int) -> Iterator[str]:
    """Sentence after sentence."""
    rng = np.random.default_rng(seed)
    choices = {}
    for state, words in _GRAMMAR.items():
        weights, states = zip(*words.values(), strict=True)
        choices[state] = list(words), np.cumsum(weights), states
    while True:
        state, sentence = "start", ""
        while state != "end":
            words, cumulative, states = choices[state]
            k = min(int(np.searchsorted(cumulative, rng.random(), side="right")), len(words) - 1)
            sentence, state = sentence + words[k], states[k]
        yield sentence


def probabilities(string: str) -> np.ndarray:
    """The true probabilities (len(string), len(CHARACTERS)) of each character, given all those before it.

    The string begins with a sentence. A ValueError says where it leaves the language.
    """
    rows, state, begun = [], "start", ""
    for place, character in enumerate(string):
        row = _next(state, begun)
        if character not in _INDEX or not row[_INDEX[character]]:
            raise ValueError(f"no sentence of the language goes on with {character!r} after {string[:place]!r}")
        rows.append(row)
        begun += character
        if begun in _GRAMMAR[state]:
            then = _GRAMMAR[state][begun][1]
            state, begun = "start" if then == "end" else then, ""
    return np.array(rows).reshape(len(string), len(CHARACTERS))


@cache
def _next(state, begun: str) -> np.ndarray:
    """The probabilities of the next character in a state of which a word has begun."""
    row = np.zeros(len(CHARACTERS))
    for word, (p, _) in _GRAMMAR[state].items():
        if word.startswith(begun) and word != begun:
            row[_INDEX[word[len(begun)]]] += p
    row = row / row.sum()
    row.setflags(write=False)
    return row


def agreements(string: str) -> tuple[np.ndarray, np.ndarray]:
    """Where a verb shows its number, and how far back its subject is.

    places (K,): the indices of the characters after the stems of verbs: "s", or the space or stop of a plural.
    distances (K,): how many characters before that the last letter of the subject's noun stands.
    """
    nouns, verbs = "|".join(NOUNS), "|".join([*ALONE, *WITH])
    places, distances, begin = [], [], 0
    for line in string.splitlines(keepends=True):
        subject, verb = re.search(rf"\b({nouns})s?\b", line), re.search(rf"\b({verbs})(?=s?[ .])", line)
        if subject and verb:
            places.append(begin + verb.end())
            distances.append(verb.end() - (subject.end() - 1))
        begin += len(line)
    return np.array(places, dtype=int), np.array(distances, dtype=int)
