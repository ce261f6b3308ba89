"""Lesson 16: a state that is carried from step to step, its gradient back through time, sequences of unequal length."""

import math
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from autograder.exercise import exercise, gradient_of, module

# What the wrong implementations below are made of.


def half(*letters):
    """Normal numbers half as large: the states stay where tanh is not flat."""
    return lambda rng, sizes: 0.5 * rng.standard_normal([sizes[letter] for letter in letters])


def between(low, high):
    return lambda rng, sizes: float(rng.uniform(low, high))


WEIGHTS = dict(w_x=half("H", "D"), w_h=half("H", "H"), b=half("H"))


def torch_states(x, h0, w_x, w_h, b):
    """PyTorch's own RNN: hs (N, T, H)."""
    weights = [w_x, w_h, b, torch.zeros_like(b)]
    return torch.rnn_tanh(x, h0[None], weights, True, 1, 0.0, False, False, True)[0]


# --- One step --------------------------------------------------------------------------------------------------------


def step(bend=np.tanh, reach=lambda h, w_h: h @ w_h.T, bias=1.0, combine=lambda x, h: x + h):
    """One step with some of its pieces changed."""
    return lambda x, h, w_x, w_h, b: bend(combine(x @ w_x.T + bias * b, reach(h, w_h)))


STEPS = [dict(N=3, D=4, H=5), dict(N=2, D=3, H=2), dict(N=5, D=1, H=3), dict(N=1, D=1, H=1)]


@exercise(
    points=2, minutes=8, difficulty=1, cases=STEPS, draws=WEIGHTS,
    hints=(
        "Two linear layers, one on what comes in, one on the state; their sum goes through tanh. What shape does each "
        "of the two have?",
        "Weights are (out, in), as in lesson 01: `x @ w_x.T` is (N, H), and so is `h @ w_h.T`. With the square w_h a "
        "forgotten `.T` raises no error.",
        "Add both products and b, one bias for the two of them, and take `np.tanh` of the sum.",
    ),
    mistakes={
        "h lacks the tanh: what comes out is the sum before it.":
            step(bend=lambda z: z),
        "h uses w_h without transposing it. w_h is (out, in), like all weights; it is square, so NumPy does not "
        "complain.":
            step(reach=lambda h, w_h: h @ w_h),
        "h ignores the state that came in: it is a dense layer of x alone.":
            step(reach=lambda h, w_h: 0),
        "h has two tanhs, one of each part. First the parts are added, then comes one tanh.":
            step(bend=lambda z: z, combine=lambda x, h: np.tanh(x) + np.tanh(h)),
        "h lacks the bias.":
            step(bias=0.0),
        "h has the bias behind the tanh. It belongs to the sum inside.":
            lambda x, h, w_x, w_h, b: step(bias=0.0)(x, h, w_x, w_h, b) + b,
        "h has the bias twice. PyTorch's module has two biases; here there is one.":
            step(bias=2.0),
        "h has a sigmoid where the tanh belongs.":
            step(bend=lambda z: 1 / (1 + np.exp(-z))),
        "h multiplies the two parts. They are added.":
            step(combine=lambda x, h: x * h),
    },
)  # fmt: skip
def rnn_step_forward(x: "N D", h: "N H", w_x: "H D", w_h: "H H", b: "H") -> "h: N H":
    """The next state from what comes in and from the state before (Elman, 1990)."""
    return torch.rnn_tanh_cell(x, h, w_x, w_h, b, torch.zeros_like(b))


def step_grads(
    slope=lambda new, h: 1 - new**2, back=lambda dz, w_h: dz @ w_h, pair=lambda dz, h, new: dz.T @ h, skip=0.0,
    over=lambda n: 1, bias=lambda dz: dz.sum(0),
):  # fmt: skip
    """The backward pass of one step with some of its pieces changed."""

    def backward(dh, x, h, w_x, w_h, b):
        new = np.tanh(x @ w_x.T + h @ w_h.T + b)
        dz = dh * slope(new, h)
        dw_x, dw_h = dz.T @ x / over(len(x)), pair(dz, h, new) / over(len(x))
        return dz @ w_x, back(dz, w_h) + skip * dh, dw_x, dw_h, bias(dz) / over(len(x))

    return backward


gradient_of(
    rnn_step_forward, points=4, minutes=15, difficulty=2,
    hints=(
        "Compute the new state again. From the end: through tanh first, then both linear layers get the same upstream "
        "gradient.",
        "tanh' is 1 − tanh²: with the new state, `dz = dh * (1 - new**2)`. It has the shape (N, H).",
        "Each linear layer as in lesson 01: `dx = dz @ w_x`, `dw_x = dz.T @ x`. The other one saw h, the state that "
        "came in, not the new one.",
        "In order: `dz @ w_x`; back to the old state `dz @ w_h`; `dz.T @ x` and `dz.T @ h` for the weights; and for "
        "the bias the sum of dz over the batch.",
    ),
    mistakes={
        "dx, dh, dw_x, dw_h and db skip the tanh: dh has to be multiplied by 1 − new² first.":
            step_grads(slope=lambda new, h: 1),
        "dx, dh, dw_x, dw_h and db take the slope of tanh from the state that came in. It is 1 − new², of the state "
        "that comes out.":
            step_grads(slope=lambda new, h: 1 - h**2),
        "dx, dh, dw_x, dw_h and db have 1 − new for the slope of tanh. It is 1 − new².":
            step_grads(slope=lambda new, h: 1 - new),
        "dx, dh, dw_x, dw_h and db take the tanh of the new state once more. The new state is already the tanh: its "
        "slope is 1 − new².":
            step_grads(slope=lambda new, h: 1 - np.tanh(new) ** 2),
        "dh, the gradient of the state that came in, has w_h transposed. Forward it was h @ w_h.T, so back it is "
        "dz @ w_h.":
            step_grads(back=lambda dz, w_h: dz @ w_h.T),
        "dh is handed back as it came. To the old state it goes through tanh and w_h: dz @ w_h.":
            step_grads(back=lambda dz, w_h: 0, skip=1.0),
        "dh has the upstream gradient added to it. That would be a skip connection, and there is none here.":
            step_grads(skip=1.0),
        "dw_h is computed with the new state. w_h met the state that came in.":
            step_grads(pair=lambda dz, h, new: dz.T @ new),
        "dw_h is transposed: it has to have w_h's order, (out, in).":
            step_grads(pair=lambda dz, h, new: h.T @ dz),
        "dw_x, dw_h and db are means over the batch. All examples use the same parameters, so their gradients are "
        "summed.":
            step_grads(over=lambda n: n),
        "db skips the tanh: the bias stands before it, so what it gets is the sum of dz, not of dh.":
            lambda dh, x, h, w_x, w_h, b: (*step_grads()(dh, x, h, w_x, w_h, b)[:4], dh.sum(0)),
    },
)  # fmt: skip


# --- All steps -------------------------------------------------------------------------------------------------------


def states(x, h0, w_x, w_h, b, bend=np.tanh, carry=lambda new, h0: new, order=1, reach=lambda h, w_h: h @ w_h.T):
    """hs (N, T, H), some of the pieces changed."""
    hs, h = np.zeros((*x.shape[:2], len(b))), h0
    for t in range(x.shape[1])[::order]:
        hs[:, t] = bend(x[:, t] @ w_x.T + reach(h, w_h) + b)
        h = carry(hs[:, t], h0)
    return hs


def changed(**pieces):
    return lambda x, h0, w_x, w_h, b: states(x, h0, w_x, w_h, b, **pieces)


def before_each(x, h0, w_x, w_h, b):
    """The state before each step in place of the one after it."""
    return np.concatenate([h0[:, None], states(x, h0, w_x, w_h, b)[:, :-1]], axis=1)


SEQUENCES = [
    dict(N=3, T=4, D=2, H=5),
    dict(N=2, T=6, D=3, H=4),
    dict(N=4, T=1, D=3, H=2),
    dict(N=1, T=3, D=1, H=1),
]


@exercise(
    points=3, minutes=12, difficulty=1, cases=SEQUENCES, draws=WEIGHTS,
    hints=(
        "A loop over the T steps. Step t sees `x[:, t]`, of shape (N, D), and the state that step t − 1 left.",
        "The first step starts from h0, which need not be 0. What comes out of a step is both: the output at that "
        "step, and the state for the next.",
        "`h = h0`; for each t: `h = rnn_step_forward(x[:, t], h, w_x, w_h, b)` and keep it. In the end "
        "`np.stack(kept, axis=1)`: time is axis 1.",
    ),
    mistakes={
        "hs starts every step from h0: the state is not carried from step to step.":
            changed(carry=lambda new, h0: h0),
        "hs starts from a state of zeros. It has to start from h0.":
            lambda x, h0, w_x, w_h, b: states(x, np.zeros_like(h0), w_x, w_h, b),
        "hs holds the state before each step. Asked is the one after it: hs[:, 0] has seen x[:, 0], and h0 is not "
        "among them.":
            before_each,
        "hs runs through time backwards: the first step is x[:, 0].":
            changed(order=-1),
        "hs lacks the tanh.":
            changed(bend=lambda z: z),
        "hs uses w_h without transposing it. It is square, so NumPy does not complain.":
            changed(reach=lambda h, w_h: h @ w_h),
        "hs holds the last state at every step. Each step has its own, so keep copies: an array that is written "
        "again changes everywhere it is kept.":
            lambda *given: np.repeat(states(*given)[:, -1:], given[0].shape[1], axis=1),
        "hs has h0 in front, T + 1 states in all. Asked are those after the T steps.":
            lambda x, h0, *given: np.concatenate([h0[:, None], states(x, h0, *given)], axis=1),
    },
)  # fmt: skip
def rnn_forward(x: "N T D", h0: "N H", w_x: "H D", w_h: "H H", b: "H") -> "hs: N T H":
    """The states after each of T steps, all with the same parameters."""
    return torch_states(x, h0, w_x, w_h, b)


def own_alone(own, dh, slope):
    """Without what comes back from the step after."""
    return own * slope


def through_time(
    upstream=lambda dhs, t, last: dhs[:, t], join=lambda own, dh, slope: (own + dh) * slope,
    slope=lambda new: 1 - new**2, back=lambda dz, w_h: dz @ w_h, seen=lambda h0, hs, t: hs[:, t - 1] if t else h0,
    keep=lambda total, part: total + part, start=lambda dh, dz: dh, over=lambda t: 1, order=-1, again=False,
):  # fmt: skip
    """Backpropagation through time with some of its pieces changed; `again`: each step made anew from what it saw."""

    def backward(dhs, x, h0, w_x, w_h, b):
        hs, steps = states(x, h0, w_x, w_h, b), x.shape[1]
        dx, dh = np.zeros_like(x), np.zeros_like(h0)
        sums = [np.zeros_like(w_x), np.zeros_like(w_h), np.zeros_like(b)]
        for t in range(steps)[::order]:
            before = seen(h0, hs, t)
            new = np.tanh(x[:, t] @ w_x.T + before @ w_h.T + b) if again else hs[:, t]
            dz = join(upstream(dhs, t, steps - 1), dh, slope(new))
            dx[:, t], dh = dz @ w_x, back(dz, w_h)
            parts = dz.T @ x[:, t], dz.T @ before, dz.sum(0)
            sums = [keep(total, part) for total, part in zip(sums, parts, strict=True)]
        return dx, start(dh, dz), *(total / over(steps) for total in sums)

    return backward


gradient_of(
    rnn_forward, points=6, minutes=30, difficulty=3,
    hints=(
        "Run forward and keep all states. Then go through the steps from the last to the first with "
        "rnn_step_backward. What is the upstream gradient of step t?",
        "The state after step t is used twice: it is the output there, and it goes into step t + 1. So what arrives is "
        "`dhs[:, t]` plus the gradient that step t + 1 sends back.",
        "The same w_x, w_h and b are used at every step: their gradients are sums over the steps. dx is not: each step "
        "has its own x.",
        "`dh = 0` at first. For t from T − 1 down to 0, call rnn_step_backward with `dhs[:, t] + dh`, `x[:, t]` and "
        "the state before, `hs[:, t - 1]` or h0. It returns that step's dx, the next dh, and three shares to add up. "
        "What is left in dh is dh0.",
    ),
    mistakes={
        "dx, dh0, dw_x, dw_h and db lose the way through time: each step has its own upstream gradient alone. Add what "
        "comes back from the step after it.":
            through_time(join=own_alone),
        "dx, dh0, dw_x, dw_h and db take only the last step's upstream gradient. Every output has one: add dhs[:, t] "
        "at each step.":
            through_time(upstream=lambda dhs, t, last: dhs[:, t] * (t == last)),
        "dx, dh0, dw_x, dw_h and db count the last step's upstream gradient twice. Behind the last step nothing comes "
        "back: dh is 0 at first.":
            through_time(upstream=lambda dhs, t, last: dhs[:, t] * (1 + (t == last))),
        "dx, dh0, dw_x, dw_h and db go from the first step to the last. What step t + 1 sends back has to be there "
        "before step t: begin with the last one.":
            through_time(order=1),
        "dx, dh0, dw_x, dw_h and db hand each step the state that it made. rnn_step_backward needs the one that came "
        "in: hs[:, t - 1], at the first step h0.":
            through_time(seen=lambda h0, hs, t: hs[:, t], again=True),
        "dx, dh0, dw_x, dw_h and db hand the first step the last state: hs[:, t - 1] at t = 0 is hs[:, -1]. Before the "
        "first step comes h0.":
            through_time(seen=lambda h0, hs, t: hs[:, t - 1], again=True),
        "dx, dh0, dw_x, dw_h and db hand the first step a state of zeros. Before it comes h0.":
            through_time(seen=lambda h0, hs, t: hs[:, t - 1] if t else np.zeros_like(h0), again=True),
        "dx, dh0, dw_x, dw_h and db ignore the tanh: at each step comes a factor 1 − hs².":
            through_time(slope=lambda new: 1),
        "dx, dh0, dw_x, dw_h and db go back through w_h transposed. Forward it was h @ w_h.T, so back it is dz @ w_h.":
            through_time(back=lambda dz, w_h: dz @ w_h.T),
        "dw_x, dw_h and db are those of the first step alone, the last one you visited: add the steps up instead of "
        "overwriting.":
            through_time(keep=lambda total, part: part),
        "dw_x, dw_h and db are means over the steps. The parameters are used T times, and gradients of what is used "
        "several times add.":
            through_time(over=lambda t: t),
        "dw_h pairs each step with the state that it made. w_h met the state before that step; at the first one h0.":
            through_time(seen=lambda h0, hs, t: hs[:, t]),
        "dw_h pairs the first step with the last state: hs[:, t - 1] at t = 0 is hs[:, -1]. Before the first step "
        "comes h0.":
            through_time(seen=lambda h0, hs, t: hs[:, t - 1]),
        "dw_h leaves out the first step, as if h0 were 0.":
            through_time(seen=lambda h0, hs, t: hs[:, t - 1] if t else np.zeros_like(h0)),
        "dh0 is 0. It is what the first step sends back to the state that came in.":
            through_time(start=lambda dh, dz: np.zeros_like(dh)),
        "dh0 is the gradient at the first step's z. One more matrix, w_h, lies between it and h0.":
            through_time(start=lambda dh, dz: dz),
    },
)  # fmt: skip


# --- Truncation ------------------------------------------------------------------------------------------------------


def cut(x, k):
    """The first step of each chunk."""
    return range(0, x.shape[1], k)


def in_chunks(starts=cut, carry=lambda hs, low, h0: hs[:, low - 1], keep=sum, first=lambda dh0: dh0[0]):
    """Truncated backpropagation through time, some of its pieces changed."""

    def backward(dhs, x, h0, w_x, w_h, b, k):
        given = (w_x, w_h, b)
        hs, edges = states(x, h0, *given), [*starts(x, k), x.shape[1]]
        found = []
        for low, high in pairwise(edges):
            h = carry(hs, low, h0) if low else h0
            found.append(through_time()(dhs[:, low:high], x[:, low:high], h, *given))
        dx, dh0, *parts = zip(*found, strict=True)
        return np.concatenate(dx, axis=1), first(dh0), *map(keep, parts)

    return backward


def whole_chunks(dhs, k):
    """The upstream gradients without those of a last chunk that is shorter."""
    steps = dhs.shape[1]
    return dhs * (np.arange(steps) < steps // k * k)[:, None]


def from_the_end(x, k):
    """Chunks that are counted from the last step."""
    return sorted({0, *range(x.shape[1] - k, 0, -k)})


@exercise(
    points=4, minutes=20, difficulty=2, draws=WEIGHTS,
    cases=[
        dict(N=3, T=7, D=2, H=5, k=3),
        dict(N=2, T=5, D=3, H=4, k=2),
        dict(N=2, T=4, D=3, H=2, k=1),
        dict(N=1, T=3, D=2, H=4, k=8),
        dict(N=1, T=5, D=1, H=1, k=4),
    ],
    hints=(
        "Forwards nothing changes: one run over all steps gives every state. Which state does the chunk of the steps "
        "3, 4, 5 start from?",
        "Each chunk is a sequence of its own for rnn_backward: `x[:, s : s + k]` with the upstream gradients "
        "`dhs[:, s : s + k]`, and as its h0 the state that the chunk before it left, `hs[:, s - 1]`.",
        "The gradient of that starting state is thrown away, except in the first chunk, where it is dh0. The dx stand "
        "one after the other; dw_x, dw_h and db of the chunks add.",
    ),
    mistakes={
        "dx, dh0, dw_x, dw_h and db are not truncated: gradients go through all steps. They have to stop at each "
        "multiple of k.":
            lambda dhs, x, h0, w_x, w_h, b, k: through_time()(dhs, x, h0, w_x, w_h, b),
        "dx, dw_x, dw_h and db start every chunk from h0. Only gradients are cut; the state goes on across the cut.":
            in_chunks(carry=lambda hs, low, h0: h0),
        "dx, dw_x, dw_h and db start later chunks from zeros. Only gradients are cut; the state goes on across the "
        "cut.":
            in_chunks(carry=lambda hs, low, h0: np.zeros_like(h0)),
        "dx, dw_x, dw_h and db start each chunk one state too late. Before step s comes hs[:, s - 1]: hs[:, s] has "
        "seen x[:, s] already.":
            in_chunks(carry=lambda hs, low, h0: hs[:, low]),
        "dh0 is what the last chunk sends back. h0 is where the first one starts.":
            in_chunks(first=lambda dh0: dh0[-1]),
        "dx, dh0, dw_x, dw_h and db leave out the steps behind the last whole chunk. They are a chunk too, a shorter "
        "one.":
            lambda dhs, x, h0, w_x, w_h, b, k: in_chunks()(whole_chunks(dhs, k), x, h0, w_x, w_h, b, k),
        "dx, dh0, dw_x, dw_h and db count the chunks from the end. The first chunk has k steps; it is the last one "
        "that may be shorter.":
            in_chunks(starts=from_the_end),
        "dx, dh0, dw_x, dw_h and db have chunks of k + 1 steps.":
            in_chunks(starts=lambda x, k: cut(x, k + 1)),
        "dw_x, dw_h and db are those of the last chunk alone. The parameters are used in all of them: add.":
            in_chunks(keep=lambda parts: parts[-1]),
        "dw_x, dw_h and db are means over the chunks. The parameters are used in all of them: add.":
            in_chunks(keep=lambda parts: sum(parts) / len(parts)),
    },
)  # fmt: skip
def truncated_rnn_backward(
    dhs: "N T H", x: "N T D", h0: "N H", w_x: "H D", w_h: "H H", b: "H", k
) -> "dx: N T D, dh0: N H, dw_x: H D, dw_h: H H, db: H":
    """The gradients where none crosses from one chunk of k steps into the one before it."""
    with torch.enable_grad():
        leaves = [value.detach().requires_grad_() for value in (x, h0, w_x, w_h, b)]
        sequence, h, *given = leaves
        loss = 0.0
        for part, upstream in zip(sequence.split(k, dim=1), dhs.split(k, dim=1), strict=True):
            hs = torch_states(part, h, *given)
            loss, h = loss + (hs * upstream).sum(), hs[:, -1].detach()
        return torch.autograd.grad(loss, leaves)


# --- Spectral radius -------------------------------------------------------------------------------------------------


def turning(rng, sizes):
    """A matrix whose largest eigenvalues are complex: it turns."""
    w = rng.standard_normal((sizes["H"], sizes["H"]))
    return w - w.T + 0.1 * rng.standard_normal(w.shape)


def flipping(rng, sizes):
    """A matrix whose largest eigenvalue is negative."""
    return rng.standard_normal((sizes["H"], sizes["H"])) - 6 * np.eye(sizes["H"])


def shearing(rng, sizes):
    """A matrix that stretches far more than its eigenvalues say."""
    return np.diag(rng.uniform(0.5, 1.0, sizes["H"])) + np.triu(3 * rng.standard_normal((sizes["H"], sizes["H"])), 1)


def scaled(size):
    return lambda w_h, radius: w_h * radius / size(w_h)


@exercise(
    points=2, minutes=8, difficulty=1, draws=dict(radius=between(0.5, 1.5)),
    cases=[dict(H=4), dict(H=5, w_h=turning), dict(H=3, w_h=flipping), dict(H=4, w_h=shearing), dict(H=1, radius=1.0)],
    hints=(
        "`np.linalg.eigvals(w_h)` gives the H eigenvalues. They may be negative, and in pairs complex. What is the "
        "size of a complex number?",
        "The spectral radius is the largest absolute value: `np.abs(np.linalg.eigvals(w_h)).max()`.",
        "Multiplying a matrix by c multiplies all its eigenvalues by c. So w = w_h · radius / (its spectral radius).",
    ),
    mistakes={
        "w is scaled by the spectral norm, the largest singular value. Asked is the spectral radius, the largest "
        "absolute eigenvalue.":
            scaled(lambda w: np.linalg.norm(w, 2)),
        "w is scaled by the largest real part. Eigenvalues may be complex or negative: what counts is their absolute "
        "value.":
            scaled(lambda w: np.linalg.eigvals(w).real.max()),
        "w is scaled by the largest absolute real part. The size of a complex eigenvalue is its absolute value, "
        "imaginary part included.":
            scaled(lambda w: np.abs(np.linalg.eigvals(w).real).max()),
        "w is multiplied by the radius, but not divided by the one it had.":
            scaled(lambda w: 1.0),
        "w is scaled by the Frobenius norm, the root of the sum of all squares. Asked is the largest absolute "
        "eigenvalue.":
            scaled(np.linalg.norm),
        "w is scaled by its largest entry. Asked is the largest absolute eigenvalue.":
            scaled(lambda w: np.abs(w).max()),
        "w is divided by the radius and multiplied by the one it had: the wrong way round.":
            lambda w_h, radius: w_h * np.abs(np.linalg.eigvals(w_h)).max() / radius,
        "w is scaled by the size of the eigenvalue with the largest real part. First come the absolute values, then "
        "the maximum.":
            scaled(lambda w: np.abs(np.linalg.eigvals(w).max())),
    },
)  # fmt: skip
def scale_spectral_radius(w_h: "H H", radius) -> "w: H H":
    """The same matrix, multiplied by a number, so that its largest absolute eigenvalue is `radius`."""
    return w_h * (radius / torch.linalg.eigvals(w_h).abs().max())


# --- Unequal lengths -------------------------------------------------------------------------------------------------


def some_lengths(rng, sizes):
    """Lengths from 1 to T, drawn so that one sequence is full and, if there are two, one is not."""
    lengths = rng.integers(1, sizes["T"] + 1, sizes["N"])
    lengths[rng.integers(sizes["N"])] = sizes["T"]
    if sizes["N"] > 1 and sizes["T"] > 1:
        lengths[(lengths == sizes["T"]).argmax() - 1] = rng.integers(1, sizes["T"])
    return lengths


def given_lengths(*lengths):
    return lambda rng, sizes: rng.permutation(lengths)


@exercise(
    points=2, minutes=6, difficulty=1,
    cases=[
        dict(N=4, t=6, lengths=given_lengths(6, 1, 3, 4)),
        dict(N=3, t=5, lengths=given_lengths(2, 4, 2)),
        dict(N=2, t=4, lengths=given_lengths(0, 3)),
        dict(N=1, t=1, lengths=given_lengths(1)),
    ],
    hints=(
        "A table with a row for each sequence and a column for each step. Which steps of a sequence of length 3 exist, "
        "counted from 0?",
        "Step j exists if j < length. `np.arange(t)` are the steps, a row; the lengths have to stand as a column, so "
        "that every step meets every length.",
        "`lengths[:, None]` is the column, (N, 1). Compare the row of steps with it: broadcasting makes (N, t).",
    ),
    mistakes={
        "mask has one step too many in each row: a sequence of length 3 has the steps 0, 1 and 2.":
            lambda lengths, t: np.arange(t) <= lengths[:, None],
        "mask has one step too few in each row: a sequence of length 3 has the steps 0, 1 and 2.":
            lambda lengths, t: np.arange(1, t + 1) < lengths[:, None],
        "mask is the wrong way round: True stands where a step exists, False in the padding.":
            lambda lengths, t: np.arange(t) >= lengths[:, None],
        "mask has the padding at the beginning. Sequences start at step 0 and are filled up behind their end.":
            lambda lengths, t: np.arange(t)[::-1] < lengths[:, None],
        "mask has one column for each step of the longest sequence. It has to have t columns, whatever the lengths.":
            lambda lengths, t: np.arange(max(lengths.max(), 1)) < lengths[:, None],
    },
)  # fmt: skip
def length_mask(lengths: "N", t) -> "mask: ...":
    """(N, t) truth values: whether the sequence has that step."""
    return torch.cumsum(torch.ones(len(lengths), t), dim=1) <= lengths[:, None]


def logsoftmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def step_losses(logits, targets):
    """The cross-entropy of every step (N, T)."""
    return -np.take_along_axis(logsoftmax(logits), targets[..., None], axis=2)[..., 0]


def drawn_mask(rng, sizes):
    return np.arange(sizes["T"]) < some_lengths(rng, sizes)[:, None]


def classes(rng, sizes):
    return rng.integers(0, sizes["V"], (sizes["N"], sizes["T"]))


def far_apart(rng, sizes):
    return rng.choice([-1000.0, 0.0, 1000.0], (sizes["N"], sizes["T"], sizes["V"]))


MASKED = [
    dict(N=3, T=4, V=5),
    dict(N=2, T=6, V=3),
    dict(N=3, T=5, V=2, logits=far_apart),
    dict(N=2, T=3, V=4, mask=lambda rng, sizes: np.array([[True, False, True], [False, True, False]])),
    dict(N=1, T=1, V=2),
]


@exercise(
    points=2, minutes=10, difficulty=1, cases=MASKED, draws=dict(targets=classes, mask=drawn_mask),
    hints=(
        "The loss of a batch is the mean over all steps that exist. How many are these, in terms of the mask?",
        "A truth table picks: `logits[mask]` has the shape (number of steps, V), and `targets[mask]` fits it.",
        "cross_entropy_forward takes the mean over the rows that it is given: give it those two, picked.",
    ),
    mistakes={
        "loss counts the steps of the padding too. They have no target: what stands there means nothing.":
            lambda logits, targets, mask: step_losses(logits, targets).mean(),
        "loss leaves the padding out of the sum and counts it in the mean: divide by the number of steps that exist.":
            lambda logits, targets, mask: (step_losses(logits, targets) * mask).mean(),
        "loss is the mean over sequences of their means. Then a step of a short sequence weighs more; asked is the "
        "mean over all steps.":
            lambda logits, targets, mask: ((step_losses(logits, targets) * mask).sum(1) / mask.sum(1)).mean(),
        "loss is a sum. Divide by the number of steps that exist.":
            lambda logits, targets, mask: step_losses(logits, targets)[mask].sum(),
        "loss is divided by the number of sequences. Asked is the mean over all steps that exist.":
            lambda logits, targets, mask: step_losses(logits, targets)[mask].sum() / len(mask),
        "loss is that of the padding: the mask was turned round.":
            lambda logits, targets, mask: np.nan if mask.all() else step_losses(logits, targets)[~mask].mean(),
        "loss has the logits of the padding at 0, and counts them: each such step costs ln V. Leave them out, or take "
        "the loss of each step times the mask.":
            lambda logits, targets, mask: step_losses(logits * mask[..., None], targets).mean(),
    },
)  # fmt: skip
def masked_cross_entropy_forward(logits: "N T V", targets: "N T", mask: "N T") -> "loss:":
    """The mean cross-entropy of those steps that exist."""
    labels = torch.where(mask, targets, -100)
    return F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100)


def masked_grads(where=lambda dl, mask: dl * mask[..., None], count=lambda mask: mask.sum(), upstream=lambda d: d):
    """The gradient of the masked loss with some of its pieces changed."""

    def backward(dloss, logits, targets, mask):
        p = np.exp(logsoftmax(logits))
        np.put_along_axis(p, targets[..., None], np.take_along_axis(p, targets[..., None], 2) - 1, axis=2)
        return upstream(dloss) * where(p, mask) / count(mask)

    return backward


gradient_of(
    masked_cross_entropy_forward, points=3, minutes=12, difficulty=2,
    hints=(
        "A step of the padding does not change the loss. What is its gradient, then?",
        "The gradient has the shape of the logits. Start with zeros and write into the steps that exist.",
        "`dlogits = np.zeros_like(logits)`, then write into `dlogits[mask]` what cross_entropy_backward makes of "
        "`logits[mask]` and `targets[mask]`.",
    ),
    mistakes={
        "dlogits is not 0 in the padding. Those steps do not change the loss, so their gradient is 0.":
            masked_grads(where=lambda dl, mask: dl),
        "dlogits is divided by all N · T steps. The loss is a mean over the steps that exist: divide by their number.":
            masked_grads(count=lambda mask: mask.size),
        "dlogits is not divided at all. The loss is a mean over the steps that exist: divide by their number.":
            masked_grads(count=lambda mask: 1),
        "dlogits is divided by the number of sequences. The loss is a mean over the steps that exist.":
            masked_grads(count=len),
        "dlogits ignores the upstream gradient dloss.":
            masked_grads(upstream=lambda dloss: 1.0),
        "dlogits stands in the padding and is 0 where steps exist: the mask was turned round.":
            masked_grads(where=lambda dl, mask: dl * ~mask[..., None], count=lambda mask: max((~mask).sum(), 1)),
        "dlogits ignores the mask: padding has a gradient of 0, and the mean is one over the steps that exist.":
            masked_grads(where=lambda dl, mask: dl, count=lambda mask: mask.size),
        "dlogits is divided by the number of steps twice. cross_entropy_backward has done so already.":
            masked_grads(count=lambda mask: mask.sum() ** 2),
    },
)  # fmt: skip


# --- Both directions -------------------------------------------------------------------------------------------------


def turned(x, lengths):
    """Each sequence from its last step to its first, the padding where it was."""
    y = x.copy()
    for row, length in enumerate(lengths):
        y[row, :length] = x[row, :length][::-1]
    return y


def both_parts(x, lengths):
    """The padding turned round as well, in its place."""
    y = turned(x, lengths)
    for row, length in enumerate(lengths):
        y[row, length:] = x[row, length:][::-1]
    return y


def existing(x, lengths):
    """(N, T, 1) truth values: whether the sequence has that step."""
    return (np.arange(x.shape[1]) < lengths[:, None])[..., None]


UNEQUAL = [
    dict(N=3, T=5, D=2, H=4, lengths=given_lengths(5, 2, 3)),
    dict(N=2, T=4, D=3, H=1, lengths=given_lengths(1, 3)),
    dict(N=2, T=1, D=3, H=4, lengths=given_lengths(1, 1)),
    dict(N=1, T=4, D=1, H=2, lengths=given_lengths(3)),
]


@exercise(
    points=3, minutes=10, difficulty=2, cases=UNEQUAL,
    hints=(
        "`x[:, ::-1]` turns all T steps round, padding included: a short sequence would start with its padding. Which "
        "steps of row n are to be turned?",
        "A loop over the rows is fine: the first `lengths[n]` steps of row n, in reverse, and the rest as it was. "
        "Write into a copy.",
        "`y = x.copy()`, then for each n, with length = lengths[n]: `y[n, :length] = x[n, :length][::-1]`.",
    ),
    mistakes={
        "y has all T steps turned round, padding included. The padding stays behind the end.":
            lambda x, lengths: x[:, ::-1],
        "y is not turned at all.":
            lambda x, lengths: x,
        "y has zeros in the padding. What stands behind the end stays as it is.":
            lambda x, lengths: turned(x, lengths) * existing(x, lengths),
        "y turns the features round as well: only axis 1, time, is turned.":
            lambda x, lengths: turned(x, lengths)[:, :, ::-1],
        "y turns the features round in place of the steps: time is axis 1.":
            lambda x, lengths: np.where(existing(x, lengths), x[:, :, ::-1], x),
        "y turns the padding round too, behind each end. What stands there stays as it is.":
            both_parts,
        "y turns all sequences within one length, the longest. Each has its own.":
            lambda x, lengths: turned(x, np.full_like(lengths, lengths.max())),
        "y leaves the last step of each sequence where it was. A sequence of length 3 has the steps 0, 1 and 2; all "
        "three are turned.":
            lambda x, lengths: turned(x, lengths - 1),
        "y takes the sequences from behind: their order in the batch has to stay.":
            lambda x, lengths: turned(x, lengths)[::-1],
    },
)  # fmt: skip
def reverse_sequences(x: "N T D", lengths: "N") -> "y: N T D":
    """Each sequence from its last step to its first; what lies beyond its length stays."""
    steps = torch.arange(x.shape[1]).expand(x.shape[:2])
    mirrored = lengths[:, None] - 1 - steps
    return x.gather(1, torch.where(mirrored >= 0, mirrored, steps)[..., None].expand(x.shape))


def both_ways(
    turn=turned, back=turned, silent=True, join=lambda one, two: np.concatenate([one, two], axis=2),
    second=lambda first, other: other,
):  # fmt: skip
    """A bidirectional RNN with some of its pieces changed."""

    def forward(x, lengths, h0, w_x, w_h, b, h0_r, w_x_r, w_h_r, b_r):
        first = h0, w_x, w_h, b
        one = states(x, *first)
        two = back(states(turn(x, lengths), *second(first, (h0_r, w_x_r, w_h_r, b_r))), lengths)
        return np.where(existing(x, lengths), join(one, two), 0) if silent else join(one, two)

    return forward


REVERSED = dict(w_x_r=half("H", "D"), w_h_r=half("H", "H"), b_r=half("H"))


@exercise(
    points=5, minutes=25, difficulty=3, cases=UNEQUAL, draws=WEIGHTS | REVERSED,
    hints=(
        "Two RNNs with parameters of their own. The one reads the sequences as they are, the other reads them from "
        "their ends. Your functions do both: rnn_forward and reverse_sequences.",
        "What the second RNN makes comes out in its own order: its first state has seen the last step. To stand beside "
        "the first one's, it has to be turned back, with the same lengths.",
        "`two = reverse_sequences(rnn_forward(reverse_sequences(x, lengths), h0_r, w_x_r, w_h_r, b_r), lengths)`, then "
        "concatenate along the last axis.",
        "Behind a sequence's end nothing comes out: multiply by the mask, with one axis more, "
        "`length_mask(lengths, T)[:, :, None]`.",
    ),
    mistakes={
        "hs reads the second direction from the end of the padding: short sequences have to be turned round within "
        "their length.":
            both_ways(turn=lambda x, lengths: x[:, ::-1], back=lambda hs, lengths: hs[:, ::-1]),
        "hs reads the second direction from the end of the padding, and is not 0 behind the ends: a mask is needed for "
        "both.":
            both_ways(turn=lambda x, lengths: x[:, ::-1], back=lambda hs, lengths: hs[:, ::-1], silent=False),
        "hs has the states of the second direction in its own order. Turn them back, so that hs[:, t] belongs to "
        "x[:, t].":
            both_ways(back=lambda hs, lengths: hs),
        "hs turns the states of the second direction back over all T steps. Turn them back within the same lengths.":
            both_ways(back=lambda hs, lengths: hs[:, ::-1]),
        "hs never turns the input of the second direction: it reads forwards twice.":
            both_ways(turn=lambda x, lengths: x, back=lambda hs, lengths: hs),
        "hs is not 0 behind the ends of the sequences.":
            both_ways(silent=False),
        "hs has the second direction first. The order is: forwards, then backwards.":
            both_ways(join=lambda one, two: np.concatenate([two, one], axis=2)),
        "hs adds the two directions. They stand beside each other: (N, T, 2H).":
            both_ways(join=lambda one, two: one + two),
        "hs uses the first direction's parameters for both. Each direction has its own.":
            both_ways(second=lambda first, other: first),
        "hs starts the second direction from h0. Its own start is h0_r.":
            both_ways(second=lambda first, other: (first[0], *other[1:])),
    },
)  # fmt: skip
def bidirectional_rnn_forward(
    x: "N T D", lengths: "N", h0: "N H", w_x: "H D", w_h: "H H", b: "H",
    h0_r: "N H", w_x_r: "H D", w_h_r: "H H", b_r: "H",
) -> "hs: ...":  # fmt: skip
    """(N, T, 2H): one RNN from the left, one from the right, 0 behind each end (Schuster and Paliwal, 1997)."""
    net = nn.RNN(x.shape[2], len(b), batch_first=True, bidirectional=True).double()
    weights = w_x, w_h, b, torch.zeros_like(b), w_x_r, w_h_r, b_r, torch.zeros_like(b_r)
    net.load_state_dict(dict(zip(net.state_dict(), weights, strict=True)))
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    hs, _ = net(packed, torch.stack([h0, h0_r]))
    return pad_packed_sequence(hs, batch_first=True, total_length=x.shape[1])[0]


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class RNN(nn.RNN):
    """nn.RNN with batch_first=True, its states alone."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size, batch_first=True)

    def forward(self, x, h0):
        return super().forward(x, h0[None])[0]


class Stepwise(nn.Module):
    """The same, step by step, to be changed."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        for name, parameter in RNN(input_size, hidden_size).named_parameters():
            self.register_parameter(name, parameter)

    def bend(self, z):
        return z.tanh()

    def before(self, h, h0):
        return h

    def total(self, x, h):
        two = self.weight_hh_l0, self.bias_hh_l0
        return F.linear(x, self.weight_ih_l0, self.bias_ih_l0) + F.linear(h, *two)

    def forward(self, x, h0):
        h, hs = h0, []
        for t in range(x.shape[1]):
            h = self.bend(self.total(x[:, t], self.before(h, h0)))
            hs.append(h)
        return torch.stack(hs, dim=1)


class NoTanh(Stepwise):
    def bend(self, z):
        return z


class WithReLU(Stepwise):
    def bend(self, z):
        return z.relu()


class NotCarried(Stepwise):
    def before(self, h, h0):
        return h0


class FromZeros(Stepwise):
    def forward(self, x, h0):
        return super().forward(x, torch.zeros_like(h0) + 0 * h0)


class OneBias(Stepwise):
    def total(self, x, h):
        return F.linear(x, self.weight_ih_l0, self.bias_ih_l0) + F.linear(h, self.weight_hh_l0) + 0 * self.bias_hh_l0


class NotTransposed(Stepwise):
    def total(self, x, h):
        return F.linear(x, self.weight_ih_l0, self.bias_ih_l0) + h @ self.weight_hh_l0 + self.bias_hh_l0


class Detached(Stepwise):
    def before(self, h, h0):
        return h if h is h0 else h.detach()


class Backwards(Stepwise):
    def forward(self, x, h0):
        return super().forward(x.flip(1), h0).flip(1)


class LastEverywhere(Stepwise):
    def forward(self, x, h0):
        return super().forward(x, h0)[:, -1:].expand(-1, x.shape[1], -1)


module(
    RNN, points=5, minutes=20, difficulty=2, output="hs",
    forbids=("torch.nn.RNN", "torch.nn.RNNCell", "torch.rnn_tanh", "torch.rnn_tanh_cell"),
    cases=[
        dict(init=dict(input_size=3, hidden_size=4), x=(2, 5, 3), h0=(2, 4)),
        dict(init=dict(input_size=2, hidden_size=3), x=(4, 3, 2), h0=(4, 3)),
        dict(init=dict(input_size=1, hidden_size=2), x=(1, 1, 1), h0=(1, 2)),
    ],
    hints=(
        "Four parameters: `weight_ih_l0` (hidden_size, input_size), `weight_hh_l0` (hidden_size, hidden_size), "
        "`bias_ih_l0` and `bias_hh_l0` (hidden_size,). Each is an `nn.Parameter`.",
        "A step is `torch.tanh(F.linear(x[:, t], self.weight_ih_l0, self.bias_ih_l0) + F.linear(h, self.weight_hh_l0, "
        "self.bias_hh_l0))`: both biases are added.",
        "Keep the states in a list and join them at the end with `torch.stack(hs, dim=1)`. Writing them into a tensor "
        "in place would break the graph of what was read from it.",
    ),
    mistakes={
        "hs lacks the tanh.": NoTanh,
        "hs has a relu where the tanh belongs.": WithReLU,
        "hs starts every step from h0: the state is not carried from step to step.": NotCarried,
        "hs starts from a state of zeros. It has to start from h0.": FromZeros,
        "hs lacks one of the two biases: PyTorch adds both.": OneBias,
        "hs uses weight_hh_l0 without transposing it. F.linear transposes for you.": NotTransposed,
        "dx, dweight_ih_l0, dweight_hh_l0 and the biases' gradients lose the way through time: the state was detached "
        "between the steps.": Detached,
        "hs runs through time backwards.": Backwards,
        "hs holds the last state at every step.": LastEverywhere,
    },
)  # fmt: skip


# --- Repair ----------------------------------------------------------------------------------------------------------


def picked(at):
    """The states at the steps that `at` names."""
    return lambda hs, lengths: hs[np.arange(len(hs)), at(lengths, hs.shape[1])]


def real_mean(hs, lengths):
    mask = existing(hs, lengths)
    return (hs * mask).sum(1) / mask.sum(1)


@exercise(
    repair=True, points=2, minutes=8, difficulty=1,
    cases=[
        dict(N=3, T=5, H=4, lengths=given_lengths(5, 2, 3)),
        dict(N=4, T=6, H=2, lengths=given_lengths(1, 4, 2, 5)),
        dict(N=2, T=1, H=3, lengths=given_lengths(1, 1)),
        dict(N=1, T=4, H=1, lengths=given_lengths(2)),
    ],
    hints=(
        "Take two sequences, of the lengths 2 and 5, in a batch with T = 5. Which state of the first one has seen all "
        "of it and nothing else?",
        "The last step of a sequence of length 2 is step 1: `lengths - 1`, a number for each row.",
        "Index both axes at once, with two arrays of length N: `np.arange(len(hs))` for the rows, those steps for "
        "time.",
    ),
    mistakes={
        "h is the state after all T steps: for short sequences it has run on over the padding.":
            picked(lambda lengths, t: np.full_like(lengths, t - 1)),
        "h is one step too late: a sequence of length 3 ends with step 2.":
            picked(lambda lengths, t: np.minimum(lengths, t - 1)),
        "h is the state after the shortest sequence's end, for all. Each row has its own last step.":
            picked(lambda lengths, t: np.full_like(lengths, lengths.min() - 1)),
        "h is the state after the longest sequence's end, for all. Each row has its own last step.":
            picked(lambda lengths, t: np.full_like(lengths, lengths.max() - 1)),
        "h is the mean over the steps of each sequence. Asked is the last state.":
            real_mean,
        "h is the state after the first step.":
            picked(lambda lengths, t: np.zeros_like(lengths)),
        "h has one step for the whole batch in each of its rows: index both axes at once, "
        "the rows with np.arange.":
            lambda hs, lengths: hs[:, lengths - 1],
    },
)  # fmt: skip
def repair_last_state(hs: "N T H", lengths: "N") -> "h: N H":
    """The state after the last step of each sequence."""
    return hs.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, hs.shape[2]))[:, 0]


gradient_of(
    rnn_forward, name="repair_rnn_backward", points=4, minutes=15, difficulty=3, repair=True,
    hints=(
        "Compare with your rnn_backward on a sequence of one step, then of two. With T = 1, which of the five is "
        "wrong? With T = 2, which others?",
        "The first fault is in the loop: `dh` is computed at each step, and who uses it at the next?",
        "The second fault is in dw_h: step t met the state before it. `before` has to be h0, then the states of the "
        "steps 0 to T − 2.",
    ),
    mistakes={
        "dx, dh0, dw_x, dw_h and db still have both faults: the gradient that comes back from the step after is "
        "forgotten, and dw_h is computed with the states after the steps.":
            through_time(join=own_alone, seen=lambda h0, hs, t: hs[:, t]),
        "dx, dh0, dw_x, dw_h and db still forget what comes back from the step after: add dh to dhs[:, t].":
            through_time(join=own_alone),
        "dw_h is still computed with the states after the steps. w_h met those before: h0 first.":
            through_time(seen=lambda h0, hs, t: hs[:, t]),
        "dw_h leaves out the first step: the state before it is h0.":
            through_time(seen=lambda h0, hs, t: hs[:, t - 1] if t else np.zeros_like(h0)),
        "dw_h pairs the first step with the last state: hs[:, t - 1] at t = 0 is hs[:, -1]. h0 belongs there.":
            through_time(seen=lambda h0, hs, t: hs[:, t - 1]),
        "dx, dh0, dw_x, dw_h and db have lost the outputs' own gradients: dh is to be added to dhs[:, t], not to "
        "replace it.":
            through_time(upstream=lambda dhs, t, last: dhs[:, t] * (t == last)),
        "dx, dh0, dw_x, dw_h and db add what comes back behind the slope. It goes through the tanh too: add it to "
        "dhs[:, t] first.":
            through_time(join=lambda own, dh, slope: own * slope + dh),
    },
)  # fmt: skip


# --- Predict ---------------------------------------------------------------------------------------------------------


def some(low, high):
    return lambda rng, sizes: int(rng.integers(low, high))


def counted(biases=2, below=lambda h, directions: h * directions, directions=lambda bidirectional: 1 + bidirectional):
    """The count of an nn.RNN's parameters, some of its pieces changed."""

    def count(input_size, hidden_size, num_layers=1, bidirectional=False):
        ways, total = directions(bidirectional), 0
        for layer in range(num_layers):
            width = below(hidden_size, ways) if layer else input_size
            total += ways * hidden_size * (width + hidden_size + biases)
        return total

    return count


@exercise(
    points=2, minutes=8, difficulty=2,
    cases=[
        dict(input_size=some(2, 30), hidden_size=some(31, 60)),
        dict(input_size=some(2, 30), hidden_size=some(31, 60), num_layers=3),
        dict(input_size=some(2, 30), hidden_size=some(31, 60), num_layers=2, bidirectional=True),
        dict(input_size=1, hidden_size=1, num_layers=1, bidirectional=True),
    ],
    hints=(
        "One layer, one direction: weights (H, D) and (H, H), and two biases of H numbers each.",
        "A second layer reads what the first one puts out: H numbers a step, with both directions 2H. Its D is that.",
        "Each layer has directions · H · (width + H + 2) parameters, where width is input_size in the first layer and "
        "directions · H in all others.",
    ),
    mistakes={
        "parameters has one bias for each layer. PyTorch keeps two, bias_ih and bias_hh.":
            counted(biases=1),
        "parameters has no biases. PyTorch keeps two in each layer, bias_ih and bias_hh.":
            counted(biases=0),
        "parameters has upper layers that read H numbers. With both directions a layer puts out 2H.":
            counted(below=lambda h, directions: h),
        "parameters lets w_h read the states of both directions. Each direction hands on its own H numbers.":
            lambda i, h, num_layers=1, bidirectional=False: counted()(i, h, num_layers, bidirectional)
            + bidirectional * num_layers * 2 * h**2,
        "parameters has one direction only.":
            counted(directions=lambda bidirectional: 1),
        "parameters has the same layer num_layers times. The first reads input_size numbers a step, the others what "
        "the layer below puts out.":
            lambda i, h, num_layers=1, bidirectional=False: num_layers * counted()(i, h, 1, bidirectional),
        "parameters has one layer only.":
            lambda i, h, num_layers=1, bidirectional=False: counted()(i, h, 1, bidirectional),
    },
)  # fmt: skip
def count_rnn_parameters(input_size, hidden_size, num_layers=1, bidirectional=False) -> "parameters:":
    """The learnable numbers of nn.RNN."""
    net = nn.RNN(input_size, hidden_size, num_layers, bidirectional=bidirectional, device="meta")
    return np.array(sum(p.numel() for p in net.parameters()))


@exercise(
    points=2, minutes=8, difficulty=2,
    cases=[
        dict(radius=0.9, share=0.01),
        dict(radius=0.5, share=0.125),
        dict(radius=between(0.6, 0.98), share=between(0.01, 0.5)),
        dict(radius=between(0.2, 0.6), share=between(0.01, 0.1)),
        dict(radius=0.99, share=0.001),
    ],
    hints=(
        "After one step the factor is radius, after two radius². Which power is the first to be share or less?",
        "radius to the power of k is at most share where k · log(radius) ≤ log(share). Both logarithms are negative: "
        "dividing by one turns the sign round.",
        "The smallest whole k that is at least log(share) / log(radius): `math.ceil`. For 0.5 and 0.125 that is 3.",
    ),
    mistakes={
        "steps is rounded down: then the factor is still above share.":
            lambda radius, share: math.floor(math.log(share) / math.log(radius)),
        "steps is rounded to the nearest whole number: below that, the factor is still above share.":
            lambda radius, share: round(math.log(share) / math.log(radius)),
        "steps is one too small: the last factor is not counted.":
            lambda radius, share: math.ceil(math.log(share) / math.log(radius)) - 1,
        "steps is one too large where exactly `share` is left: at most share is asked for.":
            lambda radius, share: math.floor(math.log(share) / math.log(radius)) + 1,
        "steps is one too large: count the factors.":
            lambda radius, share: math.ceil(math.log(share) / math.log(radius)) + 1,
        "steps is not a whole number: round up, to the first step after which at most share is left.":
            lambda radius, share: math.log(share) / math.log(radius),
        "steps has the two logarithms upside down.":
            lambda radius, share: math.ceil(math.log(radius) / math.log(share)),
        "steps takes away 1 − radius of the start at every step. Each step multiplies what is left.":
            lambda radius, share: math.ceil((1 - share) / (1 - radius)),
    },
)  # fmt: skip
def steps_until(radius, share) -> "steps:":
    """After how many factors of radius < 1 at most `share` is left."""
    left = torch.full((2000,), radius, dtype=torch.float64).cumprod(0)
    return np.array(int((left > share * (1 + 1e-12)).sum()) + 1)
