"""Lesson 05: plays functions that take a list of gradients, or a PyTorch model."""

import numpy as np


def clip(
    clip_grad_norm, dw: "...", db: "...", dv: "...", max_norm
) -> "dw clipped: ..., db clipped: ..., dv clipped: ..., norm:":
    (dw, db, dv), norm = clip_grad_norm([dw, db, dv], max_norm)
    return dw, db, dv, norm


def norms(gradient_norms, model, x: "n i", y: "n") -> "norms: k, norms over stale gradients: k, (parameters): ...":
    """Asks twice; before the second time every .grad is filled, as another backward pass would have left it."""
    import torch

    first = gradient_norms(model, torch.from_numpy(x), torch.from_numpy(y))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    again = gradient_norms(model, torch.from_numpy(x), torch.from_numpy(y))
    return first, again, np.concatenate([parameter.detach().numpy().ravel() for parameter in model.parameters()])


def start(initialise, model, seed) -> "weights: ..., biases: ..., (other parameters): ..., (requires_grad): k":
    """The model's own parameter objects, all of them filled with 0.5 before."""
    import torch
    from torch import nn

    model = model.double()
    linear = {
        id(p): name for part in model.modules() if isinstance(part, nn.Linear) for name, p in part._parameters.items()
    }
    held = list(model.parameters())
    with torch.no_grad():
        for parameter in held:
            parameter.fill_(0.5)
    initialise(model, torch.Generator().manual_seed(seed))

    def values(kind):
        found = [p.detach().numpy().ravel() for p in held if linear.get(id(p)) == kind]
        return np.concatenate([*found, np.zeros(0)])

    return values("weight"), values("bias"), values(None), [p.requires_grad for p in model.parameters()]
