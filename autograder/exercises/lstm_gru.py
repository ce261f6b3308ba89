"""Lesson 17: the LSTM and the GRU, step by step and over time; windows and baselines of a time series."""

import numpy as np
import torch
from torch import nn

from autograder.exercise import exercise, gradient_of

# What the wrong implementations below are made of. Capital letters are sizes: h is the state, H how wide it is.


def sigmoid(z):
    return 0.5 * (1 + np.tanh(0.5 * z))


def same(value):
    return value


def sizes(gates, **given):
    """The named sizes of a case; 4H of an LSTM, or 3H of a GRU, follow from H."""
    return given | {f"{gates}H": gates * given["H"]}


def far(scale):
    """Pre-activations as far out as ± 1000, where gates are wide open or shut."""
    return lambda rng, sizes: scale * rng.choice([-1.0, 1.0], sizes["4H"])


STEPS = [
    sizes(4, N=2, D=3, H=5),
    sizes(4, N=3, D=2, H=1),
    sizes(4, N=1, D=1, H=2),
    sizes(4, N=2, D=3, H=2, b=far(1000.0)),
]


def sequences(gates):
    return [
        sizes(gates, N=2, T=3, D=5, H=4),
        sizes(gates, N=3, T=2, D=1, H=2),
        sizes(gates, N=2, T=1, D=2, H=3),
        sizes(gates, N=1, T=4, D=3, H=1),
    ]


# --- One step of the LSTM --------------------------------------------------------------------------------------------


def lstm_step(
    order="ifgo", squash=np.tanh, update=lambda i, f, g, c: f * c + i * g, out=lambda o, c, new: o * np.tanh(new),
    bias=1.0, recurrent=1.0,
):  # fmt: skip
    """One step of an LSTM with some of its pieces changed; `order` says which gate the rows hold."""

    def step(x, h, c, w_x, w_h, b):
        z = x @ w_x.T + recurrent * h @ w_h.T + bias * b
        parts = dict(zip(order, np.split(z, 4, axis=1), strict=True))
        i, f, o = (sigmoid(parts[key]) for key in "ifo")
        new = update(i, f, squash(parts["g"]), c)
        return out(o, c, new), new

    return step


@exercise(
    points=3, minutes=20, difficulty=2, cases=STEPS,
    hints=(
        "One matrix product gives the pre-activations of all four gates: z = x w_xᵀ + h w_hᵀ + b has shape (N, 4H). "
        "How do you cut it into four blocks of H columns?",
        "`np.split(z, 4, axis=1)` gives the blocks in the order i, f, g, o. Three of them go through sigmoid, g goes "
        "through tanh.",
        "c_new = f * c + i * g, then h_new = o * np.tanh(c_new), all of shape (N, H), element by element. Return h "
        "first, c second.",
    ),
    mistakes={
        "h and c come from gates in another order: the blocks of z are i, f, g, o, and you took the third for o and "
        "the fourth for g.":
            lstm_step(order="ifog"),
        "h and c have input gate and forget gate exchanged: the blocks of z are i, f, g, o.":
            lstm_step(order="figo"),
        "h and c have a sigmoid on g. The candidate g may be negative: it goes through tanh.":
            lstm_step(squash=sigmoid),
        "h and c write g as it is. The candidate goes through tanh: it stays between −1 and 1.":
            lstm_step(squash=same),
        "h and c multiply the old c by 1 − f. The name misleads: a forget gate of 1 keeps everything.":
            lstm_step(update=lambda i, f, g, c: (1 - f) * c + i * g),
        "h and c ignore the forget gate: the old c is multiplied by f before i * g is added.":
            lstm_step(update=lambda i, f, g, c: c + i * g),
        "h and c lost the old c: c is f times the old c plus i times g.":
            lstm_step(update=lambda i, f, g, c: i * g),
        "h and c use 1 − f as the input gate. That is how a GRU saves a gate; here i has a block of its own.":
            lstm_step(update=lambda i, f, g, c: f * c + (1 - f) * g),
        "h lacks the tanh: it is o times tanh of the new c.":
            lstm_step(out=lambda o, c, new: o * new),
        "h reads the old c. It is o times tanh of the new one.":
            lstm_step(out=lambda o, c, new: o * np.tanh(c)),
        "h and c lack the bias b.":
            lstm_step(bias=0.0),
        "h and c ignore the old h: its product with w_h belongs to every gate.":
            lstm_step(recurrent=0.0),
    },
)  # fmt: skip
def lstm_step_forward(x: "N D", h: "N H", c: "N H", w_x: "4H D", w_h: "4H H", b: "4H") -> "h: N H, c: N H":
    """One step of a long short-term memory (Hochreiter and Schmidhuber, 1997; forget gate: Gers et al., 2000)."""
    return torch.lstm_cell(x, (h, c), w_x, w_h, b, torch.zeros_like(b))


def lstm_gates(x, h, c, w_x, w_h, b):
    z = x @ w_x.T + h @ w_h.T + b
    i, f, g, o = np.split(z, 4, axis=1)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    return i, f, g, o, f * c + i * g


def lstm_step_grads(
    into_c=lambda dh, dc, o, new: dc + dh * o * (1 - np.tanh(new) ** 2), back=lambda dnew, dc, f: dnew * f,
    slopes=lambda i, f, g, o: (i * (1 - i), f * (1 - f), 1 - g**2, o * (1 - o)),
    old=lambda c, new: c, db=lambda dz: dz.sum(0), shown=lambda dh, dnew, new: dh * np.tanh(new),
    factors=lambda i, g: (g, i), order=(0, 1, 2, 3),
):  # fmt: skip
    """The backward pass of one step with some of its pieces changed."""

    def backward(dh, dc, x, h, c, w_x, w_h, b):
        i, f, g, o, new = lstm_gates(x, h, c, w_x, w_h, b)
        dnew = into_c(dh, dc, o, new)
        of_i, of_g = factors(i, g)
        parts = dnew * of_i, dnew * old(c, new), dnew * of_g, shown(dh, dnew, new)
        blocks = [part * slope for part, slope in zip(parts, slopes(i, f, g, o), strict=True)]
        dz = np.concatenate([blocks[k] for k in order], axis=1)
        return dz @ w_x, dz @ w_h, back(dnew, dc, f), dz.T @ x, dz.T @ h, db(dz)

    return backward


gradient_of(
    lstm_step_forward, points=6, minutes=35, difficulty=3,
    hints=(
        "Compute the forward pass again and keep i, f, g, o and c_new. The new c reaches the loss on two ways: "
        "directly (dc) and through h. So its whole gradient is a sum of two.",
        "dc_new = dc + dh * o * (1 − tanh(c_new)²). From it: di = dc_new * g, df = dc_new * c (the old c), dg = dc_new "
        "* i. And do = dh * tanh(c_new).",
        "Through the squashings: di * i * (1 − i), df * f * (1 − f), dg * (1 − g²), do * o * (1 − o), put side by side "
        "in this order to dz (N, 4H).",
        "What is left is a linear layer: dx = dz @ w_x, dh = dz @ w_h, dw_x = dz.T @ x, dw_h = dz.T @ h, db = sum of "
        "dz over the batch; and dc = dc_new * f.",
    ),
    mistakes={
        "dx, dh, dc, dw_x, dw_h and db ignore dc, the gradient that arrives at the new c directly. It adds to what "
        "comes through h.":
            lstm_step_grads(into_c=lambda dh, dc, o, new: dh * o * (1 - np.tanh(new) ** 2)),
        "dx, dh, dc, dw_x, dw_h and db ignore that the new c also acts on h: dh * o * (1 − tanh²) adds to dc.":
            lstm_step_grads(into_c=lambda dh, dc, o, new: dc),
        "dx, dh, dc, dw_x, dw_h and db lack the derivative of the tanh between c and h: 1 − tanh(c_new)².":
            lstm_step_grads(into_c=lambda dh, dc, o, new: dc + dh * o),
        "dx, dh, dc, dw_x, dw_h and db take 1 − c² for the derivative of the tanh between c and h. It is 1 − "
        "tanh(c_new)².":
            lstm_step_grads(into_c=lambda dh, dc, o, new: dc + dh * o * (1 - new**2)),
        "dc is not multiplied by the forget gate: the new c holds f times the old one.":
            lstm_step_grads(back=lambda dnew, dc, f: dnew),
        "dc is f times the dc that came in. What reached the new c through h goes back to the old one as well.":
            lstm_step_grads(back=lambda dnew, dc, f: dc * f),
        "dx, dh, dw_x, dw_h and db lack the derivatives of the gates: s * (1 − s) for a sigmoid s, 1 − g² for g.":
            lstm_step_grads(slopes=lambda i, f, g, o: (1, 1, 1, 1)),
        "dx, dh, dw_x, dw_h and db lack the derivatives of the three sigmoids: s * (1 − s) for i, f and o.":
            lstm_step_grads(slopes=lambda i, f, g, o: (1, 1, 1 - g**2, 1)),
        "dx, dh, dw_x, dw_h and db take g for a sigmoid. The derivative of tanh is 1 − g².":
            lstm_step_grads(slopes=lambda i, f, g, o: (i * (1 - i), f * (1 - f), g * (1 - g), o * (1 - o))),
        "dx, dh, dw_x, dw_h and db let the forget gate see the new c. It multiplied the old one.":
            lstm_step_grads(old=lambda c, new: new),
        "dx, dh, dw_x, dw_h and db lack the output gate: its gradient is dh * tanh(c_new).":
            lstm_step_grads(shown=lambda dh, dnew, new: 0 * dh),
        "dx, dh, dw_x, dw_h and db give the output gate the gradient of c. It acts on h alone: dh * tanh(c_new).":
            lstm_step_grads(shown=lambda dh, dnew, new: dnew * np.tanh(new)),
        "dx, dh, dw_x, dw_h and db lack a tanh at the output gate: it multiplied tanh(c_new), not c_new.":
            lstm_step_grads(shown=lambda dh, dnew, new: dh * new),
        "dx, dh, dw_x, dw_h and db have the factors of i and g exchanged: c_new holds i * g, so di gets g and dg gets "
        "i.":
            lstm_step_grads(factors=lambda i, g: (i, g)),
        "dx, dh, dw_x, dw_h and db come from blocks in another order: dz holds those of i, f, g, o, as w_x does.":
            lstm_step_grads(order=(0, 1, 3, 2)),
        "db is a mean. The bias collects the gradient of every example: a sum.":
            lstm_step_grads(db=lambda dz: dz.mean(0)),
    },
)  # fmt: skip


# --- The LSTM over time ----------------------------------------------------------------------------------------------


def lstm_over_time(start=same, carry=lambda old, new: new, keep=lambda h, c: h, last=lambda h, c: c, path=same):
    """An LSTM over time with some of its pieces changed; `path` gives the order of the steps."""

    def forward(x, h0, c0, w_x, w_h, b):
        (h, c), hs = (start(h0), start(c0)), np.zeros((*x.shape[:2], h0.shape[1]))
        for t in path(range(x.shape[1])):
            new = lstm_step()(x[:, t], h, c, w_x, w_h, b)
            hs[:, t] = keep(*new)
            h, c = carry((h, c), new)
        return hs, last(h, c)

    return forward


def shifted(h0, hs):
    """The state before each step."""
    return np.concatenate([h0[:, None], hs[:, :-1]], axis=1)


def stored_before(x, h0, c0, w_x, w_h, b):
    hs, c_n = lstm_over_time()(x, h0, c0, w_x, w_h, b)
    return shifted(h0, hs), c_n


@exercise(
    points=2, minutes=12, difficulty=1, cases=sequences(4),
    hints=(
        "A loop over the T steps. Which two arrays does one step hand to the next?",
        "Start from h0 and c0. At each step `h, c = lstm_step_forward(x[:, t], h, c, w_x, w_h, b)`, and h is stored.",
        "`np.stack(list_of_h, axis=1)` puts T arrays (N, H) to (N, T, H). Return that, and the last c.",
    ),
    mistakes={
        "hs and c_n start from zeros. They start from h0 and c0, which need not be 0.":
            lstm_over_time(start=np.zeros_like),
        "hs and c_n lose c between the steps: each began again with c0. h and c are both handed on.":
            lstm_over_time(carry=lambda old, new: (new[0], old[1])),
        "hs and c_n lose h between the steps: each began again with h0. h and c are both handed on.":
            lstm_over_time(carry=lambda old, new: (old[0], new[1])),
        "hs holds the cell states. What an LSTM shows to others is h; c stays inside.":
            lstm_over_time(keep=lambda h, c: c),
        "c_n is the last h. Asked is the last c; the last h is in hs already.":
            lstm_over_time(last=lambda h, c: h),
        "hs and c_n are read from the last step to the first.":
            lstm_over_time(path=reversed),
        "hs is one step late: it starts with h0. hs[:, t] is the state after step t has been read.":
            stored_before,
        "hs has the steps first. Batches are first: (N, T, H).":
            lambda *given: (lstm_over_time()(*given)[0].swapaxes(0, 1), lstm_over_time()(*given)[1]),
    },
)  # fmt: skip
def lstm_forward(x: "N T D", h0: "N H", c0: "N H", w_x: "4H D", w_h: "4H H", b: "4H") -> "hs: N T H, c_n: N H":
    """An LSTM over sequences: all hidden states, and the last cell state."""
    weights = [w_x, w_h, b, torch.zeros_like(b)]
    hs, _, c_n = torch.lstm(x, (h0[None], c0[None]), weights, True, 1, 0.0, False, False, True)
    return hs, c_n[0]


def lstm_over_time_grads(
    arrives=lambda dhs, t: dhs[:, t], dh=1.0, cell=lambda dc, dc_n: dc, end=1.0, total=sum, path=reversed, late=0,
):  # fmt: skip
    """The backward pass over time with some of its pieces changed; `late`: with the states after each step."""

    def backward(dhs, dc_n, x, h0, c0, w_x, w_h, b):
        states = [(h0, c0)]
        for t in range(x.shape[1]):
            states.append(lstm_step()(x[:, t], *states[-1], w_x, w_h, b))
        dx, gradients, back_h, arriving = np.zeros_like(x), [], np.zeros_like(h0), end * dc_n
        for t in path(range(x.shape[1])):
            given = arrives(dhs, t) + dh * back_h, arriving, x[:, t], *states[t + late]
            dx[:, t], back_h, back_c, *of_step = lstm_step_grads()(*given, w_x, w_h, b)
            arriving = cell(back_c, dc_n)
            gradients.append(of_step)
        dw_x, dw_h, db = (total(parts) for parts in zip(*gradients, strict=True))
        return dx, back_h, back_c, dw_x, dw_h, db

    return backward


gradient_of(
    lstm_forward, points=5, minutes=30, difficulty=3,
    hints=(
        "First forwards, keeping every (h, c) that a step was given. Then from the last step to the first with "
        "lstm_step_backward. Which gradients does step t get from step t + 1?",
        "At step t arrive dhs[:, t] from above and, from the step after it, a gradient of h and one of c. The last "
        "step gets zeros for h and dc_n for c.",
        "`dx[:, t], dh, dc, *grads = lstm_step_backward(dhs[:, t] + dh, dc, x[:, t], h, c, w_x, w_h, b)`, where h and "
        "c are those before step t. The parameters' gradients add up over the steps.",
        "After the loop dh and dc are dh0 and dc0.",
    ),
    mistakes={
        "dx, dh0, dc0, dw_x, dw_h and db lose the gradient of c between the steps. The cell state is where the long "
        "memory lives: hand its gradient back from step to step as well.":
            lstm_over_time_grads(cell=lambda dc, dc_n: 0 * dc),
        "dx, dh0, dc0, dw_x, dw_h and db let dc_n arrive at every step. It belongs to the last one; each step before "
        "gets the dc that the step after it returned.":
            lstm_over_time_grads(cell=lambda dc, dc_n: dc_n),
        "dx, dh0, dc0, dw_x, dw_h and db are computed with the h and c after each step. lstm_step_backward wants those "
        "that the step was given.":
            lstm_over_time_grads(late=1),
        "dx, dh0, dc0, dw_x, dw_h and db go from the first step to the last. Gradients come from the end.":
            lstm_over_time_grads(path=same),
        "dx, dh0, dc0, dw_x, dw_h and db lose the gradient of h between the steps: every h feeds the gates of the step "
        "after it.":
            lstm_over_time_grads(dh=0.0),
        "dx, dh0, dc0, dw_x, dw_h and db ignore dc_n, the gradient that arrives at the last cell state.":
            lstm_over_time_grads(end=0.0),
        "dx, dh0, dc0, dw_x, dw_h and db use the last step's dhs alone. Every hs[:, t] may act on the loss.":
            lstm_over_time_grads(arrives=lambda dhs, t: dhs[:, t] * (t == dhs.shape[1] - 1)),
        "dw_x, dw_h and db are those of one step. The same weights act at every step: their gradients add up.":
            lstm_over_time_grads(total=lambda parts: parts[-1]),
        "dw_x, dw_h and db are means over the steps. The same weights act at every step: their gradients add up.":
            lstm_over_time_grads(total=lambda parts: sum(parts) / len(parts)),
    },
)  # fmt: skip


# --- The GRU ---------------------------------------------------------------------------------------------------------


def gru_step(
    order="rzn", inner=lambda x_n, h_n, b_n, r: x_n + r * (h_n + b_n), squash=np.tanh,
    mix=lambda z, n, h: (1 - z) * n + z * h, b_h_too=1.0, before=False,
):  # fmt: skip
    """One step of a GRU with some of its pieces changed; `before`: the reset gate acts before the matrix product."""

    def step(x, h, w_x, w_h, b_x, b_h):
        b_h = b_h_too * b_h
        from_x = dict(zip(order, np.split(x @ w_x.T + b_x, 3, axis=1), strict=True))
        from_h = dict(zip(order, np.split(h @ w_h.T, 3, axis=1), strict=True))
        bias = dict(zip(order, np.split(b_h, 3), strict=True))
        r, z = (sigmoid(from_x[key] + from_h[key] + bias[key]) for key in "rz")
        if before:
            w_n = np.split(w_h, 3)[2]
            n = np.tanh(from_x["n"] + (r * h) @ w_n.T + bias["n"])
        else:
            n = squash(inner(from_x["n"], from_h["n"], bias["n"], r))
        return mix(z, n, h)

    return step


GRU_STEP = [
    sizes(3, N=2, D=3, H=4),
    sizes(3, N=3, D=2, H=1),
    sizes(3, N=1, D=1, H=2),
    sizes(3, N=2, D=3, H=2, b_x=lambda rng, sizes: 1000 * rng.choice([-1.0, 1.0], sizes["3H"])),
]


@exercise(
    points=3, minutes=20, difficulty=2, cases=GRU_STEP,
    hints=(
        "Two pre-activations, one from x and one from h: a = x w_xᵀ + b_x and u = h w_hᵀ + b_h, both (N, 3H), cut into "
        "three blocks each, in the order r, z, n. Why can't you add them all up at once?",
        "r = sigmoid(a_r + u_r) and z = sigmoid(a_z + u_z): these two blocks add up. In the third, r multiplies u_n "
        "only: n = tanh(a_n + r * u_n).",
        "h_new = (1 − z) * n + z * h: a z of 1 keeps the old state.",
    ),
    mistakes={
        "h has the reset gate before the matrix product, r * h times w_h, as in Cho et al. (2014). In PyTorch's "
        "convention r multiplies the product, its bias included.":
            gru_step(before=True),
        "h adds the n part of b_h outside the reset gate. r multiplies h w_hᵀ + b_h: that is why there are two biases.":
            gru_step(inner=lambda x_n, h_n, b_n, r: x_n + r * h_n + b_n),
        "h ignores the reset gate: r multiplies what n gets from the old state.":
            gru_step(inner=lambda x_n, h_n, b_n, r: x_n + h_n + b_n),
        "h lets the reset gate act on what comes from x as well. It only multiplies what comes from the old state.":
            gru_step(inner=lambda x_n, h_n, b_n, r: r * (x_n + h_n + b_n)),
        "h has z the other way round: (1 − z) belongs to n, and z to the old h.":
            gru_step(mix=lambda z, n, h: z * n + (1 - z) * h),
        "h has reset gate and update gate exchanged: the blocks are r, z, n.":
            gru_step(order="zrn"),
        "h has a sigmoid on n. The candidate may be negative: it goes through tanh.":
            gru_step(squash=sigmoid),
        "h lost the old state: z * h has to be added.":
            gru_step(mix=lambda z, n, h: (1 - z) * n),
        "h lacks the bias b_h.":
            gru_step(b_h_too=0.0),
    },
)  # fmt: skip
def gru_step_forward(x: "N D", h: "N H", w_x: "3H D", w_h: "3H H", b_x: "3H", b_h: "3H") -> "h: N H":
    """One step of a gated recurrent unit (Cho et al., 2014), the reset gate behind the matrix product as in PyTorch."""
    return torch.gru_cell(x, h, w_x, w_h, b_x, b_h)


def gru_step_grads(
    direct=lambda dh, z: dh * z, dn=lambda dh, z: dh * (1 - z), dz=lambda dh, n, h: dh * (h - n),
    slope=lambda n: 1 - n**2, reset=lambda d, r: d * r, kept=lambda d, r: d, seen=lambda u_n, h: u_n,
    gates=lambda s: s * (1 - s),
):  # fmt: skip
    """The backward pass of one step of a GRU with some of its pieces changed."""

    def backward(dh, x, h, w_x, w_h, b_x, b_h):
        a, u = np.split(x @ w_x.T + b_x, 3, axis=1), np.split(h @ w_h.T + b_h, 3, axis=1)
        r, z = sigmoid(a[0] + u[0]), sigmoid(a[1] + u[1])
        n = np.tanh(a[2] + r * u[2])
        inner = dn(dh, z) * slope(n)
        first = [inner * seen(u[2], h) * gates(r), dz(dh, n, h) * gates(z)]
        da, du = (np.concatenate([*first, last(inner, r)], axis=1) for last in (kept, reset))
        return da @ w_x, du @ w_h + direct(dh, z), da.T @ x, du.T @ h, da.sum(0), du.sum(0)

    return backward


gradient_of(
    gru_step_forward, points=6, minutes=35, difficulty=3,
    hints=(
        "Compute the forward pass again and keep r, z, n and u_n = h w_hnᵀ + b_hn. From h_new = (1 − z) n + z h: what "
        "are the gradients of n, of z, and of the h that stands there directly?",
        "dn = dh * (1 − z), dz = dh * (h − n), and dh * z goes straight back to h. Through the tanh: dn * (1 − n²) is "
        "the gradient of a_n; of u_n it is that times r, and of r it is that times u_n.",
        "Two stacks (N, 3H): da = [dr * r * (1 − r), dz * z * (1 − z), d_n] for everything that came from x, and du, "
        "the same with d_n * r in the last block, for everything that came from h.",
        "dx = da @ w_x, dw_x = da.T @ x, db_x = sum of da; dw_h = du.T @ h, db_h = sum of du; dh = du @ w_h + dh * z.",
    ),
    mistakes={
        "dh lacks the direct way: h_new holds z * h, so dh * z has to be added.":
            gru_step_grads(direct=lambda dh, z: 0),
        "dh gets all of the upstream gradient on the direct way. The old h was multiplied by z there.":
            gru_step_grads(direct=lambda dh, z: dh),
        "dh has 1 − z on the direct way. The old h was multiplied by z there.":
            gru_step_grads(direct=lambda dh, z: dh * (1 - z)),
        "dh, dw_h and db_h forget that r multiplied what n got from the old state: that block is dn * (1 − n²) * r.":
            gru_step_grads(reset=lambda d, r: d),
        "dx, dw_x and db_x have r in the block of n. It multiplied what came from the old state, not what came from x.":
            gru_step_grads(kept=lambda d, r: d * r),
        "dx, dh, dw_x, dw_h, db_x and db_h have the wrong sign at the update gate: the derivative of (1 − z) n + z h "
        "by z is h − n.":
            gru_step_grads(dz=lambda dh, n, h: dh * (n - h)),
        "dx, dh, dw_x, dw_h, db_x and db_h forget n in the gradient of z: the derivative of (1 − z) n + z h by z is "
        "h − n.":
            gru_step_grads(dz=lambda dh, n, h: dh * h),
        "dx, dh, dw_x, dw_h, db_x and db_h let n have all of the upstream gradient. It was multiplied by 1 − z.":
            gru_step_grads(dn=lambda dh, z: dh),
        "dx, dh, dw_x, dw_h, db_x and db_h give n the gradient dh * z. It was multiplied by 1 − z.":
            gru_step_grads(dn=lambda dh, z: dh * z),
        "dx, dh, dw_x, dw_h, db_x and db_h lack the derivative of the tanh, 1 − n².":
            gru_step_grads(slope=lambda n: 1),
        "dx, dh, dw_x, dw_h, db_x and db_h let the reset gate multiply h. It multiplied h w_hᵀ + b_h.":
            gru_step_grads(seen=lambda u_n, h: h),
        "dx, dh, dw_x, dw_h, db_x and db_h lack the derivatives of the gates: s * (1 − s) for a sigmoid s.":
            gru_step_grads(gates=lambda s: 1),
    },
)  # fmt: skip


def gru_over_time(start=same, carry=lambda old, new: new, path=same):
    """A GRU over time with some of its pieces changed."""

    def forward(x, h0, w_x, w_h, b_x, b_h):
        h, hs = start(h0), np.zeros((*x.shape[:2], h0.shape[1]))
        for t in path(range(x.shape[1])):
            hs[:, t] = gru_step()(x[:, t], h, w_x, w_h, b_x, b_h)
            h = carry(h, hs[:, t])
        return hs

    return forward


@exercise(
    points=2, minutes=8, difficulty=1, cases=sequences(3),
    hints=(
        "As lstm_forward, with one state instead of two.",
        "Start from h = h0; at each step `h = gru_step_forward(x[:, t], h, w_x, w_h, b_x, b_h)`, and keep it.",
        "`np.stack(list_of_h, axis=1)` puts T arrays (N, H) to (N, T, H).",
    ),
    mistakes={
        "hs starts from zeros. It starts from h0, which need not be 0.":
            gru_over_time(start=np.zeros_like),
        "hs forgets the state between the steps: each began again with h0.":
            gru_over_time(carry=lambda old, new: old),
        "hs is read from the last step to the first.":
            gru_over_time(path=reversed),
        "hs is one step late: it starts with h0. hs[:, t] is the state after step t has been read.":
            lambda x, h0, *rest: shifted(h0, gru_over_time()(x, h0, *rest)),
        "hs has the steps first. Batches are first: (N, T, H).":
            lambda *given: gru_over_time()(*given).swapaxes(0, 1),
    },
)  # fmt: skip
def gru_forward(x: "N T D", h0: "N H", w_x: "3H D", w_h: "3H H", b_x: "3H", b_h: "3H") -> "hs: N T H":
    """A GRU over sequences: all hidden states."""
    return torch.gru(x, h0[None], [w_x, w_h, b_x, b_h], True, 1, 0.0, False, False, True)[0]


def gru_over_time_grads(arrives=lambda dhs, t: dhs[:, t], carried=1.0, total=sum, before=shifted):
    """The backward pass of a GRU over time with some of its pieces changed."""

    def backward(dhs, x, h0, w_x, w_h, b_x, b_h):
        hs = before(h0, gru_over_time()(x, h0, w_x, w_h, b_x, b_h))
        dx, gradients, dh = np.zeros_like(x), [], np.zeros_like(h0)
        for t in reversed(range(x.shape[1])):
            step = gru_step_grads()(arrives(dhs, t) + carried * dh, x[:, t], hs[:, t], w_x, w_h, b_x, b_h)
            dx[:, t], dh = step[:2]
            gradients.append(step[2:])
        return dx, dh, *(total(parts) for parts in zip(*gradients, strict=True))

    return backward


gradient_of(
    gru_forward, points=4, minutes=18, difficulty=2,
    hints=(
        "As lstm_backward, with one state instead of two: forwards first, then from the last step to the first.",
        "The state before step t is hs[:, t − 1], before the first step h0. At step t arrive dhs[:, t] and what "
        "gru_step_backward of step t + 1 returned for h.",
        "The gradients of w_x, w_h, b_x and b_h add up over the steps; the last dh is dh0.",
    ),
    mistakes={
        "dx, dh0, dw_x, dw_h, db_x and db_h lose the gradient of h between the steps: every h feeds the step after it.":
            gru_over_time_grads(carried=0.0),
        "dx, dh0, dw_x, dw_h, db_x and db_h are computed with the state after each step. gru_step_backward wants the "
        "one that the step was given.":
            gru_over_time_grads(before=lambda h0, hs: hs),
        "dx, dh0, dw_x, dw_h, db_x and db_h take the last state for the one before the first step: hs[:, t − 1] is "
        "hs[:, −1] at t = 0. There stands h0.":
            gru_over_time_grads(before=lambda h0, hs: np.roll(hs, 1, axis=1)),
        "dx, dh0, dw_x, dw_h, db_x and db_h use the last step's dhs alone. Every hs[:, t] may act on the loss.":
            gru_over_time_grads(arrives=lambda dhs, t: dhs[:, t] * (t == dhs.shape[1] - 1)),
        "dw_x, dw_h, db_x and db_h are those of one step. The same weights act at every step: their gradients add up.":
            gru_over_time_grads(total=lambda parts: parts[-1]),
        "dw_x, dw_h, db_x and db_h are means over the steps. The same weights act at every step: their gradients add "
        "up.":
            gru_over_time_grads(total=lambda parts: sum(parts) / len(parts)),
    },
)  # fmt: skip


# --- The forget gate's bias ------------------------------------------------------------------------------------------


def biases(value, block=1):
    """b (4H,) with these values in one block, zeros in the others."""

    def answer(half_life):
        b = np.zeros((4, len(half_life)))
        b[block] = value(half_life)
        return b.ravel()

    return answer


def logit(p):
    return np.log(p) - np.log1p(-p)


@exercise(
    points=2, minutes=12, difficulty=2, draws=dict(half_life=lambda rng, sizes: rng.uniform(1.5, 60, sizes["H"])),
    cases=[sizes(4, H=3), sizes(4, H=5), sizes(4, H=1)],
    hints=(
        "Which forget gate f leaves one half after `half_life` steps? f to the power of half_life is 1/2.",
        "f = 2^(−1/half_life). The gate is sigmoid(b), so b is the inverse of the sigmoid at f: log(f / (1 − f)).",
        "The four blocks of b are i, f, g, o, H numbers each: zeros, those biases, zeros, zeros.",
    ),
    mistakes={
        "b holds the forget gates themselves. The gate is sigmoid(b): take the inverse, log(f / (1 − f)).":
            biases(lambda life: 2 ** (-1 / life)),
        "b has the biases in the block of the input gate. The blocks are i, f, g, o.":
            biases(lambda life: logit(2 ** (-1 / life)), block=0),
        "b has the wrong sign: forgetting slowly needs a forget gate near 1, so a large bias.":
            biases(lambda life: -logit(2 ** (-1 / life))),
        "b makes each cell forget within one step what it should forget in half_life steps: the root is missing.":
            biases(lambda life: logit(2 ** -np.minimum(life, 500))),
        "b takes f = exp(−1/half_life), which leaves 1/e after half_life steps. Asked is one half.":
            biases(lambda life: logit(np.exp(-1 / life))),
        "b takes f = 1 − 1/half_life, which leaves about 1/e after half_life steps. Asked is one half.":
            biases(lambda life: logit(1 - 1 / life)),
        "b has the biases in the block of the candidate g. The blocks are i, f, g, o.":
            biases(lambda life: logit(2 ** (-1 / life)), block=2),
        "b has the biases in every block. Only the forget gate gets one.":
            biases(lambda life: logit(2 ** (-1 / life)), block=slice(None)),
    },
)  # fmt: skip
def forget_bias(half_life: "H") -> "b: 4H":
    """Biases with which each cell, left alone, loses one half in half_life steps; zeros for the other gates."""
    quiet = torch.zeros_like(half_life)
    return torch.cat([quiet, torch.logit(torch.exp2(-1 / half_life)), quiet, quiet])


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class HandMade(nn.Module):
    """The parameters of a recurrent layer under PyTorch's names, and what the wrong modules below have in common."""

    gates, spread = 4, 1.0

    def __init__(self, input_size, hidden_size):
        super().__init__()
        rows, bound = self.gates * hidden_size, self.spread * hidden_size**-0.5
        for name, shape in dict(
            weight_ih_l0=(rows, input_size), weight_hh_l0=(rows, hidden_size), bias_ih_l0=(rows,), bias_hh_l0=(rows,)
        ).items():
            setattr(self, name, nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))
        self.hidden_size = hidden_size

    def parts(self, x, h):
        """What comes from x and what comes from h, cut into blocks."""
        from_x, from_h = x @ self.weight_ih_l0.T + self.bias_ih_l0, h @ self.weight_hh_l0.T + self.bias_hh_l0
        return from_x.chunk(self.gates, 1), from_h.chunk(self.gates, 1)

    def zeros(self, x):
        return x.new_zeros(len(x), self.hidden_size)


class HandLSTM(HandMade):
    def step(self, x, h, c):
        i, f, g, o = (a + b for a, b in zip(*self.parts(x, h), strict=True))
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    def states(self, hx):
        return hx[0][0], hx[1][0]

    def given(self, h, c):
        return h[None], c[None]

    def forward(self, x, hx=None):
        h, c = (self.zeros(x), self.zeros(x)) if hx is None else self.states(hx)
        hs = []
        for x_t in x.unbind(1):
            h, c = self.step(x_t, h, c)
            hs.append(h)
        return torch.stack(hs, 1), self.given(h, c)


class OneBias(HandLSTM):
    def parts(self, x, h):
        from_x, from_h = super().parts(x, h)
        return from_x, [block - b for block, b in zip(from_h, self.bias_hh_l0.chunk(self.gates), strict=True)]


class OtherOrder(HandLSTM):
    def step(self, x, h, c):
        i, f, o, g = (a + b for a, b in zip(*self.parts(x, h), strict=True))
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class StateIgnored(HandLSTM):
    def states(self, hx):
        return 0 * hx[0][0], 0 * hx[1][0]


class StatesExchanged(HandLSTM):
    def given(self, h, c):
        return c[None], h[None]


class NoLayerAxis(HandLSTM):
    def given(self, h, c):
        return h, c


class StepsFirst(HandLSTM):
    def forward(self, x, hx=None):
        hs, states = super().forward(x, hx)
        return hs.transpose(0, 1), states


class LargeStart(HandLSTM):
    spread = 4.0


class Detached(HandLSTM):
    def step(self, x, h, c):
        return super().step(x, h.detach(), c.detach())


def module_case(n, t, d, hidden, cell=True):
    case = dict(input_size=d, hidden_size=hidden, x=(n, t, d), h_0=(1, n, hidden))
    return case | (dict(c_0=(1, n, hidden)) if cell else {})


def seeded(rng, sizes):
    return int(rng.integers(2**31))


BUILT_IN = (
    "torch.nn.LSTM", "torch.nn.GRU", "torch.nn.LSTMCell", "torch.nn.GRUCell",
    "torch.lstm", "torch.gru", "torch.lstm_cell", "torch.gru_cell",
)  # fmt: skip


@exercise(
    script="lstm", points=4, minutes=25, difficulty=2, forbids=BUILT_IN, draws=dict(seed=seeded),
    cases=[module_case(2, 3, 5, 4), module_case(3, 1, 2, 3), module_case(1, 4, 1, 1)],
    hints=(
        "Four `nn.Parameter`s named weight_ih_l0 (4H, D), weight_hh_l0 (4H, H), bias_ih_l0 and bias_hh_l0 (4H,), drawn "
        "uniformly between −1/√H and 1/√H: `torch.empty(…).uniform_(-bound, bound)`.",
        "forward(self, x, hx=None): without hx, h and c are zeros (N, H), made by `x.new_zeros(…)` so that they have "
        "x's kind and device. With it, `h, c = hx[0][0], hx[1][0]`: the first axis counts layers.",
        "In the loop: `gates = x[:, t] @ self.weight_ih_l0.T + self.bias_ih_l0 + h @ self.weight_hh_l0.T + "
        "self.bias_hh_l0`, then `i, f, g, o = gates.chunk(4, dim=1)`.",
        "Return `torch.stack(hs, dim=1), (h[None], c[None])`. Don't write into a prepared tensor of outputs: stack "
        "them.",
    ),
    mistakes={
        "output, h_n and c_n lack bias_hh_l0: both biases are added.":
            OneBias,
        "output, h_n and c_n take the gates in another order: the blocks are i, f, g, o.":
            OtherOrder,
        "output, h_n and c_n ignore the states that forward was given as its second argument.":
            StateIgnored,
        "h_n and c_n are exchanged: forward returns output, (h_n, c_n).":
            StatesExchanged,
        "h_n and c_n lack the axis of layers: the built-in's have shape (1, N, H).":
            NoLayerAxis,
        "output has the steps first. With batch_first=True it is (N, T, H).":
            StepsFirst,
        "start is another one than PyTorch's: all four are drawn uniformly between −1/√H and 1/√H.":
            LargeStart,
        "dx, dh_0, dc_0 and the parameters' gradients stop between the steps: something detaches the states.":
            Detached,
    },
)  # fmt: skip
class LSTM(nn.LSTM):
    """nn.LSTM with one layer and batches first."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size, batch_first=True)


class HandGRU(HandMade):
    gates = 3

    def step(self, x, h):
        (a_r, a_z, a_n), (u_r, u_z, u_n) = self.parts(x, h)
        return self.mix((a_z + u_z).sigmoid(), (a_n + (a_r + u_r).sigmoid() * u_n).tanh(), h)

    def mix(self, z, n, h):
        return (1 - z) * n + z * h

    def given(self, h):
        return h[None]

    def forward(self, x, hx=None):
        h, hs = self.zeros(x) if hx is None else hx[0], []
        for x_t in x.unbind(1):
            h = self.step(x_t, h)
            hs.append(h)
        return torch.stack(hs, 1), self.given(h)


class BiasOutside(HandGRU):
    def step(self, x, h):
        (a_r, a_z, a_n), (u_r, u_z, u_n) = self.parts(x, h)
        b_n = self.bias_hh_l0.chunk(3)[2]
        return self.mix((a_z + u_z).sigmoid(), (a_n + (a_r + u_r).sigmoid() * (u_n - b_n) + b_n).tanh(), h)


class ResetBefore(HandGRU):
    def step(self, x, h):
        (a_r, a_z, a_n), (u_r, u_z, _) = self.parts(x, h)
        r, w_n, b_n = (a_r + u_r).sigmoid(), self.weight_hh_l0.chunk(3)[2], self.bias_hh_l0.chunk(3)[2]
        return self.mix((a_z + u_z).sigmoid(), (a_n + (r * h) @ w_n.T + b_n).tanh(), h)


class UpdateReversed(HandGRU):
    def mix(self, z, n, h):
        return z * n + (1 - z) * h


class GatesExchanged(HandGRU):
    def parts(self, x, h):
        (a_r, a_z, a_n), (u_r, u_z, u_n) = super().parts(x, h)
        return (a_z, a_r, a_n), (u_z, u_r, u_n)


class GRUWithoutLayerAxis(HandGRU):
    def given(self, h):
        return h


class GRULargeStart(HandGRU):
    spread = 4.0


@exercise(
    script="gru", points=4, minutes=20, difficulty=2, forbids=BUILT_IN, draws=dict(seed=seeded),
    cases=[module_case(*sizes, cell=False) for sizes in ((2, 3, 5, 4), (3, 1, 2, 3), (1, 4, 1, 1))],
    hints=(
        "The same four names as in LSTM, with 3H rows instead of 4H, drawn uniformly between −1/√H and 1/√H.",
        "Per step: `a = x[:, t] @ self.weight_ih_l0.T + self.bias_ih_l0` and `u = h @ self.weight_hh_l0.T + "
        "self.bias_hh_l0`, each cut by `.chunk(3, dim=1)` into r, z, n.",
        "n = tanh(a_n + r * u_n), h = (1 − z) * n + z * h. Return `torch.stack(hs, dim=1), h[None]`.",
    ),
    mistakes={
        "output and h_n have the n part of bias_hh_l0 outside the reset gate. r multiplies the product and this bias.":
            BiasOutside,
        "output and h_n have the reset gate before the matrix product. In PyTorch's convention r multiplies the "
        "product, its bias included.":
            ResetBefore,
        "output and h_n have z the other way round: (1 − z) belongs to n, and z to the old h.":
            UpdateReversed,
        "output and h_n have reset gate and update gate exchanged: the blocks are r, z, n.":
            GatesExchanged,
        "h_n lacks the axis of layers: the built-in's has shape (1, N, H).":
            GRUWithoutLayerAxis,
        "start is another one than PyTorch's: all four are drawn uniformly between −1/√H and 1/√H.":
            GRULargeStart,
    },
)  # fmt: skip
class GRU(nn.GRU):
    """nn.GRU with one layer and batches first."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size, batch_first=True)


# --- Time series -----------------------------------------------------------------------------------------------------


def windows(first=lambda t, length, horizon: t - horizon - length + 1, late=0, begin=0, flip=1):
    """Windows of a series with some of their pieces changed."""

    def answer(series, length, start, stop, horizon=1):
        at = np.arange(start + begin * length, stop + late)
        rows = [series[first(t, length, horizon) :][:length][::flip] for t in at]
        return np.array(rows), series[at]

    return answer


WINDOWS = [
    dict(T=17, length=4, start=8, stop=14),
    dict(T=20, length=3, start=9, stop=16, horizon=3),
    dict(T=16, length=1, start=8, stop=12, horizon=2),
    dict(T=18, length=5, start=12, stop=13),
]


@exercise(
    points=3, minutes=18, difficulty=2, cases=WINDOWS,
    hints=(
        "There is one window for each target t = start, …, stop − 1. Which is the last value that is known when "
        "series[t] is forecast `horizon` steps ahead?",
        "It is series[t − horizon]. The window ends with it: `series[t - horizon - length + 1 : t - horizon + 1]`.",
        "`x = np.array([series[t - horizon - length + 1 : t - horizon + 1] for t in range(start, stop)])` and `y = "
        "series[start:stop]`.",
    ),
    mistakes={
        "x contains its own target: the window has to end `horizon` steps before t, at series[t − horizon].":
            windows(first=lambda t, length, horizon: t - length + 1),
        "x ends one step too early: the last value that is known is series[t − horizon].":
            windows(first=lambda t, length, horizon: t - horizon - length),
        "x ignores the horizon: it ends right before the target. `horizon` steps ahead, the last known value is "
        "series[t − horizon].":
            windows(first=lambda t, length, horizon: t - length),
        "x and y leave out the first targets. A window may reach back before `start`: these values are past, not "
        "leaked.":
            windows(begin=1),
        "x and y go one too far: `stop` is not among the targets.":
            windows(late=1),
        "x runs backwards: the oldest value stands first.":
            windows(flip=-1),
    },
)  # fmt: skip
def forecast_windows(series: "T", length, start, stop, horizon=1) -> "x: ..., y: ...":
    """Windows of `length` values and, `horizon` steps behind the last of them, the target: start ≤ its place < stop."""
    x = series.unfold(0, length, 1)[start - horizon - length + 1 : stop - horizon - length + 1]
    return x, series[start:stop]


def looking_back(steps):
    """Forecasts that repeat the value so many steps earlier."""

    def answer(series, season, start, stop, horizon=1):
        at = np.arange(start, stop)
        return series[at - steps(season, horizon)]

    return answer


@exercise(
    points=2, minutes=12, difficulty=2,
    cases=[
        dict(T=24, season=4, start=15, stop=21),
        dict(T=30, season=3, start=20, stop=27, horizon=5),
        dict(T=20, season=1, start=8, stop=12, horizon=2),
        dict(T=26, season=6, start=14, stop=15, horizon=6),
    ],
    hints=(
        "A forecast of series[t] is made when series[t − horizon] is the last known value. Which known value stands at "
        "the same place of the season?",
        "series[t − season] is known as long as horizon ≤ season. Otherwise go back two seasons, or three.",
        "The number of whole seasons to go back is horizon / season, rounded up: `-(-horizon // season)`.",
    ),
    mistakes={
        "forecasts look into the future: with a horizon longer than the season, series[t − season] is not known yet. "
        "Go back as many whole seasons as it takes.":
            looking_back(lambda season, horizon: season),
        "forecasts repeat the last known value. That is the naive forecast; the seasonal one repeats the same place of "
        "an earlier season.":
            looking_back(lambda season, horizon: horizon),
        "forecasts go back a season from the last known value. Count the season from the target.":
            looking_back(lambda season, horizon: season + horizon),
        "forecasts go back one season too many where the horizon is a whole number of seasons: round horizon / season "
        "up.":
            looking_back(lambda season, horizon: season * (horizon // season + 1)),
        "forecasts go back a season too few where horizon / season is no whole number; with a horizon below the season "
        "they are the targets themselves. Round up.":
            looking_back(lambda season, horizon: season * (horizon // season)),
        "forecasts stand at another place of the season where the horizon is longer than it: go back whole seasons.":
            looking_back(max),
    },
)  # fmt: skip
def seasonal_naive(series: "T", season, start, stop, horizon=1) -> "forecasts: ...":
    """The forecast that repeats the latest known season: the last known value at the same place of the season."""
    back = next(k * season for k in range(1, horizon + 1) if k * season >= horizon)
    return series[start - back : stop - back]


# --- Repair and predict ----------------------------------------------------------------------------------------------


def repaired(before=False, mix=lambda z, n, h: (1 - z) * n + z * h):
    return gru_step(before=before, mix=mix)


@exercise(
    points=2, minutes=15, difficulty=2, cases=GRU_STEP, repair=True,
    hints=(
        "Set z aside first: with the update gate's biases at −1000, z = 0 and h_new = n. Is that so in this code?",
        "Write down the two places where the old h enters n and h_new. What does PyTorch multiply by r: h, or h w_hᵀ + "
        "b?",
        "n = tanh(a_n + r * (h w_hnᵀ + b_hn)), and h_new = (1 − z) * n + z * h.",
    ),
    mistakes={
        "h still has the reset gate before the matrix product. PyTorch's r multiplies h w_hᵀ + b_h.":
            repaired(before=True),
        "h still has z the other way round: a z of 1 keeps the old state.":
            repaired(mix=lambda z, n, h: z * n + (1 - z) * h),
        "h is as it was: look at where r acts, and at which of the two states z multiplies.":
            repaired(before=True, mix=lambda z, n, h: z * n + (1 - z) * h),
        "h has the right r, but the n part of b_h stands outside: r multiplies the product and its bias.":
            gru_step(inner=lambda x_n, h_n, b_n, r: x_n + r * h_n + b_n),
    },
)  # fmt: skip
def repair_gru_step_forward(x: "N D", h: "N H", w_x: "3H D", w_h: "3H H", b_x: "3H", b_h: "3H") -> "h: N H":
    """One step of a gated recurrent unit, by somebody who had read the paper and loaded PyTorch's weights."""
    return torch.gru_cell(x, h, w_x, w_h, b_x, b_h)


def prepared(scale=lambda series, stop: series[:stop], spread=None, target=0, gap=0):
    """Training and test windows with some of their pieces changed."""

    def answer(series, length, stop):
        known = scale(series, stop)
        series = (series - known.mean()) / (spread or scale)(series, stop).std()
        at = np.arange(length, len(series))
        x = np.array([series[t - length : t] for t in at + target])
        train, test = at < stop, at >= stop + gap * length
        return x[train], series[at][train], x[test], series[at][test]

    return answer


@exercise(
    points=2, minutes=15, difficulty=2, repair=True,
    cases=[dict(T=18, length=3, stop=12), dict(T=14, length=1, stop=9), dict(T=21, length=5, stop=14)],
    draws=dict(series=lambda rng, sizes: rng.standard_normal(sizes["T"]) + 0.3 * np.arange(sizes["T"])),
    hints=(
        "On the day on which the model is trained, which values of the series exist? Which numbers in this code come "
        "from later ones?",
        "Mean and standard deviation are taken from the training part alone, series[:stop], and applied to everything.",
        "And print one window with its target for the series 0, 1, 2, …: is the target in the window?",
    ),
    mistakes={
        "x_train, y_train, x_test and y_test are scaled with the mean and the spread of the whole series: the training "
        "data knows how the test data will be.":
            prepared(scale=lambda series, stop: series),
        "x_train, y_train, x_test and y_test are divided by the spread of the whole series; the mean is the training "
        "part's. Both have to be.":
            prepared(spread=lambda series, stop: series),
        "x_train and x_test contain their own targets: a window ends one step before.":
            prepared(target=1),
        "x_train, y_train, x_test and y_test are as they were: look at what scales them, and at where a window ends.":
            prepared(scale=lambda series, stop: series, target=1),
        "x_test and y_test leave out the first test values. Their windows reach back into the training part; that is "
        "past, not leaked.":
            prepared(gap=1),
        "x_train, y_train, x_test and y_test are scaled with the test part.":
            prepared(scale=lambda series, stop: series[stop:]),
    },
)  # fmt: skip
def repair_forecast_data(series: "T", length, stop) -> "x_train: ..., y_train: ..., x_test: ..., y_test: ...":
    """Windows and targets one step ahead, before and from `stop` on, in units of the training part's spread."""
    known = series[:stop]
    scaled = (series - known.mean()) / known.std(correction=0)
    x, y = scaled.unfold(0, length, 1)[:-1], scaled[length:]
    cut = stop - length
    return x[:cut], y[:cut], x[cut:], y[cut:]


def counted(gates=None, biases=2, above=None, directions=2, recurrent=1):
    """A count with some of its pieces changed; `above`: what a layer above the first sees, (H, directions) -> width."""

    def answer(kind, input_size, hidden_size, num_layers=1, bidirectional=False):
        many = (gates or {"RNN": 1, "GRU": 3, "LSTM": 4})[kind] * hidden_size
        ways = directions if bidirectional else 1
        sees = (above or (lambda D, H, ways: ways * H))(input_size, hidden_size, 2 if bidirectional else 1)
        widths = [input_size] + [sees] * (num_layers - 1)
        return sum(ways * many * (width + recurrent * hidden_size + biases) for width in widths)

    return answer


def between(low, high):
    return lambda rng, sizes: int(rng.integers(low, high))


@exercise(
    points=1, minutes=10, difficulty=1,
    cases=[
        dict(kind="LSTM", input_size=between(2, 9), hidden_size=between(3, 12)),
        dict(kind="GRU", input_size=between(2, 9), hidden_size=between(10, 20), num_layers=3),
        dict(kind="LSTM", input_size=between(20, 30), hidden_size=between(3, 12), num_layers=2, bidirectional=True),
        dict(kind="RNN", input_size=between(2, 9), hidden_size=between(10, 20), num_layers=2, bidirectional=True),
    ],
    hints=(
        "Count one gate of one layer first: a matrix for x, a matrix for h, and PyTorch's two biases.",
        "An LSTM has four such blocks, a GRU three, an RNN one. The layers above the first see the states of the layer "
        "below instead of x.",
        "In both directions everything is there twice, and the layers above the first see 2H numbers.",
    ),
    mistakes={
        "parameters counts one bias per block. PyTorch's layers have two, bias_ih and bias_hh.":
            counted(biases=1),
        "parameters lacks the biases.":
            counted(biases=0),
        "parameters gives every layer the input's width. The layers above the first see the states of the one below.":
            counted(above=lambda D, H, ways: D),
        "parameters lets the upper layers of a bidirectional network see H numbers. Both directions arrive: 2H.":
            counted(above=lambda D, H, ways: H),
        "parameters counts one direction. The other one has weights of its own.":
            counted(directions=1),
        "parameters has three blocks for the LSTM and four for the GRU; it is the other way round.":
            counted(gates={"RNN": 1, "GRU": 4, "LSTM": 3}),
        "parameters counts gates and forgets the candidate, which has a block as well: four in an LSTM, three in a "
        "GRU.":
            counted(gates={"RNN": 1, "GRU": 2, "LSTM": 3}),
        "parameters lacks the recurrent matrices, H columns in each block.":
            counted(recurrent=0),
    },
)  # fmt: skip
def count_recurrent_parameters(kind, input_size, hidden_size, num_layers=1, bidirectional=False) -> "parameters:":
    """The learnable numbers of nn.RNN, nn.LSTM or nn.GRU."""
    layer = getattr(nn, kind)(input_size, hidden_size, num_layers, bidirectional=bidirectional)
    return np.array(sum(parameter.numel() for parameter in layer.parameters()))
