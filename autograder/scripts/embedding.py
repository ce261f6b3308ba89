"""Lesson 15: plays an embedding module: how it starts, what it looks up, what comes back to its weights."""

import numpy as np


def module(Embedding, v, d, ids: "...", seed, **settings) -> "y: ..., dweight: v d, start: ...":
    """The weights are drawn anew, the padding's row included; so is the upstream gradient.

    start  mean and standard deviation of a large table, to one decimal; then this one's row of the padding, if any
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        large = Embedding(400, 25).weight.detach().numpy()
        model = Embedding(v, d, **settings)
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if own != {"weight": (v, d)}:
        raise RuntimeError(f"its state_dict() has {own}, and should have {dict(weight=(v, d))}")
    padding = settings.get("padding_idx")
    first = np.zeros(0) if padding is None else model.weight.detach().numpy()[padding].copy()
    drawn = np.abs(np.round([large.mean(), large.std()], 1))

    rng, model = np.random.default_rng(seed), model.double()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(rng.standard_normal((v, d))))
    y = model(torch.from_numpy(ids))
    dy = rng.standard_normal(tuple(y.shape))
    (dweight,) = torch.autograd.grad((y * torch.from_numpy(dy)).sum(), [model.weight])
    return y, dweight, np.concatenate([drawn, first])
