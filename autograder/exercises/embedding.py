"""Lesson 15: lookup and its scattered gradient, bags, word vectors by skip-gram, analogies, matrix factorisation."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder.exercise import exercise, gradient_of

# How arguments are drawn.


def repeating(*shape, rows="v"):
    """Ids of rows of a table: the first of them comes again, beside itself and at the end, where there is room."""

    def draw(rng, sizes):
        full = tuple(sizes.get(k, k) for k in shape)
        ids = rng.integers(0, sizes[rows], full)
        if ids.size > 1:
            ids.reshape(-1)[[-1, *([1] if ids.size > 3 else [])]] = ids.reshape(-1)[0]
        return ids

    return draw


def some(low, high):
    return lambda rng, sizes: int(rng.integers(low, high))


# What the wrong implementations below are made of.


def scattered(rows, ids, like):
    """Each row added to its id's row of zeros like the table."""
    found = np.zeros_like(like)
    np.add.at(found, ids, rows)
    return found


def last_wins(rows, ids, like):
    """What `found[ids] += rows` does: of an id's rows only the last one counts."""
    found = np.zeros_like(like)
    found[ids] += rows
    return found


def averaged(rows, ids, like):
    counts = np.bincount(np.ravel(ids), minlength=len(like))
    return scattered(rows, ids, like) / np.maximum(counts, 1)[:, None]


# --- Lookup ----------------------------------------------------------------------------------------------------------

LOOKUPS = [
    dict(v=7, d=4, ids=repeating(5)),
    dict(v=5, d=3, ids=repeating(2, 4)),
    dict(v=9, d=2, ids=repeating(2, 1, 3)),
    dict(v=6, d=1, ids=lambda rng, sizes: np.array(rng.integers(1, 6))),
]


@exercise(
    points=1, minutes=4, difficulty=1, cases=LOOKUPS,
    hints=(
        "What is `table[3]`? And what does NumPy give for `table[np.array([3, 0, 3])]`?",
        "An array of whole numbers as an index picks rows, and keeps its own shape in front: `ids (2, 4)` picks "
        "`(2, 4, d)`.",
        "`table[ids]`.",
    ),
    mistakes={
        "y has the right rows in a list of one axis. The ids' own shape stays in front: ids (2, 4) gives y (2, 4, d).":
            lambda ids, table: table[np.ravel(ids)],
        "y counts ids from 1. Row 0 of the table belongs to id 0.":
            lambda ids, table: table[ids - 1],
        "y has the axis of the vectors in front. It comes last: one vector for each id.":
            lambda ids, table: np.moveaxis(table[ids], -1, 0),
        "y adds the vectors up. Each id keeps a vector of its own.":
            lambda ids, table: table[ids].reshape(-1, table.shape[1]).sum(0),
        "y has each id once, in the order of the table. An id that comes twice has its vector twice, at its places.":
            lambda ids, table: table[np.unique(ids)],
        "y has the vectors in the order of the table. Their order is that of the ids.":
            lambda ids, table: table[np.sort(ids, axis=None).reshape(np.shape(ids))],
    },
)  # fmt: skip
def embedding_forward(ids: "...", table: "v d") -> "y: ...":
    """The rows of the table that the ids name, in the shape of the ids."""
    return F.embedding(torch.as_tensor(ids), table)


gradient_of(
    embedding_forward, points=3, minutes=12, difficulty=2,
    hints=(
        "y[k] is a copy of row ids[k]. So dy[k] goes to row ids[k]. What if two k have the same id?",
        "Gradients of a number that is used twice add. Rows that nobody asked for have the gradient 0: begin with "
        "`np.zeros_like(table)`.",
        "`dtable[ids] += dy` is not the way: NumPy computes the right-hand side once and then writes, so that of "
        "several writes into one row the last one stays.",
        "`np.add.at(dtable, ids, dy)` adds every one of them, one by one. So does a loop over `np.ravel(ids)`.",
    ),
    mistakes={
        "dtable has only one of the contributions to an id that comes more than once: `dtable[ids] += dy` writes each "
        "row once, and the last one stays. `np.add.at` adds all of them.":
            lambda dy, ids, table: last_wins(dy, ids, table),
        "dtable is right for ids of one axis. With more, ids[k] is several ids, and `dtable[ids[k]] += dy[k]` writes "
        "each row once. `np.add.at` takes ids of any shape.":
            lambda dy, ids, table: sum(
                last_wins(row, k, table)
                for row, k in zip(np.atleast_2d(dy), np.atleast_1d(ids), strict=True)
            ),
        "dtable has the mean over an id's occurrences. Gradients of a row that is used several times add.":
            lambda dy, ids, table: averaged(dy, ids, table),
        "dtable is divided by the number of ids. Nothing in the forward pass takes a mean.":
            lambda dy, ids, table: scattered(dy, ids, table) / np.size(ids),
        "dtable begins with a copy of the table. It begins with zeros: rows that nobody asked for have no gradient.":
            lambda dy, ids, table: scattered(dy, ids, table) + table,
        "dtable counts ids from 1. Row 0 of the table belongs to id 0.":
            lambda dy, ids, table: scattered(dy, ids - 1, table),
        "dtable has rows only for the ids that occur. It has the shape of the table; the other rows are 0.":
            lambda dy, ids, table: scattered(dy, ids, table)[np.unique(ids)],
        "dtable adds up all of dy in each row that is used. A row gets the gradients of its own occurrences.":
            lambda dy, ids, table: last_wins(dy.reshape(-1, table.shape[1]).sum(0), ids, table),
    },
)  # fmt: skip


# --- Bags ------------------------------------------------------------------------------------------------------------


def a_bag(n, t, padding, empty=True):
    """Ids (n, t) with some padding; the first row repeats an id, the last row is nothing but padding."""

    def draw(rng, sizes):
        ids = rng.integers(0, sizes["v"], (n, t))
        ids[rng.random((n, t)) < 0.3] = padding
        ids[0, 0] = ids[0, -1] = sizes["v"] - 1 - (padding == sizes["v"] - 1)
        if n > 1:
            ids[1, 0] = padding
        if empty:
            ids[-1] = padding
        return ids

    return draw


BAGS = [
    dict(n=3, t=4, v=6, d=2, ids=a_bag(3, 4, 0)),
    dict(n=4, t=5, v=7, d=3, ids=a_bag(4, 5, 2), padding_idx=2),
    dict(n=1, t=3, v=5, d=4, ids=a_bag(1, 3, 0, empty=False)),
    dict(n=2, t=6, v=4, d=1, ids=a_bag(2, 6, 3), padding_idx=3),
]


def bag(keep=lambda ids, pad: ids != pad, count=lambda kept: np.maximum(kept.sum(1), 1)):
    """The mean of a bag with some of its pieces changed."""

    def forward(ids, table, padding_idx=0):
        kept = keep(ids, padding_idx)
        return (table[ids] * kept[..., None]).sum(1) / count(kept)[:, None]

    return forward


def first_of_each(ids, pad):
    """Where an id stands for the first time in its row, padding excepted."""
    fresh = np.array([[k not in row[:j] for j, k in enumerate(row)] for row in ids.tolist()])
    return fresh & (ids != pad)


@exercise(
    points=2, minutes=10, difficulty=1, cases=BAGS,
    hints=(
        "Which tokens count? `ids != padding_idx` is an array (n, t) of True and False.",
        "As numbers, 1.0 and 0.0, these are weights: multiply the vectors by them before you add along t. The mean "
        "divides by how many count.",
        "A bag without a single token would divide by 0. `np.maximum(count, 1)` makes it a bag of zeros.",
    ),
    mistakes={
        "y counts the padding. It takes part neither in the sum nor in the number that divides.":
            bag(keep=lambda ids, pad: np.ones(ids.shape, bool)),
        "y divides by t. Only tokens that are not padding count in the mean.":
            bag(count=lambda kept: np.full(len(kept), kept.shape[1])),
        "y is a sum. Divide by the number of tokens that are not padding.":
            bag(count=lambda kept: np.ones(len(kept))),
        "y takes id 0 for the padding, whatever padding_idx says.":
            bag(keep=lambda ids, pad: ids != 0),
        "y counts a word once per bag. A word that comes twice counts twice.":
            bag(keep=first_of_each),
        "y is divided by one more than the tokens that count.":
            bag(count=lambda kept: kept.sum(1) + 1),
    },
)  # fmt: skip
def embedding_bag_forward(ids: "n t", table: "v d", padding_idx=0) -> "y: n d":
    """The mean of the vectors of each row's tokens, padding left out; 0 where a row has nothing else."""
    return F.embedding_bag(ids, table, mode="mean", padding_idx=padding_idx)


def bag_grads(put=scattered, keep=lambda ids, pad: ids != pad, count=lambda kept: np.maximum(kept.sum(1), 1)):
    """The backward pass of a bag with some of its pieces changed."""

    def backward(dy, ids, table, padding_idx=0):
        kept, used = ids != padding_idx, keep(ids, padding_idx)
        rows = used[..., None] * (dy / count(kept)[:, None])[:, None, :]
        return put(rows, ids, table)

    return backward


def everything(ids, pad):
    return np.ones(ids.shape, bool)


def all_places(kept):
    return np.full(len(kept), kept.shape[1])


gradient_of(
    embedding_bag_forward, name="repair_embedding_bag_backward", repair=True, points=3, minutes=15, difficulty=2,
    hints=(
        "Put the bag [2, 2, 0] with dy = 6 into the code. Row 2 should get 6 and row 0 nothing. What do they get, "
        "and which step of the code makes it so?",
        "Three faults: what does `+=` do with an id that comes twice? By what did the forward pass divide? And does "
        "the padding's row take part in y?",
        "Spread dy over the t places, divided by the number of tokens that count and 0 at the padding, and add with "
        "`np.add.at`.",
    ),
    mistakes={
        "dtable has three faults: repeated ids, what dy is divided by, and the row of the padding.":
            bag_grads(last_wins, everything, all_places),
        "dtable still loses contributions: `+=` with an array of ids writes each row once. `np.add.at` adds them all.":
            bag_grads(last_wins),
        "dtable still divides by t. The forward pass divided by the number of tokens that are not padding.":
            bag_grads(count=all_places),
        "dtable still has a gradient in the row of the padding. That row took no part in y.":
            bag_grads(keep=everything),
        "dtable still divides by t, and the row of the padding still has a gradient.":
            bag_grads(scattered, everything, all_places),
        "dtable still loses contributions of repeated ids, and still divides by t.":
            bag_grads(last_wins, count=all_places),
        "dtable still loses contributions of repeated ids, and the row of the padding still has a gradient.":
            bag_grads(last_wins, keep=everything),
        "dtable lost the division in the repair: the forward pass takes a mean.":
            bag_grads(count=lambda kept: np.ones(len(kept))),
    },
)  # fmt: skip


# --- Word vectors ----------------------------------------------------------------------------------------------------


def pairs(near, order=lambda i, j: (i, j)):
    """Pairs of neighbours, chosen by near(distance from centre to context, window)."""

    def answer(ids, window):
        at = np.arange(len(ids))
        i, j = np.nonzero(near(at - at[:, None], window))
        i, j = order(i, j)
        return ids[i], ids[j]

    return answer


def wrapping(ids, window):
    """Neighbours by index, without a look at the ends."""
    steps = [k for k in range(-window, window + 1) if k]
    both = [(i, (i + k) % len(ids)) for i in range(len(ids)) for k in steps]
    i, j = np.array(both).T
    return ids[i], ids[j]


def other_words(ids, window):
    """Neighbours that are another word than the centre."""
    centre, context = pairs(lambda gap, window: (gap != 0) & (np.abs(gap) <= window))(ids, window)
    return centre[centre != context], context[centre != context]


def their_places(ids, window):
    return pairs(lambda gap, window: (gap != 0) & (np.abs(gap) <= window))(np.arange(len(ids)), window)


@exercise(
    points=2, minutes=12, difficulty=2,
    cases=[
        dict(t=7, window=2, ids=lambda rng, sizes: rng.permutation(range(20, 29))[[0, 1, 0, 3, 4, 4, 6]]),
        dict(t=6, window=1, ids=lambda rng, sizes: rng.permutation(20)[:6]),
        dict(t=4, window=9, ids=lambda rng, sizes: rng.permutation(8)[:4]),
        dict(t=2, window=1, ids=lambda rng, sizes: rng.permutation(8)[:2]),
    ],
    hints=(
        "Two loops: over the places i of the centre, and over the places j from i − window to i + window. Which j have "
        "to be left out?",
        "j = i is the word itself. At the ends, j starts at `max(0, i - window)` and stops at "
        "`min(len(ids), i + window + 1)`.",
        "Collect ids[i] and ids[j] in two lists and return `np.array(centre), np.array(context)`.",
    ),
    mistakes={
        "centre and context also pair every word with itself. Leave j = i out.":
            pairs(lambda gap, window: np.abs(gap) <= window),
        "centre and context lack the words before the centre: the window opens to both sides.":
            pairs(lambda gap, window: (gap > 0) & (gap <= window)),
        "centre and context lack the words after the centre: the window opens to both sides. A range that stops at "
        "i + window ends one too early as well.":
            pairs(lambda gap, window: (gap < 0) & (-gap <= window)),
        "centre and context lack the last word to the right: a range ends before its end, so it needs i + window + 1.":
            pairs(lambda gap, window: (gap != 0) & (-gap <= window) & (gap < window)),
        "centre and context reach beyond the ends: a negative index counts from the end of the list. Cut the window "
        "off at 0 and at len(ids).":
            wrapping,
        "centre and context are exchanged: the pairs of one centre come one after the other.":
            pairs(lambda gap, window: (gap != 0) & (np.abs(gap) <= window), lambda i, j: (j, i)),
        "centre and context go one word too far: the window is the greatest distance.":
            pairs(lambda gap, window: (gap != 0) & (np.abs(gap) <= window + 1)),
        "centre and context lack the pairs of a word with the same word at another place. Only the centre's own place "
        "is left out: compare places, i and j, not words.":
            other_words,
        "centre and context hold places in the text. Asked are the words at these places: ids[i] and ids[j].":
            their_places,
    },
)  # fmt: skip
def skipgram_pairs(ids: "t", window) -> "centre: ..., context: ...":
    """Each word with each of its neighbours at most `window` places away: centres in order, contexts left to right."""
    place = torch.arange(len(ids))
    wide = place.repeat(len(ids), 1)
    near = torch.triu(torch.ones_like(wide), -window).tril(window).fill_diagonal_(0).bool()
    return ids.repeat_interleave(near.sum(1)), ids[wide[near]]


def chances(weigh=lambda counts, power: counts**power):
    """Counts to probabilities with the weighing changed."""

    def answer(counts, power=0.75):
        weights = weigh(counts.astype(float), power)
        return weights / weights.sum()

    return answer


def counted(rng, sizes):
    counts = rng.integers(2, 1000, sizes["v"])
    counts[0] = 1
    return counts


@exercise(
    points=1, minutes=5, difficulty=1,
    cases=[
        dict(v=6, counts=counted),
        dict(v=4, counts=counted, power=0.5),
        dict(v=5, counts=lambda rng, sizes: counted(rng, sizes) * (np.arange(5) != 2), power=1.0),
        dict(v=3, counts=counted, power=2.0),
    ],
    hints=(
        "First the power, entry by entry; then divide, so that the sum is 1.",
        "`weights = counts ** power`, and p is weights over their sum.",
    ),
    mistakes={
        "p ignores the power: these are the plain frequencies.":
            chances(lambda counts, power: counts),
        "p takes the power after dividing, and does not sum to 1. Divide last.":
            lambda counts, power=0.75: (counts / counts.sum()) ** power,
        "p always takes the power 0.75, whatever `power` says.":
            chances(lambda counts, power: counts**0.75),
        "p takes the root of order `power` in place of the power.":
            chances(lambda counts, power: counts ** (1 / power)),
        "p is uniform. Frequent words are to be drawn more often.":
            chances(lambda counts, power: np.ones_like(counts)),
        "p is a softmax of the counts. They are weights already: divide by their sum.":
            chances(lambda counts, power: np.exp(power * (counts - counts.max()))),
    },
)  # fmt: skip
def negative_distribution(counts: "v", power=0.75) -> "p: v":
    """The probability of each word to be drawn as a negative (Mikolov et al., 2013)."""
    return F.normalize(counts.double().pow(power), p=1, dim=0)


def sigmoid(z):
    return np.exp(-np.logaddexp(0, -z))


def scores(centre, context, negatives, table_in, table_out):
    """What the logits are made of: v (n, d), u (n, 1 + k, d), all ids in the order of u."""
    ids = np.concatenate([context[:, None], negatives], axis=1)
    return table_in[centre], table_out[ids], ids


def skipgram(take=lambda pos, neg: (np.logaddexp(0, -pos) + np.logaddexp(0, neg).sum(1)).mean(), see=scores):
    """The loss of skip-gram with negative sampling, with some of its pieces changed."""

    def forward(centre, context, negatives, table_in, table_out):
        v, u, _ = see(centre, context, negatives, table_in, table_out)
        logits = np.einsum("nd,nkd->nk", v, u)
        return take(logits[:, 0], logits[:, 1:])

    return np.errstate(all="ignore")(forward)


def exchanged(centre, context, negatives, table_in, table_out):
    return scores(centre, context, negatives, table_out, table_in)


def one_table(centre, context, negatives, table_in, table_out):
    return scores(centre, context, negatives, table_in, table_in)


def negatives_from_in(centre, context, negatives, table_in, table_out):
    v, u, ids = scores(centre, context, negatives, table_in, table_out)
    return v, np.concatenate([u[:, :1], table_in[negatives]], axis=1), ids


def softplus(z):
    return np.logaddexp(0, z)


def tables(scale):
    return lambda rng, sizes: scale * rng.standard_normal((sizes["v"], sizes["d"]))


SKIPGRAMS = [
    dict(n=6, k=3, v=8, d=4),
    dict(n=5, k=2, v=7, d=3),
    dict(n=1, k=1, v=4, d=2),
    dict(n=3, k=4, v=5, d=2, table_in=tables(60.0), table_out=tables(60.0)),
]
WORDS = dict(centre=repeating("n"), context=repeating("n"), negatives=repeating("n", "k"))


@exercise(
    points=3, minutes=15, difficulty=2, cases=SKIPGRAMS, draws=WORDS,
    hints=(
        "Three lookups first: v = table_in[centre] (n, d), u = table_out[context] (n, d), and table_out[negatives] "
        "(n, k, d).",
        "One score per pair, a dot product: `(v * u).sum(axis=1)` (n,); for the negatives "
        "`np.einsum(\"nd,nkd->nk\", v, …)` (n, k).",
        "−ln σ(s) = ln(1 + exp(−s)) for the true pair, −ln σ(−s) = ln(1 + exp(s)) for a negative. For large |s| the "
        "exponential overflows; `np.logaddexp(0, s)` does not.",
        "Add the k negatives of each pair, then take the mean over the n pairs.",
    ),
    mistakes={
        "loss is inf where a score is large: exp(s) overflowed, or the logarithm met a 0. `np.logaddexp(0, s)` is "
        "ln(1 + exp(s)) for every s.":
            skipgram(lambda pos, neg: (np.log(1 + np.exp(-pos)) + np.log(1 + np.exp(neg)).sum(1)).mean()),
        "loss has the mean over the k negatives. Their losses are added; the mean is over the n pairs.":
            skipgram(lambda pos, neg: (softplus(-pos) + softplus(neg).mean(1)).mean()),
        "loss is the sum over the n pairs. Take the mean.":
            skipgram(lambda pos, neg: (softplus(-pos) + softplus(neg).sum(1)).sum()),
        "loss treats the negatives as true pairs. Their scores have to become low: ln(1 + exp(+s)).":
            skipgram(lambda pos, neg: (softplus(-pos) + softplus(-neg).sum(1)).mean()),
        "loss has both signs turned round: it falls where true pairs score low.":
            skipgram(lambda pos, neg: (softplus(pos) + softplus(-neg).sum(1)).mean()),
        "loss lacks the negatives.":
            skipgram(lambda pos, neg: softplus(-pos).mean()),
        "loss has the tables exchanged: centres are looked up in table_in, contexts and negatives in table_out.":
            skipgram(see=exchanged),
        "loss takes all vectors from table_in. Contexts and negatives have a table of their own, table_out.":
            skipgram(see=one_table),
        "loss looks the negatives up in table_in. They stand where contexts stand: in table_out.":
            skipgram(see=negatives_from_in),
        "loss is the mean over all n · (1 + k) scores. Add the k + 1 of each pair, then take the mean over the pairs.":
            skipgram(lambda pos, neg: np.concatenate([softplus(-pos), softplus(neg).ravel()]).mean()),
    },
)  # fmt: skip
def skipgram_loss_forward(centre: "n", context: "n", negatives: "n k", table_in: "v d", table_out: "v d") -> "loss:":
    """Skip-gram with negative sampling: the true context against k drawn ones (Mikolov et al., 2013)."""
    ids = torch.cat([context[:, None], negatives], dim=1)
    logits = (F.embedding(ids, table_out) @ F.embedding(centre, table_in)[:, :, None]).squeeze(2)
    targets = torch.zeros_like(logits)
    targets[:, 0] = 1
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()


def is_true(s):
    """Which of the scores (n, 1 + k) belong to true pairs."""
    return np.arange(s.shape[1]) == 0


def skipgram_grads(
    slope=lambda s: sigmoid(s) - is_true(s), share=lambda dloss, n, k: dloss / n,
    put=(scattered, scattered), drop=slice(0, 0), drop_in=slice(0, 0), drop_out=slice(0, 0), see=scores,
):  # fmt: skip
    """The backward pass of skip-gram with negative sampling, with some of its pieces changed."""

    def backward(dloss, centre, context, negatives, table_in, table_out):
        v, u, ids = see(centre, context, negatives, table_in, table_out)
        ds = share(dloss, *negatives.shape) * slope(np.einsum("nd,nkd->nk", v, u))
        ds[:, drop] = 0
        ds_in, ds_out = ds.copy(), ds.copy()
        ds_in[:, drop_in], ds_out[:, drop_out] = 0, 0
        din = put[0](np.einsum("nk,nkd->nd", ds_in, u), centre, table_in)
        return din, put[1](ds_out[:, :, None] * v[:, None], ids, table_out)

    return np.errstate(all="ignore")(backward)


def separately(rows, ids, like):
    """Contexts and negatives each written with +=."""
    return last_wins(rows[:, 0], ids[:, 0], like) + last_wins(rows[:, 1:], ids[:, 1:], like)


gradient_of(
    skipgram_loss_forward, points=5, minutes=25, difficulty=3,
    hints=(
        "Begin at the scores. For a true pair the derivative of ln(1 + exp(−s)) is σ(s) − 1; for a negative that of "
        "ln(1 + exp(s)) is σ(s). Each times dloss / n.",
        "A score is a dot product s = v · u: so dv gets ds · u and du gets ds · v. The centre's v takes part in 1 + k "
        "scores: add up.",
        "The σ must not overflow at ±1000: `np.exp(-np.logaddexp(0, -s))`, or your sigmoid of lesson 02.",
        "Now scatter: `np.add.at(dtable_in, centre, dv)`; into dtable_out go the rows of the contexts and those of the "
        "negatives, `np.add.at(dtable_out, negatives, ds_neg[:, :, None] * v[:, None, :])`.",
    ),
    mistakes={
        "dtable_in and dtable_out lose contributions: `+=` with an array of ids writes each row once. `np.add.at` adds "
        "them all.":
            skipgram_grads(put=(last_wins, separately)),
        "dtable_in loses contributions of centres that come more than once. `np.add.at` adds them all.":
            skipgram_grads(put=(last_wins, scattered)),
        "dtable_out loses contributions of words that come more than once. `np.add.at` adds them all.":
            skipgram_grads(put=(scattered, separately)),
        "dtable_in and dtable_out lack what comes from the negatives.":
            skipgram_grads(drop=slice(1, None)),
        "dtable_in lacks what comes from the negatives. The centre takes part in 1 + k scores: its gradient is the sum "
        "over all of them.":
            skipgram_grads(drop_in=slice(1, None)),
        "dtable_out lacks the rows of the negatives. They were looked up there, too, and each gets ds · v.":
            skipgram_grads(drop_out=slice(1, None)),
        "dtable_in and dtable_out have the opposite sign in what comes from the negatives: the derivative of "
        "ln(1 + exp(s)) is σ(s), which is positive.":
            skipgram_grads(slope=lambda s: np.where(is_true(s), sigmoid(s) - 1, -sigmoid(s))),
        "dtable_in and dtable_out lack what comes from the true pairs.":
            skipgram_grads(drop=slice(0, 1)),
        "dtable_in and dtable_out have σ(s) for the true pair as well. There it is σ(s) − 1, which is negative: the "
        "score is to rise.":
            skipgram_grads(slope=sigmoid),
        "dtable_in and dtable_out have the opposite sign: the gradient points to where the loss grows.":
            skipgram_grads(share=lambda dloss, n, k: -dloss / n),
        "dtable_in and dtable_out lack the 1/n of the mean.":
            skipgram_grads(share=lambda dloss, n, k: dloss),
        "dtable_in and dtable_out ignore dloss, the upstream gradient.":
            skipgram_grads(share=lambda dloss, n, k: 1 / n),
        "dtable_in and dtable_out are divided by n · (1 + k). The mean is over the n pairs.":
            skipgram_grads(share=lambda dloss, n, k: dloss / (n * (1 + k))),
        "dtable_in and dtable_out have their tables exchanged: centres belong to table_in.":
            skipgram_grads(see=exchanged),
    },
)  # fmt: skip


# --- Analogies -------------------------------------------------------------------------------------------------------


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def nearest_to(
    target=lambda a, b, c: b - a + c, before=unit, candidates=unit, ban=lambda a, b, c: (a, b, c), flag=lambda e: e
):
    """The answers to analogies with some of their pieces changed."""

    def answer(a, b, c, table, exclude=True):
        rows = before(table)
        s = target(rows[a], rows[b], rows[c]) @ candidates(table).T
        for banned in ban(a, b, c) if flag(exclude) else ():
            s[np.arange(len(a)), banned] = -np.inf
        return s.argmax(1)

    return answer


def zeroed(a, b, c, table, exclude=True):
    """The words of the question get the score 0."""
    rows = unit(table)
    s = (rows[b] - rows[a] + rows[c]) @ rows.T
    for banned in (a, b, c) if exclude else ():
        s[np.arange(len(a)), banned] = 0
    return s.argmax(1)


def banned_for_all(a, b, c, table, exclude=True):
    """The words of all questions are excluded from every answer."""
    rows = unit(table)
    s = (rows[b] - rows[a] + rows[c]) @ rows.T
    if exclude:
        s[:, np.concatenate([a, b, c])] = -np.inf
    return s.argmax(1)


def far_away(rng, sizes):
    """A table (4, 2) whose row 1 points away from row 0 − row 2 + row 3, and is the only one left to be the answer."""
    table = rng.standard_normal((4, 2))
    table[1] = -rng.uniform(0.5, 2) * np.dot([1, -1, 1], unit(table)[[0, 2, 3]])
    return table


@exercise(
    points=3, minutes=15, difficulty=2,
    draws=dict(a=repeating("n"), b=repeating("n"), c=repeating("n")),
    cases=[
        dict(n=40, v=14, d=3),
        dict(n=30, v=12, d=5, exclude=False),
        dict(n=1, v=4, d=2, a=np.array([2]), b=np.array([0]), c=np.array([3]), table=far_away),
        dict(n=25, v=15, d=4),
    ],
    hints=(
        "First make every row of the table a vector of length 1: divide by `np.linalg.norm(table, axis=1, "
        "keepdims=True)`.",
        "The targets of all n questions at once: rows[b] − rows[a] + rows[c], (n, d). Their dot products with all rows "
        "are (n, v). (The target's own length changes no order.)",
        "To exclude, write −inf at the places of a, b and c: `scores[np.arange(n), a] = -np.inf`, and so on. Then "
        "`argmax` along axis 1.",
    ),
    mistakes={
        "answer has the sign turned round: a is to b as c is to b − a + c.":
            nearest_to(target=lambda a, b, c: a - b + c),
        "answer compares by dot product with the rows as they are: long vectors win. Bring every row to length 1.":
            nearest_to(before=lambda t: t, candidates=lambda t: t),
        "answer compares by dot product with the rows as they are, and ignores exclude: two faults. Bring every row to "
        "length 1, and put −inf at the words of the question.":
            nearest_to(before=lambda t: t, candidates=lambda t: t, flag=lambda e: False),
        "answer adds and subtracts the rows as they are. Bring them to length 1 before that.":
            nearest_to(before=lambda t: t),
        "answer has the targets right, but compares them with rows of different lengths. These need length 1, too.":
            nearest_to(candidates=lambda t: t),
        "answer ignores exclude: with True, a, b and c themselves are no answers.":
            nearest_to(flag=lambda e: False),
        "answer always excludes a, b and c, also where exclude is False.":
            nearest_to(flag=lambda e: True),
        "answer excludes c alone. a and b are no answers either.":
            nearest_to(ban=lambda a, b, c: (c,)),
        "answer lacks the word c: it is the neighbour of b − a.":
            nearest_to(target=lambda a, b, c: b - a),
        "answer is the neighbour of c: the difference b − a is not in it.":
            nearest_to(target=lambda a, b, c: c),
        "answer gives the words of the question the score 0. Where all others have a negative cosine, 0 is the "
        "largest: take −inf.":
            zeroed,
        "answer excludes the words of all questions from every answer: `scores[:, a]` means all rows. Row k excludes "
        "a[k], b[k] and c[k] alone: `scores[np.arange(n), a]`.":
            banned_for_all,
    },
)  # fmt: skip
def analogy(a: "n", b: "n", c: "n", table: "v d", exclude=True) -> "answer: n":
    """a is to b as c is to the word nearest to b − a + c by cosine (Mikolov et al., 2013)."""
    target = F.normalize(table)[torch.stack([a, b, c])].mul(torch.tensor([-1.0, 1, 1]).reshape(3, 1, 1)).sum(0)
    similarity = F.cosine_similarity(target[:, None], table[None], dim=2)
    if exclude:
        similarity = similarity.scatter(1, torch.stack([a, b, c], dim=1), float("-inf"))
    return similarity.argmax(1)


# --- Recommenders ----------------------------------------------------------------------------------------------------


def factor_step(
    weigh=lambda e, n: 2 * e / n, put=scattered, seen=lambda p, new: p, decay=lambda param, used, wd: wd * param,
    sign=1,
):  # fmt: skip
    """A step of matrix factorisation with some of its pieces changed."""

    def step(p, q, users, items, ratings, lr, weight_decay=0.0):
        g = weigh((p[users] * q[items]).sum(1) - ratings, len(ratings))[:, None]
        used = np.isin(np.arange(len(p)), users)[:, None], np.isin(np.arange(len(q)), items)[:, None]
        new_p = p - sign * lr * (put(g * q[items], users, p) + decay(p, used[0], weight_decay))
        new_q = q - sign * lr * (put(g * seen(p, new_p)[users], items, q) + decay(q, used[1], weight_decay))
        return new_p, new_q

    return step


def one_by_one(p, q, users, items, ratings, lr, weight_decay=0.0):
    """A step of its own for each rating."""
    p, q = p.copy(), q.copy()
    for u, i, r in zip(users, items, ratings, strict=True):
        g = 2 * (p[u] @ q[i] - r) / len(users)
        p[u], q[i] = p[u] - lr * (g * q[i] + weight_decay * p[u]), q[i] - lr * (g * p[u] + weight_decay * q[i])
    return p, q


def decay_past_lr(p, q, users, items, ratings, lr, weight_decay=0.0):
    return tuple(
        new - weight_decay * old
        for new, old in zip(factor_step()(p, q, users, items, ratings, lr), (p, q), strict=True)
    )


@exercise(
    points=3, minutes=18, difficulty=2,
    draws=dict(users=repeating("n", rows="u"), items=repeating("n", rows="i")),
    cases=[
        dict(u=5, i=6, k=3, n=7, lr=0.5),
        dict(u=7, i=4, k=2, n=5, lr=0.1, weight_decay=0.3),
        dict(u=1, i=6, k=2, n=4, lr=0.2, weight_decay=1.5),
        dict(u=6, i=5, k=1, n=3, lr=1.0),
    ],
    hints=(
        "Two lookups give p[users] and q[items], both (n, k). A prediction is their dot product; e is prediction minus "
        "rating, (n,).",
        "The mean of e² has the derivative 2 e / n at each prediction. From there it goes to p[users] times q[items], "
        "and to q[items] times p[users].",
        "Scatter: `np.add.at(dp, users, …)`, `np.add.at(dq, items, …)`. Both need the old p and q, so compute both "
        "before you change either.",
        "The decay belongs to every row: the new p is p − lr · (dp + weight_decay · p). Make new arrays; the caller's "
        "stay.",
    ),
    mistakes={
        "q was computed from the new p. Both gradients belong to the old factors: compute both, then step.":
            factor_step(seen=lambda p, new: new),
        "p and q lose contributions of users and items that come more than once: `+=` with an array of ids writes each "
        "row once. `np.add.at` adds them all.":
            factor_step(put=last_wins),
        "p and q lack the 2 of the derivative of e².":
            factor_step(weigh=lambda e, n: e / n),
        "p and q follow the sum of the squares. The loss is their mean: divide by n.":
            factor_step(weigh=lambda e, n: 2 * e),
        "p and q go uphill: subtract the gradient.":
            factor_step(sign=-1),
        "p and q do not decay.":
            factor_step(decay=lambda param, used, wd: 0 * param),
        "p and q decay only in the rows that were used. As in torch.optim.SGD, weight_decay · p is part of every row's "
        "gradient.":
            factor_step(decay=lambda param, used, wd: wd * param * used),
        "p and q decay twice as fast: weight_decay · p is what joins the gradient, without a 2.":
            factor_step(decay=lambda param, used, wd: 2 * wd * param),
        "p and q decay by weight_decay · p, whatever lr is. It joins the gradient, and lr multiplies both.":
            decay_past_lr,
        "p and q change after every rating, so that the next one meets new factors. It is one step: collect both "
        "gradients at the old p and q, then change them.":
            one_by_one,
        "p and q have the mean of the contributions where a user or an item comes more than once. They add.":
            factor_step(put=averaged),
    },
)  # fmt: skip
def matrix_factorisation_step(
    p: "u k", q: "i k", users: "n", items: "n", ratings: "n", lr, weight_decay=0.0
) -> "p: u k, q: i k":
    """One step of SGD, with weight decay as in torch.optim.SGD, on the mean squared error of the given ratings."""
    factors = [torch.as_tensor(value).detach().requires_grad_() for value in (p, q)]
    with torch.enable_grad():
        rows = [F.embedding(torch.as_tensor(ids), f) for ids, f in zip((users, items), factors, strict=True)]
        loss = F.mse_loss(torch.linalg.vecdot(*rows), torch.as_tensor(ratings))
        loss = loss + weight_decay / 2 * sum(f.square().sum() for f in factors)
        grads = torch.autograd.grad(loss, factors)
    return tuple(torch.add(f.detach(), g, alpha=-lr) for f, g in zip(factors, grads, strict=True))


def turning(make=lambda u, s, v: u @ v):
    return lambda a, b: make(*_svd(a, b))


def _svd(a, b):
    u, s, v = np.linalg.svd(a.T @ b)
    return u, np.diag(s), v


def no_mirror(u, s, v):
    flip = np.ones(len(u))
    flip[-1] = np.linalg.det(u @ v)
    return (u * flip) @ v


@exercise(
    points=2, minutes=12, difficulty=2,
    cases=[
        dict(n=7, k=3),
        dict(n=6, k=2),
        dict(n=3, k=1, a=lambda rng, sizes: rng.uniform(1, 2, (3, 1)), b=lambda rng, sizes: -rng.uniform(1, 2, (3, 1))),
        dict(n=9, k=4),
    ],
    hints=(
        "Which matrix compares the columns of a with those of b? `a.T @ b`, (k, k).",
        "`np.linalg.svd` takes it apart into u, s, vt. In the middle stand the stretches; a rotation has none.",
        "r = u @ vt.",
    ),
    mistakes={
        "r turns b onto a. Asked is the one that turns a onto b: the transpose.":
            turning(lambda u, s, v: (u @ v).T),
        "r is the best linear map, and stretches too. Only an orthogonal matrix is allowed: r.T @ r is the identity.":
            lambda a, b: np.linalg.lstsq(a, b, rcond=None)[0],
        "r still has the singular values in it: leave s out.":
            turning(lambda u, s, v: u @ s @ v),
        "r never mirrors. An orthogonal matrix may: its determinant is 1 or −1.":
            turning(no_mirror),
        "r multiplies u by v. `np.linalg.svd` returns v already transposed, as its third result.":
            turning(lambda u, s, v: u @ v.T),
    },
)  # fmt: skip
def procrustes(a: "n k", b: "n k") -> "r: k k":
    """The orthogonal matrix r for which a @ r is nearest to b (Schönemann, 1966)."""
    u, _, vh = torch.linalg.svd(torch.as_tensor(a).mT @ torch.as_tensor(b))
    return torch.linalg.multi_dot([u, torch.eye(len(u), dtype=u.dtype), vh])


# --- In PyTorch ------------------------------------------------------------------------------------------------------


def class_mistake(start=None, rows=None, padding=lambda idx: idx):
    """An embedding with another start, another lookup or another idea of the padding."""

    class Wrong(nn.Module):
        def __init__(self, num_embeddings, embedding_dim, padding_idx=None):
            super().__init__()
            self.padding_idx = padding_idx = padding(padding_idx)
            self.weight = nn.Parameter(torch.randn(num_embeddings, embedding_dim))
            with torch.no_grad():
                if padding_idx is not None:
                    self.weight[padding_idx] = 0
                if start:
                    start(self)

        def forward(self, ids):
            if rows:
                return rows(self, ids)
            y = self.weight[ids]
            if self.padding_idx is None:
                return y
            return torch.where((ids == self.padding_idx)[..., None], y.detach(), y)

    return Wrong


def padding_as_zero(self, ids):
    y = self.weight[ids]
    return y if self.padding_idx is None else y * (ids != self.padding_idx)[..., None]


def once_per_batch(self, ids):
    """Each row passes its gradient once, at its last place."""
    flat = ids.flatten().tolist()
    last = torch.tensor([k not in flat[j + 1 :] and k != self.padding_idx for j, k in enumerate(flat)])
    y = self.weight[ids]
    return torch.where(last.reshape(ids.shape)[..., None], y, y.detach())


def uniform(self):
    nn.init.uniform_(self.weight)
    if self.padding_idx is not None:
        self.weight[self.padding_idx] = 0


def padding_starts_drawn(self):
    if self.padding_idx is not None:
        nn.init.normal_(self.weight[self.padding_idx])


@exercise(
    script="module", points=4, minutes=20, difficulty=2,
    forbids=("torch.nn.Embedding", "torch.nn.functional.embedding", "torch.nn.EmbeddingBag"),
    cases=[
        dict(v=6, d=3, ids=lambda rng, sizes: np.array([[4, 1, 4, 0], [2, 2, 4, 1]]), seed=some(0, 99)),
        dict(v=5, d=4, ids=lambda rng, sizes: np.array([3, 2, 2, 1, 0, 2]), seed=some(0, 99), padding_idx=2),
        dict(v=4, d=2, ids=lambda rng, sizes: np.array([[[0, 3, 0]], [[1, 1, 3]]]), seed=some(0, 99), padding_idx=0),
    ],
    hints=(
        "One parameter, `weight`: an `nn.Parameter` around `torch.randn(num_embeddings, embedding_dim)`. forward is an "
        "indexing: `self.weight[ids]`; autograd scatters by itself.",
        "The row of the padding starts at 0. Writing into a parameter needs `with torch.no_grad():`. Mind that 0 is a "
        "possible padding_idx: ask `is not None`.",
        "The row of the padding is looked up as it is, and gets no gradient. `y.detach()` has the same values and "
        "passes no gradient.",
        "`torch.where(mask, y.detach(), y)` with `mask = (ids == self.padding_idx).unsqueeze(-1)`.",
    ),
    mistakes={
        "dweight is not 0 in the row of the padding: it gets a gradient. `y.detach()` where the id is padding_idx lets "
        "none pass.":
            class_mistake(rows=lambda self, ids: self.weight[ids]),
        "y is 0 at the padding, whatever its row holds. The row starts at 0 and is looked up like any other; only its "
        "gradient is stopped.":
            class_mistake(rows=padding_as_zero),
        "dweight and start are wrong with padding_idx=0, and with no other: `if padding_idx` takes 0 for None. Ask "
        "`is not None`.":
            class_mistake(padding=lambda idx: idx or None),
        "start: the row of the padding does not begin at 0.":
            class_mistake(start=padding_starts_drawn),
        "start: the weights are not drawn from a normal distribution with mean 0 and standard deviation 1, as "
        "nn.Embedding's are. These are uniform, as `torch.rand` draws them; `torch.randn` is the normal one.":
            class_mistake(start=uniform),
        "start: the weights begin at 0. Then all words are the same word.":
            class_mistake(start=lambda self: nn.init.zeros_(self.weight)),
        "dweight loses contributions of ids that come more than once. Plain indexing, `self.weight[ids]`, adds them "
        "all.":
            class_mistake(rows=once_per_batch),
        "y has no gradient: `.detach()` or `.data` cut all of it off, not only the padding's.":
            class_mistake(rows=lambda self, ids: self.weight.detach()[ids] + 0 * self.weight.sum()),
    },
)  # fmt: skip
class Embedding(nn.Embedding):
    """torch.nn.Embedding, built from scratch."""


# --- Predict ---------------------------------------------------------------------------------------------------------


def table_count(parameters=lambda v, d: 2 * v * d, touched=lambda v, d, n, k: d * (min(n, v) + min(n * (1 + k), v))):
    """The counts of skip-gram with some of their pieces changed."""
    return lambda v, d, n, k: (parameters(v, d), touched(v, d, n, k))


@exercise(
    points=2, minutes=8, difficulty=1,
    cases=[
        dict(v=some(5000, 9000), d=some(50, 99), n=some(20, 40), k=some(3, 9)),
        dict(v=some(200, 300), d=some(10, 20), n=some(60, 90), k=some(5, 9)),
        dict(v=some(20, 40), d=some(5, 9), n=some(50, 99), k=some(2, 5)),
    ],
    hints=(
        "There are two tables, v rows of d numbers each.",
        "A gradient reaches the rows that are looked up: n centres in the one table, n contexts and n · k negatives in "
        "the other.",
        "No more rows than there are: `min(n, v)` in the one, `min(n * (1 + k), v)` in the other, times d.",
    ),
    mistakes={
        "parameters counts one table. Centres have theirs, contexts and negatives have another.":
            table_count(parameters=lambda v, d: v * d),
        "touched is all of them. Rows that are not looked up have the gradient 0.":
            table_count(touched=lambda v, d, n, k: 2 * v * d),
        "touched can exceed the table: n · (1 + k) ids are at most v different rows.":
            table_count(touched=lambda v, d, n, k: d * (n + n * (1 + k))),
        "touched forgets the contexts: table_out is asked for n · (1 + k) rows.":
            table_count(touched=lambda v, d, n, k: d * (min(n, v) + min(n * k, v))),
        "touched has k negatives in all. Every pair has k of its own: n · k.":
            table_count(touched=lambda v, d, n, k: d * (min(n, v) + min(n + k, v))),
        "touched forgets the negatives.":
            table_count(touched=lambda v, d, n, k: d * (min(n, v) + min(n, v))),
        "touched counts rows. Each row has d numbers.":
            table_count(touched=lambda v, d, n, k: min(n, v) + min(n * (1 + k), v)),
    },
)  # fmt: skip
def count_word_vectors(v, d, n, k) -> "parameters:, touched:":
    """The numbers in the tables of skip-gram, and how many a step can at most give a gradient other than 0."""
    sizes = [table.weight.numel() for table in (nn.Embedding(v, d, device="meta"), nn.Embedding(v, d, device="meta"))]
    rows = [len(torch.arange(v)[:asked]) for asked in (n, n + n * k)]
    return np.array(sum(sizes)), np.array(sum(rows) * d)


@exercise(
    points=2, minutes=10, difficulty=2,
    cases=[
        dict(v=some(50, 90), n=some(20, 60)),
        dict(v=2, n=2),
        dict(v=some(5, 9), n=some(10, 20)),
        dict(v=1, n=3),
    ],
    hints=(
        "Take one row. With what probability does one id, drawn evenly, miss it? And all n of them?",
        "It is hit with probability 1 − (1 − 1/v)ⁿ. The expected number of rows that are hit is the sum of these "
        "probabilities over the v rows.",
        "`v * (1 - (1 - 1 / v) ** n)`.",
    ),
    mistakes={
        "rows counts every id as a row of its own. Some ids are drawn more than once.":
            lambda v, n: float(min(n, v)),
        "rows is n, which may even exceed the table. Some ids are drawn more than once.":
            lambda v, n: float(n),
        "rows counts those that are missed.":
            lambda v, n: v * (1 - 1 / v) ** n,
        "rows is the probability for one row. There are v of them.":
            lambda v, n: 1 - (1 - 1 / v) ** n,
        "rows adds up n / v for each row: the chances of being hit by this or that id overlap.":
            lambda v, n: v * min(1.0, n / v) * (1 - 1e-4),
    },
)  # fmt: skip
def expected_rows(v, n) -> "rows:":
    """The expected number of different ids among n, drawn evenly and independently from v."""
    missed = torch.tensor(1 - 1 / v, dtype=torch.float64).expand(n).prod()
    return v - v * missed
