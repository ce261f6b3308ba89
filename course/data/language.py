"""A generated language whose meanings are known: every noun is a kind, a gender and a number, and what stands around
it depends on these and on nothing else. Analogies can therefore be listed, all of them, and not picked."""

from itertools import product
from typing import NamedTuple

import numpy as np

# A kind: its forms (male, female; then both in the plural), its group and the things that belong to it.
KINDS = {
    "king": ("king queen kings queens", "royal", "crown throne"),
    "man": ("man woman men women", "home", "house garden"),
    "lion": ("lion lioness lions lionesses", "animal", "prey den"),
    "actor": ("actor actress actors actresses", "calling", "stage film"),
    "boy": ("boy girl boys girls", "home", "school toy"),
    "prince": ("prince princess princes princesses", "royal", "palace pony"),
    "bull": ("bull cow bulls cows", "animal", "pasture horn"),
    "monk": ("monk nun monks nuns", "calling", "prayer cell"),
    "uncle": ("uncle aunt uncles aunts", "home", "visit gift"),
    "duke": ("duke duchess dukes duchesses", "royal", "estate coach"),
    "wizard": ("wizard witch wizards witches", "calling", "spell wand"),
    "rooster": ("rooster hen roosters hens", "animal", "yard grain"),
}
# A job has no gender of its own: the share of "his" behind it, and the things that belong to it.
JOBS = {
    "pilot": (0.9, "plane sky"),
    "doctor": (0.7, "ward patient"),
    "teacher": (0.5, "lesson chalk"),
    "baker": (0.3, "oven bread"),
    "nurse": (0.1, "bandage bed"),
}
VERBS = {
    "royal": "rules commands",
    "home": "likes wants",
    "animal": "guards smells",
    "calling": "knows seeks",
    "job": "needs uses",
}
NUMBERS = {"singular": "one this", "plural": "two many"}
GENDERS = {"male": "his", "female": "her"}
ADJECTIVES = "good bad big small"
LENGTH, NOUN = 6, 2  # words in a sentence; where the noun stands in it


class Noun(NamedTuple):
    """What a noun means. A job's gender is ""."""

    kind: str
    gender: str
    number: str


class Language(NamedTuple):
    """The words, in an order that says nothing; the meanings of the nouns among them; sentences as ids (n, 6)."""

    words: tuple[str, ...]
    nouns: dict[str, Noun]
    sentences: np.ndarray

    def ids(self, text):
        """The ids of a text's words."""
        return np.array([self.words.index(word) for word in text.split()])


def nouns():
    """Every noun with its meaning."""
    found = {}
    for kind, (forms, _, _) in KINDS.items():
        meanings = product(NUMBERS, GENDERS)
        for form, (number, gender) in zip(forms.split(), meanings, strict=True):
            found[form] = Noun(kind, gender, number)
    for job in JOBS:
        found |= {job: Noun(job, "", "singular"), f"{job}s": Noun(job, "", "plural")}
    return found


def language(n, rng, noise=0.2):
    """`n` sentences of six words: number, adjective, noun, verb, gender, thing ("one good king rules his crown").

    Kinds are as frequent as 1 / rank, a job as the mean kind; gender and number are even. Each word around the noun
    goes by one property of the noun (the verb by the group, the thing by the kind), but with a chance of `noise` it is
    drawn from all that could stand at that place. Adjectives go by nothing.
    """
    meanings = nouns()
    words = tuple(np.random.default_rng(0).permutation([*meanings, *_others()]).tolist())
    rank = np.array([1 / (1 + list(KINDS).index(m.kind)) if m.kind in KINDS else 0 for m in meanings.values()])
    is_job = rank == 0
    share = np.where(is_job, 2 * rank[~is_job].mean(), rank)
    picked = rng.choice(len(meanings), n, p=share / share.sum())
    columns = [_around(name, list(meanings.values()), picked, rng, noise) for name in ("number", "adjective")]
    columns.append(np.array(list(meanings))[picked])
    columns += [_around(name, list(meanings.values()), picked, rng, noise) for name in ("verb", "gender", "thing")]
    place = {word: k for k, word in enumerate(words)}
    return Language(words, meanings, np.array([[place[word] for word in column] for column in columns]).T)


def _others():
    groups = [*NUMBERS.values(), ADJECTIVES, *VERBS.values(), *GENDERS.values()]
    things = [things for _, _, things in KINDS.values()] + [things for _, things in JOBS.values()]
    return " ".join([*groups, *things]).split()


def _around(place, meanings, picked, rng, noise):
    """The words at one place of all sentences."""
    chances = {word: k for k, word in enumerate(dict.fromkeys(w for m in meanings for w in _chances(place, m)))}
    table = np.zeros((len(meanings), len(chances)))
    for row, meaning in zip(table, meanings, strict=True):
        for word, chance in _chances(place, meaning).items():
            row[chances[word]] = chance
    table = (1 - noise) * table + noise / len(chances)
    column = (rng.random((len(picked), 1)) > table.cumsum(1)[picked]).sum(1)
    return np.array(list(chances))[np.minimum(column, len(chances) - 1)]


def _chances(place, noun):
    """The words that may stand at a place beside a noun, and how likely each is."""
    job = noun.kind in JOBS
    if place == "gender":
        share = JOBS[noun.kind][0] if job else float(noun.gender == "male")
        return {GENDERS["male"]: share, GENDERS["female"]: 1 - share}
    text = {
        "number": NUMBERS[noun.number],
        "adjective": ADJECTIVES,
        "verb": VERBS["job" if job else KINDS[noun.kind][1]],
        "thing": JOBS[noun.kind][1] if job else KINDS[noun.kind][2],
    }[place]
    return dict.fromkeys(text.split(), 1 / len(text.split()))


def analogies(lang, changed):
    """Every valid quadruple (n, 4) of ids: a is to b as c is to d.

    b is a with one property changed, d is c with the same change; `changed` is "gender", "number" or "kind".
    """
    place = {meaning: lang.words.index(word) for word, meaning in lang.nouns.items() if meaning.gender}
    found = []
    for a, b in product(place, place):
        turn = {changed: getattr(b, changed)}
        if a != b and a._replace(**turn) == b:
            like_a = [c for c in place if c != a and getattr(c, changed) == getattr(a, changed)]
            found += [(place[a], place[b], place[c], place[c._replace(**turn)]) for c in like_a]
    return np.array(found)
