"""Lesson 20: attention that makes less: local, sparse, linear, at two scales, block by block, cached, grouped."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder.exercise import exercise, gradient_of


def tensors(*arrays):
    """Arrays as float64 tensors, for references that a script plays."""
    return [torch.from_numpy(np.array(array, float)) for array in arrays]


def gradients_of(forward, dy, *arrays):
    """Autograd's gradients of a torch function, as arrays."""
    leaves = [leaf.requires_grad_() for leaf in tensors(*arrays)]
    (upstream,) = tensors(dy)
    found = torch.autograd.grad((forward(*leaves) * upstream).sum(), leaves)
    return tuple(gradient.numpy() for gradient in found)


def large(rng, shape):
    """Numbers whose products are in the hundreds and thousands."""
    return 30 * rng.standard_normal(shape)


# What the wrong implementations below are made of.


def transposed(x):
    return x.swapaxes(-1, -2)


def softmax(scores, axis=-1):
    """Rows in which nothing is allowed give 0."""
    top = scores.max(axis=axis, keepdims=True)
    e = np.exp(scores - np.where(np.isfinite(top), top, 0))
    return e / np.maximum(e.sum(axis=axis, keepdims=True), 1e-300)


def attended(q, k, v, mask=None, scale=None, weigh=softmax):
    """Attention with all scores at once."""
    scores = q @ transposed(k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return weigh(scores if mask is None else np.where(mask, scores, -np.inf)) @ v


# --- Patterns --------------------------------------------------------------------------------------------------------

SELF = [
    dict(t=9, d=3, e=2, window=2, metered=True),
    dict(q=(2, 3, 6, 4), k=(2, 3, 6, 4), v=(2, 3, 6, 5), window=1),
    dict(q=lambda rng, sizes: large(rng, (1, 7, 2)), k=lambda rng, sizes: large(rng, (1, 7, 2)), v=(1, 7, 3), window=3),
    dict(t=5, d=2, e=3, window=0),
    dict(t=3, d=2, e=4, window=6),
    dict(t=1, d=1, e=2, window=2),
]


def near(offsets=lambda w: range(-w, w + 1), scale=None, wrap=False, padded=False):
    """Local attention, one offset after the other, with some of its pieces changed."""

    def attention(q, k, v, window):
        t, scores, values = q.shape[-2], [], []
        for offset in offsets(window):
            place = np.arange(t) + offset
            inside = (place >= 0) & (place < t)
            at = place % t
            score = (q * k[..., at, :]).sum(-1) * (q.shape[-1] ** -0.5 if scale is None else scale)
            beyond = score if wrap else np.where(inside, score, 0.0 if padded else -np.inf)
            scores.append(beyond)
            values.append(v[..., at, :] if wrap else v[..., at, :] * inside[:, None])
        weights = softmax(np.stack(scores, -1))
        return sum(weights[..., n, None] * value for n, value in enumerate(values))

    return attention


def band(t, window):
    i, j = np.indices((t, t))
    return np.abs(i - j) <= window


@exercise(
    script="local", points=5, minutes=30, difficulty=3, cases=SELF,
    hints=(
        "Write it for one query first: which slice of k and v does query i see, and what happens to the slice at the "
        "two ends of the sequence?",
        "A loop over the queries is right and cheap: `low, high = max(0, i - window), i + window + 1`, then scores, "
        "softmax and weighted sum with `k[..., low:high, :]`. `q[..., i : i + 1, :]` keeps the axis.",
        "Without a loop over queries: loop over the 2 · window + 1 offsets instead; pad k and v with `window` zeros at "
        "both ends, and set the scores of padded places to -inf before the softmax.",
        "In the loop: `scores = q[..., i : i + 1, :] @ k[..., low:high, :].swapaxes(-1, -2) / np.sqrt(d)`, the softmax "
        "of these few scores, times `v[..., low:high, :]`: that is row i of `y = np.empty_like(v)`.",
    ),
    mistakes={
        "work beyond the window: the numbers are right, but four times the length makes it compute far more than four "
        "times as many. Somewhere each query still meets all keys, and a mask throws most of that away. Cut k and v "
        "before you multiply.":
            lambda q, k, v, window: attended(q, k, v, band(q.shape[-2], window)),
        "y sees `window` keys in all. The window reaches that far to each side: 2 · window + 1 keys.":
            near(lambda w: range(-(w // 2), w // 2 + 1)),
        "y sees the past only: 0 <= i - j <= window. This window has two sides, |i - j| <= window.":
            near(lambda w: range(-w, 1)),
        "y lacks the last key on the right: a slice ends before its end. `i - window : i + window + 1`.":
            near(lambda w: range(-w, max(w, 1))),
        "y lacks the two keys at distance `window`: |i - j| <= window includes them.":
            near(lambda w: range(-max(w - 1, 0), max(w, 1))),
        "y goes round in a circle: the first query sees the last keys. Rolling does that; at the ends the window is "
        "simply shorter.":
            near(wrap=True),
        "y counts the padding as keys: a score of 0 is not nothing, its exponential is 1. Padded places need -inf "
        "before the softmax.":
            near(padded=True),
        "y lacks the division by √d.":
            near(scale=1.0),
        "y has the softmax over all keys, cut off afterwards, so that the weights no longer sum to 1. And the keys "
        "beyond the window have been paid for.":
            lambda q, k, v, window: (softmax(q @ transposed(k) * q.shape[-1] ** -0.5)
                                     * band(q.shape[-2], window)) @ v,
    },
)  # fmt: skip
def local_attention(q, k, v, window):
    """Each query attends to the keys at most `window` places away (Beltagy et al., 2020)."""
    places = torch.arange(q.shape[-2])
    mask = (places[:, None] - places).abs() <= window
    return F.scaled_dot_product_attention(*tensors(q, k, v), attn_mask=mask).numpy()


def pattern(rule):
    """strided_mask by another rule."""
    return lambda t, stride: rule(*np.indices((t, t)), stride)


@exercise(
    points=2, minutes=10, difficulty=1,
    cases=[dict(t=11, stride=3), dict(t=12, stride=4), dict(t=5, stride=1), dict(t=4, stride=9), dict(t=1, stride=2)],
    hints=(
        "`i = np.arange(t)[:, None]` and `j = np.arange(t)`: every condition on i and j is then a (t, t) array.",
        "Three conditions: j is not in the future; and it is near, or a whole number of strides back.",
        "`(j <= i) & ((i - j < stride) | ((i - j) % stride == 0))`. & binds tighter than <=: mind the brackets.",
    ),
    mistakes={
        "allowed looks into the future. Only j <= i.":
            pattern(lambda i, j, s: (np.abs(i - j) < s) | ((i - j) % s == 0)),
        "allowed lets strides reach into the future: & binds tighter than |, so that j <= i holds for the near keys "
        "alone. Brackets round the or.":
            pattern(lambda i, j, s: (j <= i) & (i - j < s) | ((i - j) % s == 0)),
        "allowed has no j <= i: i - j < stride holds for all of the future, too.":
            pattern(lambda i, j, s: (i - j < s) | ((i - j) % s == 0)),
        "allowed lacks the strides: only the near keys are there.":
            pattern(lambda i, j, s: (j <= i) & (i - j < s)),
        "allowed lacks the near keys: only every stride-th is there.":
            pattern(lambda i, j, s: (j <= i) & ((i - j) % s == 0)),
        "allowed has fixed columns, j a multiple of the stride, for every query. Strides are counted back from the "
        "query: i - j is the multiple.":
            pattern(lambda i, j, s: (j <= i) & ((i - j < s) | (j % s == 0))),
        "allowed lacks the diagonal: a token sees itself.":
            pattern(lambda i, j, s: (j < i) & ((i - j < s) | ((i - j) % s == 0))),
        "allowed is turned round: rows are queries, columns are keys.":
            pattern(lambda i, j, s: (i <= j) & ((j - i < s) | ((j - i) % s == 0))),
        "allowed wants both at once, near and a whole stride back: that leaves the diagonal. It is an or.":
            pattern(lambda i, j, s: (j <= i) & (i - j < s) & ((i - j) % s == 0)),
    },
)  # fmt: skip
def strided_mask(t, stride) -> "allowed: t t":
    """Query i may see itself and the stride - 1 keys before it, and every stride-th key back (Child et al., 2019)."""
    near_ones = torch.ones(t, t, dtype=torch.bool).tril().triu(1 - stride)
    back = sum((torch.eye(t).roll(-n * stride, 1).tril() for n in range(1, t // stride + 1)), torch.eye(t))
    return near_ones | (back > 0)


# --- Linear attention ------------------------------------------------------------------------------------------------

CROSS = [
    dict(t=5, s=7, d=3, e=2, metered=True),
    dict(q=(2, 3, 4, 3), k=(2, 3, 6, 3), v=(2, 3, 6, 5)),
    dict(q=lambda rng, sizes: np.abs(large(rng, (1, 4, 2))), k=lambda rng, sizes: np.abs(large(rng, (1, 3, 2))),
         v=(1, 3, 4)),
    dict(t=1, s=1, d=1, e=2),
    dict(t=4, s=1, d=2, e=3),
]  # fmt: skip


def phi(x):
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def phi_slope(x):
    return np.where(x > 0, 1.0, np.exp(np.minimum(x, 0)))


def linearised(feature=phi, feature_k=None, weigh=lambda q, k: q @ k.sum(-2)[..., None], scale=1.0):
    """Linear attention with some of its pieces changed."""

    def attention(q, k, v):
        fq, fk = feature(q * scale), (feature_k or feature)(k)
        return fq @ (transposed(fk) @ v) / weigh(fq, fk)

    return attention


@exercise(
    script="cross", points=3, minutes=20, difficulty=2, cases=CROSS,
    hints=(
        "φ first: np.where(x > 0, x + 1, np.exp(x)), number by number. np.exp of a large x overflows on the side that "
        "is not taken: give it np.minimum(x, 0).",
        "Brackets decide the cost. φ(q) @ (φ(k)ᵀ @ v): the bracket is a (d, e) matrix, however long the sequence.",
        "Each row still has to be divided by the sum of its weights, φ(q_i) · Σ φ(k_j): sum φ(k) over the keys first, "
        "then one product for each query.",
        "`fq @ (fk.swapaxes(-1, -2) @ v) / (fq @ fk.sum(axis=-2)[..., None])`, where fq and fk are φ(q) and φ(k).",
    ),
    mistakes={
        "a square of the length: the numbers are right, but somewhere all queries meet all keys in a (T, S) matrix. "
        "Multiply φ(k)ᵀ with v first.":
            lambda q, k, v: (w := phi(q) @ transposed(phi(k))) @ v / w.sum(-1, keepdims=True),
        "y lacks φ: q and k are multiplied as they are, and sums of weights can be 0 or negative.":
            linearised(feature=lambda x: x),
        "y has φ = elu, without the 1: then it is negative for x < 0.":
            linearised(feature=lambda x: phi(x) - 1),
        "y has φ on the queries only. The keys need it, too.":
            linearised(feature_k=lambda x: x),
        "y has φ = relu. φ is elu + 1: x + 1 for x > 0, eˣ below.":
            linearised(feature=lambda x: np.maximum(x, 0)),
        "y is a sum, not a mean: each row has to be divided by the sum of its weights, φ(q_i) · Σ φ(k_j).":
            linearised(weigh=lambda q, k: 1.0),
        "y is divided by the number of keys. The weights sum to φ(q_i) · Σ φ(k_j), row by row.":
            linearised(weigh=lambda q, k: k.shape[-2]),
        "y has its queries divided by √d. Here is no softmax whose scores could grow too large, and φ comes first.":
            lambda q, k, v: linearised(scale=q.shape[-1] ** -0.5)(q, k, v),
        "y is softmax attention: exact, and all queries meet all keys. Here φ(q) · φ(k) takes the exponential's place.":
            attended,
    },
)  # fmt: skip
def linear_attention(q, k, v):
    """Attention whose weights are φ(q)·φ(k), φ = elu + 1, summed over the keys first (Katharopoulos et al., 2020)."""
    return linear_weights(*tensors(q, k, v)).numpy()


def linear_weights(q, k, v, mask=None):
    """Linear attention as a matrix of weights: what it means, not how it is cheap."""
    weights = (F.elu(q) + 1) @ (F.elu(k) + 1).mT
    weights = weights if mask is None else weights * mask
    return weights / weights.sum(-1, keepdim=True) @ v


def prefix(feature=phi, sums=lambda x: np.cumsum(x, axis=-3), totals=lambda x: np.cumsum(x, axis=-2)):
    """Causal linear attention with some of its pieces changed."""

    def attention(q, k, v):
        fq, fk = feature(q), feature(k)
        states = sums(fk[..., :, None] * v[..., None, :])
        return (fq[..., None] * states).sum(-2) / (fq * totals(fk)).sum(-1)[..., None]

    return attention


def before(x, axis):
    """What a running sum was one step earlier."""
    return np.cumsum(x, axis=axis) - x


def after(x, axis):
    return np.flip(np.cumsum(np.flip(x, axis), axis), axis)


@exercise(
    script="linear", points=4, minutes=20, difficulty=2,
    cases=[
        dict(t=6, d=3, e=2, metered=True),
        dict(q=(2, 3, 5, 4), k=(2, 3, 5, 4), v=(2, 3, 5, 6)),
        dict(q=lambda rng, sizes: np.abs(large(rng, (1, 4, 2))), k=lambda rng, sizes: np.abs(large(rng, (1, 4, 2))),
             v=(1, 4, 3)),
        dict(t=1, d=2, e=3),
    ],
    hints=(
        "Query i sees the keys 0 … i. The two sums in linear_attention then run over those only: what changes from i "
        "to i + 1?",
        "Keep a matrix S (d, e) and a vector z (d,), both 0 at first. At each step add φ(k_i)ᵀ v_i and φ(k_i), then "
        "answer query i: it is an RNN.",
        "In a loop over i: `state = state + fk[..., i, :, None] * v[..., i, None, :]`, `total = total + fk[..., i, "
        ":]`, and `y[..., i, :]` is `(fq[..., i, None, :] @ state)[..., 0, :]` over `(fq[..., i, :] * total).sum(-1)`. "
        "Or np.cumsum, for all i at once.",
    ),
    mistakes={
        "a square of the length: the numbers are right, but all queries meet all keys, and a mask throws half of that "
        "away. Carry the sums along instead.":
            lambda q, k, v: (w := np.tril(phi(q) @ transposed(phi(k)))) @ v / w.sum(-1, keepdims=True),
        "y sees the future: that is linear_attention. Query i has the sums over the keys 0 … i.": linearised(),
        "y answers a query before its own key has been added. Query i sees key i, too.":
            lambda q, k, v: prefix(sums=lambda x: before(x, -3), totals=lambda x: before(x, -2))(q, k, v),
        "y divides by the sum over all keys. The sum in the denominator runs along with the other.":
            prefix(totals=lambda x: x.sum(-2, keepdims=True)),
        "y sees itself and the future: the sums run from the end.":
            prefix(sums=lambda x: after(x, -3), totals=lambda x: after(x, -2)),
        "y is a sum, not a mean: divide by φ(q_i) · z_i.":
            lambda q, k, v: prefix()(q, k, v) * (phi(q) * np.cumsum(phi(k), -2)).sum(-1)[..., None],
        "y lacks φ.": prefix(feature=lambda x: x),
        "y forgets: each step overwrites the sums, so that a query sees its own key only. += instead of =.":
            prefix(sums=lambda x: x, totals=lambda x: x),
    },
)  # fmt: skip
def causal_linear_attention(q, k, v):
    """Linear attention in which query i sees the keys 0 … i: a recurrent network whose state is a matrix."""
    return linear_weights(*tensors(q, k, v), torch.ones(q.shape[-2], q.shape[-2]).tril()).numpy()


def linear_back(slope=phi_slope, normaliser=True, upstream=True, sums=("q", "k"), order=transposed):
    """The backward pass of linear attention with some of its pieces changed."""

    def backward(dy, q, k, v):
        fq, fk = phi(q), phi(k)
        state, total = transposed(fk) @ v, fk.sum(-2)
        weight = fq @ total[..., None]
        y = fq @ state / weight
        dnumerator = dy / weight if upstream else dy
        dweight = -(dnumerator * y).sum(-1, keepdims=True) * normaliser
        dfq = dnumerator @ transposed(state)
        dfq = dfq + dweight * total[..., None, :] * ("q" in sums)
        dstate = transposed(fq) @ dnumerator
        dfk = v @ transposed(dstate) + transposed(transposed(fq) @ dweight) * ("k" in sums)
        return dfq * slope(q), dfk * slope(k), fk @ dstate

    return backward


def quadratic_back(dy, q, k, v):
    """The same gradients by way of the matrix of weights."""
    fq, fk = phi(q), phi(k)
    a = fq @ transposed(fk)
    total = a.sum(-1, keepdims=True)
    da = (dy @ transposed(v) - (dy * (a @ v / total)).sum(-1, keepdims=True)) / total
    return da @ fk * phi_slope(q), transposed(da) @ fq * phi_slope(k), transposed(a / total) @ dy


def one_slope(place):
    """φ' left out for the queries or for the keys."""

    def backward(dy, q, k, v):
        dq, dk, dv = linear_back()(dy, q, k, v)
        return (dq / phi_slope(q), dk, dv) if place == "q" else (dq, dk / phi_slope(k), dv)

    return backward


@exercise(
    script="cross_gradient", points=5, minutes=35, difficulty=3,
    cases=[CROSS[0], CROSS[1] | dict(dy=(2, 3, 4, 5)), CROSS[2] | dict(dy=(1, 4, 4)), *CROSS[3:]],
    hints=(
        "Name the pieces of the forward pass: a = φ(q), b = φ(k), S = bᵀ v (d, e), z = Σ b_j (d,), n = a S (T, e), "
        "w = a · z (T, 1), y = n / w. Go through them backwards, one at a time.",
        "The quotient: dn = dy / w, and dw_i = - Σ dy_ie · y_ie / w_i, one number for each query.",
        "From n = a S and w = a · z: da = dn Sᵀ + dw z (a row of numbers times a vector), dS = aᵀ dn, dz = aᵀ dw.",
        "From S = bᵀ v and z = Σ b_j: db = v dSᵀ + dz (the same for every key), dv = b dS. Then dq = da · φ'(q) and "
        "dk = db · φ'(k), with φ'(x) = 1 for x > 0 and eˣ below.",
    ),
    mistakes={
        "a square of the length: the gradients are right, but a (T, S) matrix is made on the way. dS and dz, of the "
        "sizes of S and z, carry all that the keys and values need.": quadratic_back,
        "dq and dk lack φ': a step through φ multiplies by its slope, 1 above 0 and eˣ below.":
            linear_back(slope=lambda x: 1.0),
        "dq lacks φ'. The queries went through φ, too.": one_slope("q"),
        "dk lacks φ'. The keys went through φ, too.": one_slope("k"),
        "dq and dk take the denominator for a constant. It depends on q and k, as in any quotient.":
            linear_back(normaliser=False),
        "dq and dk have dw with the wrong sign: the derivative of 1/w is -1/w².": linear_back(normaliser=-1),
        "dq takes the denominator w = a · z for a constant: it gets dw · z besides.": linear_back(sums=("k",)),
        "dk takes z for a constant. z is the sum of φ(k): every key gets dz besides.": linear_back(sums=("q",)),
        "dq, dk and dv are too large where weights are: y = n / w, so that dn is dy / w.": linear_back(upstream=False),
    },
)  # fmt: skip
def linear_attention_backward(dy, q, k, v):
    """The gradients of linear_attention, as cheap as itself."""
    return gradients_of(linear_weights, dy, q, k, v)


# --- Two scales ------------------------------------------------------------------------------------------------------

SCALES = [
    dict(t=12, d=3, e=2, block=2, metered=True),
    dict(q=(2, 3, 12, 4), k=(2, 3, 12, 4), v=(2, 3, 12, 5), block=3),
    dict(q=lambda rng, sizes: large(rng, (1, 10, 2)), k=lambda rng, sizes: large(rng, (1, 10, 2)), v=(1, 10, 3),
         block=2),
    dict(t=4, d=3, e=5, block=1),
    dict(t=6, d=2, e=3, block=3),
    dict(t=1, d=1, e=2, block=1),
]  # fmt: skip


def two_scales(reach=1, weight=np.log, own=False, pool=np.mean, pool_v=np.mean, scale=None, apart=False, start=0):
    """Attention to near keys one by one and to far ones as summaries, with some of its pieces changed."""

    def attention(q, k, v, block):
        t, by = q.shape[-2], q.shape[-1] ** -0.5
        n, root = t // block, by if scale is None else scale
        blocks_k, blocks_v = (x.reshape(*x.shape[:-2], n, block, -1) for x in (k, v))
        far_k, far_v = pool(blocks_k, axis=-2), pool_v(blocks_v, axis=-2)
        y = []
        for b in range(n):
            low, high = max(start, (b - reach) * block), min(t, (b + reach + 1) * block)
            rows = q[..., b * block : (b + 1) * block, :]
            far = [c for c in range(n) if own or abs(c - b) > reach]
            near_scores = rows @ transposed(k[..., low:high, :]) * by
            far_scores = rows @ transposed(far_k[..., far, :]) * root + weight(block)
            if apart and far:
                part = softmax(near_scores) @ v[..., low:high, :] + softmax(far_scores) @ far_v[..., far, :]
            else:
                weights = softmax(np.concatenate([near_scores, far_scores], -1))
                part = weights @ np.concatenate([v[..., low:high, :], far_v[..., far, :]], -2)
            y.append(part)
        return np.concatenate(y, -2)

    return attention


def multiscale_squared(q, k, v, block):
    """The right numbers by way of a full matrix of scores."""
    t = q.shape[-2]
    far_k, far_v = (np.repeat(x.reshape(*x.shape[:-2], t // block, block, -1).mean(-2), block, -2) for x in (k, v))
    place = np.arange(t) // block
    is_near = np.abs(place[:, None] - place) <= 1
    scores = np.where(is_near, q @ transposed(k), q @ transposed(far_k)) * q.shape[-1] ** -0.5
    weights = softmax(scores)
    return (weights * is_near) @ v + (weights * ~is_near) @ far_v


@exercise(
    script="multiscale", points=5, minutes=35, difficulty=3, cases=SCALES,
    hints=(
        "Summaries first: reshape k (…, t, d) to (…, t / block, block, d) and take the mean over the block's axis; the "
        "same for v. Then a loop over the blocks of queries is enough.",
        "Block b sees the keys from `max(0, (b - 1) * block)` to `(b + 2) * block` one by one, and the summaries of "
        "all blocks c with |c - b| > 1.",
        "One softmax over both kinds of score: np.concatenate([near, far], axis=-1). A summary speaks for `block` "
        "keys, so its exponential has to count `block` times: add np.log(block) to its score.",
        "`y[…, rows, :] = softmax(concatenated scores) @ np.concatenate([near values, far values], axis=-2)`. Both "
        "kinds of score are divided by √d, before the logarithm is added.",
    ),
    mistakes={
        "a square of the length: the numbers are right, but every query meets every key, or a copy of a summary for "
        "every key. Each far block is one column.": multiscale_squared,
        "y counts a summary like one key. It speaks for `block` of them: add log(block) to its score.":
            two_scales(weight=lambda block: 0.0),
        "y multiplies summaries in by adding `block` to their scores. Scores are logarithms: add log(block).":
            two_scales(weight=lambda block: float(block)),
        "y counts the near blocks twice, one by one and as summaries. Summaries are for the far blocks only.":
            two_scales(own=True),
        "y sees only its own block one by one. The blocks next to it are near, too.": two_scales(reach=0),
        "y has sums of keys for summaries. A sum of keys has scores `block` times as large: take the mean.":
            two_scales(pool=np.sum),
        "y has sums of values for summaries. With log(block) the summary already counts `block` times: take the mean.":
            two_scales(pool_v=np.sum),
        "y has two softmaxes, one for near keys and one for summaries, so that its weights sum to 2. One softmax runs "
        "over both.": two_scales(apart=True),
        "y has sums of keys and of values for summaries: take means.": two_scales(pool=np.sum, pool_v=np.sum),
        "y lacks the division by √d in the scores of the summaries.": two_scales(scale=1.0),
        "y lacks the division by √d in both kinds of score.":
            lambda q, k, v, block: two_scales()(q * q.shape[-1] ** 0.5, k, v, block),
        "y has log(block) divided by √d, too. First the root, then the logarithm.":
            lambda q, k, v, block: two_scales(weight=lambda b: np.log(b) / q.shape[-1] ** 0.5)(q, k, v, block),
        "y is wrong for the first block: (b - 1) * block is negative there, and a slice with a negative start counts "
        "from the end. Take max(0, …).": two_scales(start=-np.inf),
        "y has no summaries: only the near keys are there.":
            two_scales(weight=lambda block: -np.inf),
        "y is exact attention. Far keys are seen as averages.": lambda q, k, v, block: attended(q, k, v),
    },
)  # fmt: skip
def multiscale_attention(q, k, v, block):
    """Keys of the own and the two adjacent blocks one by one, each other block as one average that counts as many."""
    q, k, v = tensors(q, k, v)
    t = q.shape[-2]
    place = torch.arange(t).div(block, rounding_mode="floor")
    is_near = (place[:, None] - place).abs() <= 1
    centre = (place[:, None] == place).double() / block  # averages each block, and hands the average to its members
    exact, coarse = (q @ keys.mT / q.shape[-1] ** 0.5 for keys in (k, centre @ k))
    weights = torch.where(is_near, exact, coarse).softmax(-1)
    return ((weights * is_near) @ v + (weights * ~is_near) @ (centre @ v)).numpy()


# --- Block by block --------------------------------------------------------------------------------------------------

STREAMED = [
    dict(t=4, s=7, d=3, e=2, block=3, metered=True),
    dict(q=(2, 3, 5, 4), k=(2, 3, 6, 4), v=(2, 3, 6, 5), block=2),
    dict(q=lambda rng, sizes: large(rng, (1, 5, 2)), k=lambda rng, sizes: large(rng, (1, 6, 2)), v=(1, 6, 3), block=2),
    dict(q=lambda rng, sizes: 20 + np.abs(large(rng, (1, 3, 2))),
         k=lambda rng, sizes: -20 - np.abs(large(rng, (1, 5, 2))), v=(1, 5, 4), block=2),
    dict(t=3, s=4, d=2, e=1, block=9),
    dict(t=1, s=1, d=1, e=2, block=1),
]  # fmt: skip


def streamed(rescale_sum=True, rescale_y=True, start=-np.inf, top=np.maximum, scale=None, count=None, end=None):
    """Attention over one block of keys after the other, with some of its pieces changed."""

    def attention(q, k, v, block):
        s, scale_by = k.shape[-2], q.shape[-1] ** -0.5 if scale is None else scale
        m = np.full((*q.shape[:-1], 1), start)
        total, y = np.zeros_like(m), np.zeros((*q.shape[:-1], v.shape[-1]))
        for low in range(0, s if end is None else end(s, block), block):
            scores = q @ transposed(k[..., low : low + block, :]) * scale_by
            now = top(m, scores.max(-1, keepdims=True))
            p, shrink = np.exp(scores - now), np.exp(m - now)
            total = total * (shrink if rescale_sum else 1) + p.sum(-1, keepdims=True)
            y = y * (shrink if rescale_y else 1) + p @ v[..., low : low + block, :]
            m = now
        return y / (total if count is None else count(total, s))

    return attention


def averaged_blocks(q, k, v, block):
    """A softmax in every block, and the mean of what they give."""
    parts = [attended(q, k[..., low : low + block, :], v[..., low : low + block, :])
             for low in range(0, k.shape[-2], block)]  # fmt: skip
    return np.mean(parts, axis=0)


def whole_blocks(s, block):
    """Where the last block that is full ends."""
    return s // block * block


@exercise(
    script="online", points=6, minutes=40, difficulty=3, tolerance=1e-12, cases=STREAMED,
    forbids=("attention_forward", "attention_weights"),
    hints=(
        "Three things are carried from block to block, one row each for every query: the largest score so far m, the "
        "sum of the exponentials so far l, and the weighted sum of values so far y (not yet divided).",
        "With a block of scores comes a new maximum, m_new = the larger of m and the block's. What is already in l "
        "and y was computed with the old one: both are to be multiplied by exp(m - m_new).",
        "Start with m = -inf, l = 0, y = 0: exp(-inf - m_new) is 0, and nothing is carried into the first block. "
        "Divide by l once, after the last block.",
        "In the loop: `m_new = np.maximum(m, scores.max(axis=-1, keepdims=True))`, `p = np.exp(scores - m_new)`, "
        "`shrink = np.exp(m - m_new)`, `l = l * shrink + p.sum(axis=-1, keepdims=True)`, `y = y * shrink + p @ "
        "v[..., low : low + block, :]`, `m = m_new`.",
    ),
    mistakes={
        "the score matrix in memory: the numbers are right, but all scores are there at one time. Compute q @ kᵀ for "
        "one block of keys, use it, and let it go.": lambda q, k, v, block: attended(q, k, v),
        "y has a running sum that is not rescaled when the maximum changes: old exponentials were taken with the old "
        "maximum. Multiply the sum by exp(m - m_new), as you do with y.": streamed(rescale_sum=False),
        "y keeps old blocks as they were when the maximum changes. Multiply what is in y by exp(m - m_new), as you do "
        "with the sum.": streamed(rescale_y=False),
        "y and its sum are not rescaled when the maximum changes: blocks with different maxima are added as if they "
        "had the same.": streamed(rescale_sum=False, rescale_y=False),
        "y is the mean of a softmax in each block. Blocks have different shares of the whole: carry their sums.":
            averaged_blocks,
        "y has no maximum subtracted: exp of a score near 1000 is too large for a float.":
            streamed(start=0.0, top=lambda m, block: m),
        "y starts with a maximum of 0. If all scores are far below 0, all exponentials are 0: start with -inf.":
            streamed(start=0.0),
        "y takes the last block's maximum for the running one, so that exp(m - m_new) grows without bound when the "
        "maximum falls. It must never fall: np.maximum(m, the block's).":
            streamed(top=lambda m, block: block),
        "y lacks the keys after the last full block. The last block may be shorter: a slice does that by itself.":
            streamed(end=whole_blocks),
        "y lacks the division by √d.": streamed(scale=1.0),
        "y is not divided by the sum of the exponentials at the end.": streamed(count=lambda total, s: 1.0),
    },
)  # fmt: skip
def online_softmax_attention(q, k, v, block):
    """Exact attention that holds the scores of one block of keys at a time (Rabe and Staats, 2021)."""
    return F.scaled_dot_product_attention(*tensors(q, k, v)).numpy()


def streamed_back(correction="row", scale=True, probabilities="row", collect=True, dv_from=None):
    """The backward pass block by block, with some of its pieces changed."""

    def backward(dy, q, k, v, block):
        root = q.shape[-1] ** -0.5
        y = streamed()(q, k, v, block)
        log_total = highest = -np.inf * np.ones((*q.shape[:-1], 1))
        for low in range(0, k.shape[-2], block):
            scores = q @ transposed(k[..., low : low + block, :]) * root
            top = scores.max(-1, keepdims=True)
            highest = np.maximum(highest, top)
            log_total = np.logaddexp(log_total, top + np.log(np.exp(scores - top).sum(-1, keepdims=True)))
        y = y * np.exp(log_total - highest) if correction == "undivided" else y
        dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
        for low in range(0, k.shape[-2], block):
            at = (..., slice(low, low + block), slice(None))
            scores = q @ transposed(k[at]) * root
            if probabilities == "block":
                p = softmax(scores)
            else:
                p = np.exp(scores - (highest if probabilities == "top" else log_total))
            dp = dy @ transposed(v[at])
            row = (p * dp if correction == "block" else dy * y).sum(-1, keepdims=True)
            ds = p * (dp - (row if correction else 0)) * (root if scale else 1)
            dq = ds @ k[at] + (dq if collect else 0)
            dk[at], dv[at] = transposed(ds) @ q, transposed(p) @ dy
        return dq, dk, dv

    return backward


def whole_back(dy, q, k, v, block):
    p = softmax(q @ transposed(k) * q.shape[-1] ** -0.5)
    dp = dy @ transposed(v)
    ds = p * (dp - (p * dp).sum(-1, keepdims=True)) * q.shape[-1] ** -0.5
    return ds @ k, transposed(ds) @ q, transposed(p) @ dy


@exercise(
    script="online_gradient", points=6, minutes=45, difficulty=3, tolerance=1e-10,
    forbids=("attention_forward", "attention_backward", "attention_weights"),
    cases=[
        STREAMED[0], STREAMED[1] | dict(dy=(2, 3, 5, 5)), STREAMED[2] | dict(dy=(1, 5, 3)), STREAMED[4], STREAMED[5],
    ],
    hints=(
        "Two passes over the keys. The first is online_softmax_attention once more, and keeps for each query its y "
        "and its log-sum-exp L = m + log l. The second works out the gradients, block by block.",
        "With L the weights of any block come back without the others: p = exp(scores - L). That is why the (T, S) "
        "matrix needs no keeping.",
        "The softmax's backward pass needs Σ p · dp over the whole row, which no block knows. But Σ_j p_ij (dy_i · "
        "v_j) is dy_i · Σ_j p_ij v_j = dy_i · y_i: `D = (dy * y).sum(axis=-1, keepdims=True)`, before the loop.",
        "In the loop, with k_b, v_b the block's slices: `ds = p * (dy @ v_bᵀ - D) / √d`, then dq += ds @ k_b, and the "
        "block's slices of dk and dv are dsᵀ @ q and pᵀ @ dy.",
    ),
    mistakes={
        "the score matrix in memory: the gradients are right, but all scores are there at one time. Compute them "
        "again, one block at a time.": whole_back,
        "dq and dk have a correction for each block, the sum of p · dp over the block. It runs over the whole row, and "
        "is dy · y.": streamed_back(correction="block"),
        "dq and dk lack the softmax's correction: ds is p · (dp - D), with D = dy · y, row by row.":
            streamed_back(correction=None),
        "dq and dk lack the 1/√d: scores are q · k / √d, so that both get the factor back.":
            streamed_back(scale=False),
        "dq, dk and dv have weights that sum to 1 in each block. Over the whole row they do: p = exp(scores - L), with "
        "L of all keys.": streamed_back(probabilities="block"),
        "dq, dk and dv have weights that do not sum to 1: exp(scores - m) still has to be divided by l. With L = m + "
        "log l, exp(scores - L) does both.": streamed_back(probabilities="top"),
        "dq and dk have a D from the y that is not yet divided by l.": streamed_back(correction="undivided"),
        "dq keeps the last block only. A query collects from all keys: += instead of =.":
            streamed_back(collect=False),
    },
)  # fmt: skip
def online_softmax_attention_backward(dy, q, k, v, block):
    """The gradients of attention, the weights computed again block by block (Dao et al., 2022)."""
    return gradients_of(F.scaled_dot_product_attention, dy, q, k, v)


# --- The cache -------------------------------------------------------------------------------------------------------


def split(x, heads):
    """(n, 1, heads · d) -> (n, heads, 1, d)"""
    return x.reshape(len(x), x.shape[1], heads, -1).swapaxes(1, 2)


def cached(cut=split, join=lambda keys, key: np.concatenate([keys, key], 2), seen=lambda keys: keys, scale=None,
           back=lambda y: y.swapaxes(1, 2).reshape(len(y), 1, -1)):  # fmt: skip
    """One step with a cache, with some of its pieces changed."""

    def step(x, keys, values, w_q, w_k, w_v, w_o, num_heads):
        q, key, value = (cut(x @ w.T, num_heads) for w in (w_q, w_k, w_v))
        keys, values = join(keys, key), join(values, value)
        y = back(attended(q, seen(keys), seen(values), scale=scale))
        return y @ w_o.T, keys, values

    return step


def forgotten(x, keys, values, w_q, w_k, w_v, w_o, num_heads):
    """y with the new token, but a cache without it."""
    y, *_ = cached()(x, keys, values, w_q, w_k, w_v, w_o, num_heads)
    return y, keys, values


def swapped_caches(x, keys, values, w_q, w_k, w_v, w_o, num_heads):
    y, keys, values = cached()(x, keys, values, w_q, w_k, w_v, w_o, num_heads)
    return y, values, keys


@exercise(
    points=5, minutes=25, difficulty=2,
    cases=[
        dict(n=2, m=7, h=3, t=4, d=1, p=3, e=6, r=18, u=5, num_heads=3),
        dict(n=3, m=4, h=1, t=2, d=3, p=3, e=2, r=2, u=3, num_heads=1),
        dict(n=1, m=6, h=2, t=0, d=3, p=6, e=4, r=8, u=1, num_heads=2),
        dict(n=1, m=3, h=2, t=5, d=2, p=4, e=2, r=4, u=6, num_heads=2,
             x=lambda rng, sizes: large(rng, (1, 1, 3)), keys=lambda rng, sizes: large(rng, (1, 2, 5, 2))),
    ],
    hints=(
        "Only the new token is projected: three products of x (n, 1, m) with the transposed weights. What do the old "
        "tokens still have to say? Their keys and values, which are in the cache.",
        "(n, 1, heads · d) becomes (n, 1, heads, d) by reshape and (n, heads, 1, d) by swapaxes(1, 2). The new key and "
        "value go behind the old ones: np.concatenate along axis 2.",
        "One query sees all keys that are there, itself included: no mask is needed. attention_forward takes (n, "
        "heads, 1, d) and (n, heads, t + 1, d) as they are; then heads back side by side, and w_o.",
    ),
    mistakes={
        "y is attention to the old tokens alone (with an empty cache: to nothing). The new token sees itself, too: "
        "append first.":
            lambda x, keys, values, w_q, w_k, w_v, w_o, num_heads: (
                attended(split(x @ w_q.T, num_heads), keys, values).swapaxes(1, 2).reshape(len(x), 1, -1) @ w_o.T
                if keys.shape[2] else np.zeros(x.shape),
                *cached()(x, keys, values, w_q, w_k, w_v, w_o, num_heads)[1:]),
        "keys and values come back without the new token. The next step needs it.": forgotten,
        "keys and values have the new token in front. Tokens stay in the order of time.":
            cached(join=lambda keys, key: np.concatenate([key, keys], 2)),
        "keys and values have come back in each other's place.": swapped_caches,
        "y, keys and values mix up the heads: head 0 has the first d numbers of a projection. (…, heads · d) becomes "
        "(…, heads, d), not (…, d, heads).":
            cached(cut=lambda x, heads: x.reshape(len(x), 1, -1, heads).transpose(0, 3, 1, 2)),
        "y lacks the division by √d.": cached(scale=1.0),
        "y is divided by the root of the whole width. Each head has its own d: √(keys.shape[-1]).":
            lambda x, keys, values, w_q, *rest: cached(scale=len(w_q) ** -0.5)(x, keys, values, w_q, *rest),
    },
)  # fmt: skip
def kv_cache_step(x: "n 1 m", keys: "n h t d", values: "n h t e", w_q: "p m", w_k: "p m", w_v: "r m", w_o: "m r",
                  num_heads) -> "y: n 1 m, keys: n h u d, values: n h u e":  # fmt: skip
    """One token more: its key and value join the cache, and its query meets all that is there."""
    q, key, value = (F.linear(x, w).unflatten(-1, (num_heads, -1)).transpose(1, 2) for w in (w_q, w_k, w_v))
    keys, values = torch.cat([keys, key], 2), torch.cat([values, value], 2)
    y = F.scaled_dot_product_attention(q, keys, values)
    return F.linear(y.transpose(1, 2).flatten(2), w_o), keys, values


# --- Grouped queries -------------------------------------------------------------------------------------------------


def some_allowed(*shape):
    """A mask in which some row is allowed nothing; the same for every seed, so that a report can show it."""
    mask = np.random.default_rng(1).random(shape) < 0.6
    mask[..., 0, :] = False
    return mask


GROUPED = [
    dict(n=2, h=6, t=4, d=5, g=3, s=7, e=8),
    dict(n=1, h=4, t=3, d=2, g=2, s=3, e=5, mask=np.tri(3, dtype=bool)),
    dict(n=2, h=4, t=2, d=3, g=2, s=5, e=1, mask=some_allowed(2, 1, 2, 5)),
    dict(n=1, h=4, t=1, d=2, g=1, s=4, e=3),
    dict(n=1, h=1, t=3, d=1, g=1, s=2, e=3, mask=some_allowed(3, 2)),
    dict(n=1, h=6, t=3, d=2, g=2, s=4, e=3, q=lambda rng, sizes: large(rng, (1, 6, 3, 2)),
         k=lambda rng, sizes: large(rng, (1, 2, 4, 2))),
]  # fmt: skip


def shared(spread=lambda x, h: np.repeat(x, h // x.shape[1], axis=1), use_mask=True, scale=None, weigh=softmax):
    """Grouped-query attention with some of its pieces changed."""

    def attention(q, k, v, mask=None):
        k, v = (spread(x, q.shape[1]) for x in (k, v))
        return attended(q, k, v, mask if use_mask else None, scale, weigh)

    return attention


def dealt(x, h):
    return np.tile(x, (1, h // x.shape[1], 1, 1))


def first_group(x, h):
    return np.repeat(x[:, :1], h, axis=1)


def bare_softmax(scores):
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@exercise(
    points=3, minutes=15, difficulty=2, cases=GROUPED,
    hints=(
        "h query heads, g groups: h // g neighbouring heads share one set of keys and values. Which group does head 3 "
        "of 6 use if there are 3 groups?",
        "np.repeat(k, h // g, axis=1) makes one copy for each head, in the right order; np.tile would deal the groups "
        "out like cards. Then it is attention_forward.",
        "Without copies: q.reshape(n, g, h // g, t, d) against k[:, :, None]; a mask then needs the same axes. Copies "
        "are simpler here.",
    ),
    mistakes={
        "y deals the groups out like cards: head i uses group i mod g. Neighbouring heads share a group, head i uses "
        "group i // (h // g): np.repeat, not np.tile.": shared(dealt),
        "y uses the first group for all heads. That is multi-query attention, the case g = 1.": shared(first_group),
        "y uses the mean of all groups for every head.":
            shared(lambda x, h: np.repeat(x.mean(1, keepdims=True), h, axis=1)),
        "y ignores the mask.": shared(use_mask=False),
        "y is nan where a query may see no key. Define it as 0, as attention_forward does.": shared(weigh=bare_softmax),
        "y lacks the division by √d.": shared(scale=1.0),
        "y takes the softmax over the queries. Each query's weights sum to 1 over the keys: axis -1.":
            shared(weigh=lambda scores: softmax(scores, axis=-2)),
    },
)  # fmt: skip
def grouped_query_attention(q: "n h t d", k: "n g s d", v: "n g s e", mask=None) -> "y: n h t e":
    """Attention in which h // g neighbouring heads share one set of keys and values (Ainslie et al., 2023)."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if mask is None:
        return scores.softmax(-1) @ v
    scores = scores.masked_fill(~mask, -torch.inf)
    nothing = ~mask.expand(scores.shape).any(-1, keepdim=True)
    return scores.masked_fill(nothing, 0).softmax(-1).masked_fill(nothing, 0) @ v


def shared_back(collect=lambda dx, g: dx.reshape(len(dx), g, -1, *dx.shape[2:]).sum(2), spread=None, scale_back=True,
                use_mask=True, correction=True):  # fmt: skip
    """The backward pass of grouped-query attention with some of its pieces changed."""
    spread = spread or (lambda x, h: np.repeat(x, h // x.shape[1], axis=1))

    def backward(dy, q, k, v, mask=None):
        g, root = k.shape[1], q.shape[-1] ** -0.5
        ks, vs = (spread(x, q.shape[1]) for x in (k, v))
        scores = q @ transposed(ks) * root
        p = softmax(scores if mask is None or not use_mask else np.where(mask, scores, -np.inf))
        dp = dy @ transposed(vs)
        ds = p * (dp - (p * dp).sum(-1, keepdims=True) * correction) * (root if scale_back else 1)
        return ds @ ks, collect(transposed(ds) @ q, g), collect(transposed(p) @ dy, g)

    return backward


gradient_of(
    grouped_query_attention, wrt="q k v", points=4, minutes=20, difficulty=2,
    hints=(
        "A number that is used several times collects as many gradients. Who has used k[:, 0]?",
        "Repeat k and v as in the forward pass and call attention_backward: it returns a gradient for every copy. "
        "dq is done with that.",
        "The copies of a group stand side by side: reshape (n, h, s, d) to (n, g, h // g, s, d) and sum over axis 2. "
        "For dk and for dv.",
    ),
    mistakes={
        "dk and dv are means over the heads of a group. Each of them used the same keys: a sum.":
            shared_back(lambda dx, g: dx.reshape(len(dx), g, -1, *dx.shape[2:]).mean(2)),
        "dk and dv come from the first head of each group. All heads of a group have used them.":
            shared_back(lambda dx, g: dx.reshape(len(dx), g, -1, *dx.shape[2:])[:, :, 0]),
        "dk and dv add up heads of different groups: the copies of a group are neighbours. Reshape to (n, g, h // g, "
        "…), not (n, h // g, g, …).":
            shared_back(lambda dx, g: dx.reshape(len(dx), -1, g, *dx.shape[2:]).sum(1)),
        "dq, dk and dv belong to another layer: the groups are dealt out like cards. Neighbouring heads share a group.":
            shared_back(lambda dx, g: dx.reshape(len(dx), -1, g, *dx.shape[2:]).sum(1), spread=dealt),
        "dq and dk lack the 1/√d.": shared_back(scale_back=False),
        "dq and dk lack the softmax's correction, - Σ p · dp in each row.": shared_back(correction=False),
        "dq, dk and dv ignore the mask.": shared_back(use_mask=False),
    },
)  # fmt: skip


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class GroupedQueryAttention(nn.Module):
    """Causal attention with h query heads, g key-value heads and a cache (Ainslie et al., 2023).

    The layers are `q_proj`, `k_proj`, `v_proj` and `o_proj`, without biases.
    """

    def __init__(self, embed_dim, num_heads, num_kv_heads):
        super().__init__()
        self.heads, self.groups, d = num_heads, num_kv_heads, embed_dim // num_heads
        self.q_proj, self.o_proj = (nn.Linear(embed_dim, embed_dim, bias=False) for _ in range(2))
        self.k_proj, self.v_proj = (nn.Linear(embed_dim, num_kv_heads * d, bias=False) for _ in range(2))

    def forward(self, x, cache=None):
        q = self.q_proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = (proj(x).unflatten(-1, (self.groups, -1)).transpose(1, 2) for proj in (self.k_proj, self.v_proj))
        if cache is not None:
            k, v = self.join(cache[0], k), self.join(cache[1], v)
        y = F.scaled_dot_product_attention(q, *map(self.spread, (k, v)), attn_mask=self.mask(x.shape[1], k.shape[2]))
        return self.o_proj(self.together(y)), self.kept(k, v)

    def join(self, old, new):
        return torch.cat([old, new], 2)

    def spread(self, x):
        return x.repeat_interleave(self.heads // self.groups, 1)

    def mask(self, t, s):
        return torch.ones(t, s, dtype=torch.bool).tril(s - t)

    def together(self, y):
        return y.transpose(1, 2).flatten(2)

    def kept(self, k, v):
        return k, v


def grouped_with(**changes):
    return type("GroupedQueryAttention", (GroupedQueryAttention,), changes)


def cached_case(embed_dim, num_heads, num_kv_heads, cuts, x):
    """A layer and an x (n, t, m), which goes in whole and in pieces that end at `cuts`."""
    shapes = {name: tuple(value.shape) for name, value in
              GroupedQueryAttention(embed_dim, num_heads, num_kv_heads).state_dict().items()}  # fmt: skip
    return dict(
        embed_dim=embed_dim, num_heads=num_heads, num_kv_heads=num_kv_heads, cuts=cuts, x=x,
        state=lambda rng, sizes: {name: 0.7 * rng.standard_normal(shape) for name, shape in sorted(shapes.items())},
    )  # fmt: skip


exercise(
    script="grouped", points=6, minutes=30, difficulty=3,
    draws=dict(seed=lambda rng, sizes: int(rng.integers(2**31))),
    cases=[
        cached_case(8, 4, 2, [3, 4, 5], (2, 7, 8)),
        cached_case(6, 2, 2, [1, 2], (3, 4, 6)),
        cached_case(6, 3, 1, [2], (1, 5, 6)),
        cached_case(4, 1, 1, [], (2, 1, 4)),
    ],
    hints=(
        "d = embed_dim // num_heads. q_proj and o_proj are embed_dim to embed_dim, k_proj and v_proj embed_dim to "
        "num_kv_heads · d; nn.Linear(…, bias=False).",
        "k and v come to (n, num_kv_heads, t, d). With a cache the old ones go in front, torch.cat along dim 2; what "
        "is returned as the new cache is this pair, before it is repeated for the heads.",
        "`F.scaled_dot_product_attention(q, k, v, attn_mask=mask)` takes a boolean mask, True is allowed. Repeat k and "
        "v with `repeat_interleave(num_heads // num_kv_heads, dim=1)`.",
        "The mask for t new tokens and s keys in all: new token i stands at place s - t + i. `torch.ones(t, s, "
        "dtype=torch.bool, device=x.device).tril(s - t)`.",
    ),
    mistakes={
        "y in pieces has a mask that starts at the upper left: with a cache, the first new token may see all old ones. "
        "tril(s - t); `is_causal=True` is made for t = s.":
            grouped_with(mask=lambda self, t, s: torch.ones(t, s, dtype=torch.bool).tril()),
        "y looks into the future: there is no causal mask.":
            grouped_with(mask=lambda self, t, s: None),
        "y in pieces looks ahead within a piece: with a cache no mask is used. A piece of several tokens needs one.":
            grouped_with(mask=lambda self, t, s: GroupedQueryAttention.mask(self, t, s) if s == t else None),
        "y in pieces has the new keys before the old ones.":
            grouped_with(join=lambda self, old, new: torch.cat([new, old], 2)),
        "y in pieces knows nothing of the cache: the old keys and values go in front of the new ones.":
            grouped_with(join=lambda self, old, new: new),
        "y mixes up heads and tokens: (n, h, t, d) is reshaped at once. Before that comes transpose(1, 2), as on the "
        "way in.":
            grouped_with(together=lambda self, y: y.reshape(len(y), y.shape[2], -1)),
        "y deals the key-value heads out like cards: neighbouring query heads share one. Take repeat_interleave.":
            grouped_with(spread=lambda self, x: x.repeat(1, self.heads // self.groups, 1, 1)),
        "keys and values hold a copy for every query head. The cache is small because it has num_kv_heads of them: "
        "repeat after you have kept them.": grouped_with(
            join=lambda self, old, new: torch.cat([old[:, :: self.heads // self.groups], new], 2),
            kept=lambda self, k, v: (self.spread(k), self.spread(v))),
        "dx and dparameters lack what flows through keys and values: they are detached for the cache, and used "
        "detached. Detach, if at all, what is kept.":
            grouped_with(spread=lambda self, x: GroupedQueryAttention.spread(self, x).detach() + 0 * x.sum()),
    },
)(GroupedQueryAttention)  # fmt: skip


# --- Repair ----------------------------------------------------------------------------------------------------------


def stream_lse(start=-np.inf, shrink=lambda m, now: np.exp(m - now), top=np.maximum, finish=None, limit=None):
    """The log-sum-exp of each row, block by block, with some of its pieces changed."""

    def logsumexp(x, block):
        m = np.full(len(x), start)
        total = np.zeros(len(x))
        for low in range(0, x.shape[1] if limit is None else limit(x.shape[1], block), block):
            part = x[:, low : low + block]
            now = top(m, part.max(1))
            total = total * shrink(m, now) + np.exp(part - now[:, None]).sum(1)
            m = now
        return m + np.log(total) if finish is None else finish(m, total)

    return logsumexp


@exercise(
    repair=True, points=3, minutes=12, difficulty=2, tolerance=1e-9,
    cases=[
        dict(n=3, t=8, block=3),
        dict(n=2, t=5, block=2, x=lambda rng, sizes: 1000 + 5 * rng.standard_normal((2, 5))),
        dict(n=2, t=6, block=4, x=lambda rng, sizes: -2000 + 5 * rng.standard_normal((2, 6))),
        dict(n=1, t=1, block=1),
    ],
    hints=(
        "Try a single block, then two; then x = [[0, 1]] with block 1, by hand, line by line. What does `total` hold "
        "after the first block, and with respect to which maximum?",
        "When m changes, the exponentials in `total` were taken with the old one. By which factor are they too large? "
        "A second fault shows only if all numbers are far below 0.",
        "`total = total * np.exp(m - now) + …`, and m starts at -inf.",
    ),
    mistakes={
        "lse adds exponentials taken with different maxima, and starts at 0: two faults. Rescale the total when the "
        "maximum changes, and start with -inf.": stream_lse(start=0.0, shrink=lambda m, now: 1.0),
        "lse still adds exponentials taken with different maxima. When m becomes `now`, the total is to be multiplied "
        "by exp(m - now).": stream_lse(shrink=lambda m, now: 1.0),
        "lse still starts with a maximum of 0: if all numbers are far below 0, all exponentials vanish, and log(0) is "
        "-inf.": stream_lse(start=0.0),
        "lse rescales the wrong way round: the total gets smaller when the maximum grows, exp(m - now).":
            stream_lse(shrink=lambda m, now: np.where(np.isfinite(m), np.exp(np.where(np.isfinite(m), now - m, 0)), 0)),
        "lse lacks the maximum at the end: log(total) + m.": stream_lse(finish=lambda m, total: np.log(total)),
    },
)  # fmt: skip
def repair_online_logsumexp(x: "n t", block) -> "lse: n":
    """The logarithm of the sum of the exponentials of each row, one block of columns at a time."""
    return torch.logsumexp(x, dim=1)


def places(rule):
    """repair_cached_mask by another rule."""
    return lambda t, s: rule(*np.indices((t, s)), t, s)


@exercise(
    repair=True, points=2, minutes=8, difficulty=2,
    cases=[dict(t=3, s=7), dict(t=4, s=4), dict(t=1, s=5), dict(t=2, s=3), dict(t=1, s=1)],
    hints=(
        "Write down the mask for t = 1 and s = 5: one new token after four old ones. What should it see, and what does "
        "it see?",
        "Keys are counted from the first token of all, rows from the first new one. At which place does row i stand?",
        "Row i stands at place s - t + i and sees j <= s - t + i.",
    ),
    mistakes={
        "allowed starts at the upper left, as if the new tokens were the first ones of all: with t = 1 the new token "
        "sees only the very first. Row i stands at place s - t + i.": places(lambda i, j, t, s: j <= i),
        "allowed lets every new token see all others: those that come after it are the future.":
            places(lambda i, j, t, s: j < s),
        "allowed lacks the new token itself.": places(lambda i, j, t, s: j < s - t + i),
        "allowed is shifted to the wrong side: the old tokens come first, row i stands at s - t + i, not at t - s + i.":
            places(lambda i, j, t, s: j <= t - s + i),
        "allowed shows the old tokens only.": places(lambda i, j, t, s: j < s - t),
        "allowed is one place too far: row 0 stands at place s - t, not s - t + 1.":
            places(lambda i, j, t, s: j <= s - t + i + 1),
    },
)  # fmt: skip
def repair_cached_mask(t, s) -> "allowed: t s":
    """Which of s keys, the last t of which are new, each of the t new tokens may see."""
    return torch.ones(t, s, dtype=torch.bool).tril(s - t)


# --- Predict ---------------------------------------------------------------------------------------------------------


def some(low, high):
    return lambda rng, sizes: int(rng.integers(low, high))


@exercise(
    points=2, minutes=10, difficulty=1,
    cases=[
        dict(t=10, window=2),
        dict(t=some(40, 60), window=some(3, 9)),
        dict(t=4096, window=256),
        dict(t=7, window=0),
        dict(t=some(5, 9), window=some(4, 5)),
    ],
    hints=(
        "In the middle of the sequence a query sees 2 · window + 1 keys. What is missing near the ends?",
        "The first query lacks `window` keys, the second one fewer, and so on: window + (window - 1) + … + 1. The same "
        "at the other end.",
        "t · (2 · window + 1) - window · (window + 1).",
    ),
    mistakes={
        "pairs ignores the ends: the first and the last queries see fewer keys.":
            lambda t, window: t * (2 * window + 1),
        "pairs counts one end only.": lambda t, window: t * (2 * window + 1) - window * (window + 1) // 2,
        "pairs counts the keys on one side of the query. The window has two.":
            lambda t, window: t * (window + 1) - window * (window + 1) // 2,
        "pairs leaves out each query's own key.": lambda t, window: 2 * t * window - window * (window + 1),
        "pairs counts all of them, as without a window.": lambda t, window: t * t,
    },
)  # fmt: skip
def count_local_pairs(t, window) -> "pairs:":
    """How many scores local attention needs for t tokens, each of which sees `window` < t places to each side."""
    places = torch.arange(t)
    return ((places + window).clamp(max=t - 1) - (places - window).clamp(min=0) + 1).sum()


def costing(flops=lambda n, h, t, s, d: 4 * n * h * t * s * d, size=lambda n, h, t, s, d: 4 * n * h * t * s):
    return lambda n, num_heads, t, s, d: (flops(n, num_heads, t, s, d), size(n, num_heads, t, s, d))


@exercise(
    points=2, minutes=10, difficulty=1,
    cases=[
        dict(n=1, num_heads=2, t=3, s=5, d=4),
        dict(n=some(2, 6), num_heads=some(7, 12), t=some(100, 200), s=some(200, 300), d=64),
        dict(n=1, num_heads=12, t=1024, s=1024, d=64),
        dict(n=1, num_heads=1, t=1, s=1, d=1),
    ],
    hints=(
        "A matrix product (t, d) times (d, s) takes d multiplications and d additions for each of its t · s numbers.",
        "There are two such products: q kᵀ, and the weights times v. Softmax is not counted. Everything happens in "
        "each head of each example.",
        "flops = 2 · 2 · n · num_heads · t · s · d; the scores are n · num_heads · t · s numbers of 4 bytes.",
    ),
    mistakes={
        "flops is half of what it should be. There are two products, q kᵀ and the weights times v; and a "
        "multiplication and an addition count as two.": costing(flops=lambda n, h, t, s, d: 2 * n * h * t * s * d),
        "flops lacks the heads: each of them has products of its own.":
            costing(flops=lambda n, h, t, s, d: 4 * n * t * s * d),
        "flops has the square of the queries: a query meets s keys.":
            costing(flops=lambda n, h, t, s, d: 4 * n * h * t * t * d),
        "score_bytes counts numbers. One in float32 has 4 bytes.":
            costing(size=lambda n, h, t, s, d: n * h * t * s),
        "score_bytes lacks the heads: each has a score matrix of its own.":
            costing(size=lambda n, h, t, s, d: 4 * n * t * s),
        "score_bytes has the head size in it. It is summed over: a score is one number for a query and a key.":
            costing(size=lambda n, h, t, s, d: 4 * n * h * t * s * d),
        "score_bytes takes 8 bytes for a number. That is float64; float32 has 4.":
            costing(size=lambda n, h, t, s, d: 8 * n * h * t * s),
    },
)  # fmt: skip
def attention_cost(n, num_heads, t, s, d) -> "flops:, score_bytes:":
    """FLOPs of the two products of attention, and the bytes of its scores in float32."""
    q, k = torch.empty(n, num_heads, t, d, device="meta"), torch.empty(n, num_heads, s, d, device="meta")
    scores = q @ k.mT
    multiplied = scores.numel() * q.shape[-1] + (scores @ k).numel() * scores.shape[-1]
    return torch.tensor(2 * multiplied), torch.tensor(scores.numel() * scores.element_size())


def caching(count=lambda layers, g, d, t, b: 2 * layers * g * d * t * b):
    return lambda layers, num_heads, num_kv_heads, embed_dim, tokens, bytes_per_number=2: count(
        layers, num_kv_heads, embed_dim // num_heads, tokens, bytes_per_number)  # fmt: skip


@exercise(
    points=2, minutes=10, difficulty=1,
    cases=[
        dict(layers=2, num_heads=4, num_kv_heads=2, embed_dim=12, tokens=5),
        dict(layers=some(20, 40), num_heads=32, num_kv_heads=8, embed_dim=4096, tokens=some(1000, 9000)),
        dict(layers=80, num_heads=64, num_kv_heads=8, embed_dim=8192, tokens=4096, bytes_per_number=1),
        dict(layers=6, num_heads=8, num_kv_heads=8, embed_dim=512, tokens=1, bytes_per_number=4),
    ],
    hints=(
        "For one token, in one layer: how many numbers are its keys, and how many its values? A head has embed_dim // "
        "num_heads of them.",
        "The number of query heads only sets the size of a head. What is kept, is kept for num_kv_heads.",
        "2 · layers · num_kv_heads · (embed_dim // num_heads) · tokens · bytes_per_number.",
    ),
    mistakes={
        "size counts the keys and not the values.": caching(lambda layers, g, d, t, b: layers * g * d * t * b),
        "size is that of one layer. Every layer has a cache of its own.":
            caching(lambda layers, g, d, t, b: 2 * g * d * t * b),
        "size is that of a cache with all query heads. Only num_kv_heads are kept.":
            lambda layers, num_heads, num_kv_heads, embed_dim, tokens, bytes_per_number=2: (
                2 * layers * embed_dim * tokens * bytes_per_number),
        "size takes embed_dim for the size of a head. Each head has embed_dim // num_heads numbers.":
            lambda layers, num_heads, num_kv_heads, embed_dim, tokens, bytes_per_number=2: (
                2 * layers * num_kv_heads * embed_dim * tokens * bytes_per_number),
        "size counts numbers, not bytes.": caching(lambda layers, g, d, t, b: 2 * layers * g * d * t),
        "size grows with the square of the tokens. A cache holds one key and one value for each token.":
            caching(lambda layers, g, d, t, b: 2 * layers * g * d * t * t * b),
    },
)  # fmt: skip
def kv_cache_size(layers, num_heads, num_kv_heads, embed_dim, tokens, bytes_per_number=2) -> "size:":
    """The bytes that the keys and values of `tokens` tokens take in all layers."""
    kept = torch.empty(2, layers, num_kv_heads, embed_dim // num_heads, tokens, device="meta")
    return torch.tensor(kept.numel() * bytes_per_number)
