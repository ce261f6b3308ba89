"""Lesson 20: plays attention with a meter beside it: what it gives, and what it makes on the way."""

import sys
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import numpy as np

NUMPY = str(Path(np.__file__).parent)

# --- Cheaper patterns ------------------------------------------------------------------------------------------------


def local(
    local_attention, q: "... t d", k: "... t d", v: "... t e", window, metered=False
) -> "y: ... t e, (work beyond the window):":
    """Whether four times the length makes it make more than eight times the numbers."""
    y = local_attention(q, k, v, window)
    return y, metered and _grows(lambda *given: local_attention(*given, 2), (128, 512), 1.5)


def linear(
    attention, q: "... t d", k: "... t d", v: "... t e", metered=False
) -> "y: ... t e, (a square of the length):":
    return attention(q, k, v), metered and _grows(attention, (128, 512), 1.5)


def cross(
    attention, q: "... t d", k: "... s d", v: "... s e", metered=False
) -> "y: ... t e, (a square of the length):":
    return attention(q, k, v), metered and _grows(attention, (128, 512), 1.5)


def cross_gradient(
    backward, dy: "... t e", q: "... t d", k: "... s d", v: "... s e", metered=False
) -> "dq: ... t d, dk: ... s d, dv: ... s e, (a square of the length):":
    squares = metered and _grows(lambda q, k, v: backward(v, q, k, v), (128, 512), 1.5)
    return *backward(dy, q, k, v), squares


def multiscale(
    multiscale_attention, q: "... t d", k: "... t d", v: "... t e", block, metered=False
) -> "y: ... t e, (a square of the length):":
    """Blocks as long as the root of the length: the work grows with its power 1.5."""
    y = multiscale_attention(q, k, v, block)

    def by_root(q, k, v):
        return multiscale_attention(q, k, v, int(len(q) ** 0.5))

    return y, metered and _grows(by_root, (64, 576), 1.75)


# --- Block by block --------------------------------------------------------------------------------------------------


def online(
    attention, q: "... t d", k: "... s d", v: "... s e", block, metered=False
) -> "y: ... t e, (the score matrix in memory):":
    return attention(q, k, v, block), metered and _holds(lambda q, k, v: attention(q, k, v, 16))


def online_gradient(
    backward, dy: "... t e", q: "... t d", k: "... s d", v: "... s e", block, metered=False
) -> "dq: ... t d, dk: ... s d, dv: ... s e, (the score matrix in memory):":
    holds = metered and _holds(lambda q, k, v: backward(q, q, k, v, 16))
    return *backward(dy, q, k, v, block), holds


# --- The meters ------------------------------------------------------------------------------------------------------


def _grows(attention, lengths, power):
    """Whether what a call makes grows faster than this power of the length."""
    rng = np.random.default_rng(0)
    few, many = (_made(attention, *rng.standard_normal((3, length, 2))) for length in lengths)
    return many > few * (lengths[1] / lengths[0]) ** power


def _holds(attention, queries=128, keys=512):
    """Whether a call holds, at any time, more than half of the score matrix."""
    rng = np.random.default_rng(0)
    given = rng.standard_normal((queries, 2)), rng.standard_normal((keys, 2)), rng.standard_normal((keys, 2))
    with _traced():
        before, _ = tracemalloc.get_traced_memory()
        attention(*given)
        return tracemalloc.get_traced_memory()[1] - before > queries * keys * 8 / 2


def _made(function, *args):
    """The bytes that one call makes, what it throws away at once included: line by line, and summed up.

    NumPy's own lines count as part of the line that calls it.
    """
    made, held = 0, 0

    def step(frame, event, arg):
        nonlocal made, held
        now, peak = tracemalloc.get_traced_memory()
        made, held = made + peak - held, now
        tracemalloc.reset_peak()
        return step

    def enter(frame, event, arg):
        return None if frame.f_code.co_filename.startswith(NUMPY) else step

    before = sys.gettrace()
    with _traced():
        held = tracemalloc.get_traced_memory()[0]
        sys.settrace(enter)
        try:
            function(*args)
        finally:
            sys.settrace(before)
        step(None, "", None)
    return made


@contextmanager
def _traced():
    """While active, Python notes what memory is asked for; whoever had it noted before goes on."""
    fresh = not tracemalloc.is_tracing()
    if fresh:
        tracemalloc.start()
    tracemalloc.reset_peak()
    try:
        yield
    finally:
        if fresh:
            tracemalloc.stop()


# --- In PyTorch ------------------------------------------------------------------------------------------------------


def grouped(
    GroupedQueryAttention, state, x: "n t m", cuts, seed, embed_dim, num_heads, num_kv_heads
) -> "y: n t m, keys: ..., values: ..., y in pieces: n t m, dx: n t m, dparameters: ...":
    """All of x at once, then in pieces that end at `cuts`, each with the cache of those before it."""
    import torch

    model = GroupedQueryAttention(embed_dim, num_heads, num_kv_heads).double()
    _same_names({name: tuple(value.shape) for name, value in model.state_dict().items()}, state)
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
    given = torch.tensor(x, requires_grad=True)
    y, (keys, values) = model(given)
    dy = np.random.default_rng(seed).standard_normal(tuple(y.shape))
    leaves = [given, *(parameter for _, parameter in sorted(model.named_parameters()))]
    found = torch.autograd.grad((y * torch.from_numpy(dy)).sum(), leaves, allow_unused=True)
    dx, *dparameters = (value if value is not None else torch.zeros(1) for value in found)
    pieces, cache = [], None
    with torch.no_grad():
        for piece in torch.tensor_split(torch.tensor(x), list(cuts), dim=1):
            part, cache = model(piece, cache)
            pieces.append(part)
    return y, keys, values, torch.cat(pieces, dim=1), dx, torch.cat([value.flatten() for value in dparameters])


def _same_names(own, state):
    """Says which parameters do not fit, where load_state_dict would say it of `state`."""
    wanted = {name: value.shape for name, value in state.items()}
    if own != wanted:
        told = [", ".join(f"{name} {shape}" for name, shape in sorted(names.items())) for names in (own, wanted)]
        raise RuntimeError(f"its state_dict() has {told[0] or 'nothing'}; it should have {told[1]}")
