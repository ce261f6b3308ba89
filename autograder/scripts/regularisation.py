"""Lesson 07: a penalty on a list of arrays, a run that stops early, dropout as a layer and as a module."""

import numpy as np


def penalty(l2_penalty_forward, w: "...", v: "...", weight_decay) -> "penalty:":
    return l2_penalty_forward([w, v], weight_decay)


def penalty_gradient(l2_penalty_backward, dloss: "", w: "...", v: "...", weight_decay) -> "dw: ..., dv: ...":
    dw, dv = l2_penalty_backward(dloss, [w, v], weight_decay)
    return dw, dv


def early_stopping(
    EarlyStopping, losses: "t", w: "o i", b: "o", patience, **settings
) -> "steps:, best_loss:, w: o i, b: o":
    """A run whose weights change in place at every step; afterwards the best ones are written into fresh arrays."""
    stopper = EarlyStopping(patience, **settings)
    steps, w, b = 0, w.copy(), b.copy()
    for loss in losses.tolist():
        w += 1
        b *= 1.5
        steps += 1
        if stopper.step(loss, [w, b]):
            break
    best_w, best_b = np.zeros_like(w), np.zeros_like(b)
    stopper.restore([best_w, best_b])
    return steps, stopper.best_loss, best_w, best_b


def dropout_layer(
    RepairDropoutLayer, x: "n d", dy: "n d", p, rng
) -> "y: n d, dx: n d, y_inference: n d, dx_inference: n d, y_again: n d, dx_again: n d":
    """A batch in training, one at inference, one in training again."""
    layer, found = RepairDropoutLayer(p, rng), []
    for training in (True, False, True):
        layer.training = training
        found += [layer.forward(x), layer.backward(dy)]
    return tuple(found)


def dropout_module(Dropout, x: "n d", dy: "n d", seed, **settings) -> "factors: ..., slopes: ..., mask: ...":
    """What all right masks have in common, whichever numbers they were drawn from.

    factors  the values that y / x takes, first in training, then in evaluation
    slopes   the values that dx / dy takes, likewise
    mask     whether a share of 1 - p is kept, the rows differ, the columns differ, two calls differ, dx follows y
    """
    import torch

    layer, p = Dropout(**settings), settings.get("p", 0.5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        (first, back), (second, _), (resting, back_resting) = (_there_and_back(layer, x, dy, k < 2) for k in range(3))
        more = [_there_and_back(layer, x, dy, True)[0] for _ in range(20)]  # a mask for whole rows draws few numbers
    kept = first != 0
    mask = (
        abs(np.mean([y != 0 for y in more]) - (1 - p)) < 0.08,
        (kept != kept[:1]).any(),
        (kept != kept[:, :1]).any(),
        (first != second).any(),
        np.allclose(first, back),
    )
    return _values(first, resting), _values(back, back_resting), np.array(mask, float)


def _there_and_back(layer, x, dy, training):
    """y / x and dx / dy."""
    import torch

    given = torch.tensor(x, requires_grad=True)
    y = layer.train(training)(given)
    (y * torch.tensor(dy)).sum().backward()
    return y.detach().numpy() / x, given.grad.numpy() / dy


def _values(*arrays):
    """The distinct values of each array, in order."""
    return np.concatenate([np.unique(array.round(6)) for array in arrays])
