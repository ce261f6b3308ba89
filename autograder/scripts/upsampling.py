"""Lesson 14: plays U-Nets. Their many parameters and buffers come back as two long vectors, in the order of names."""

import numpy as np


def unet(
    UNet, in_channels, out_channels, width, depth, names: "...", x: "...", train
) -> "y: ..., dx: ..., gradients: ..., (running statistics): ...":
    """`names` are the bytes of the lines that the state_dict must have, in their order.

    A parameter gets numbers that depend on its name and on the case, so that the order of the attributes is free.
    """
    import torch

    model = UNet(in_channels, out_channels, width, depth).double().train(train)
    own = sorted(f"{name} {tuple(value.shape)}" for name, value in model.state_dict().items())
    wanted = bytes(names).decode().splitlines()
    if own != wanted:
        lacks, has = (
            ", ".join(list(dict.fromkeys(k for k in a if k not in b))[:4]) for a, b in ((wanted, own), (own, wanted))
        )
        raise RuntimeError(
            f"the state_dict lacks {lacks or 'nothing'}, and has {has or 'nothing'} that it should not have"
        )
    parameters = dict(sorted(model.named_parameters()))
    with torch.no_grad():
        for name, value in parameters.items():
            rng = np.random.default_rng([*name.encode(), *np.abs(x.ravel()[:1] * 1e6).astype(int)])
            value.copy_(torch.from_numpy(rng.standard_normal(tuple(value.shape))))
    given = torch.from_numpy(x).requires_grad_()
    y = model(given)
    dy = torch.from_numpy(np.random.default_rng(len(names)).standard_normal(tuple(y.shape)))
    found = torch.autograd.grad(
        (y * dy).sum(), [given, *parameters.values()], allow_unused=True, materialize_grads=True
    )
    dx, *gradients = (value.numpy() for value in found)
    buffers = [value.numpy().ravel() for _, value in sorted(model.named_buffers())]
    return y.detach().numpy(), dx, np.concatenate([g.ravel() for g in gradients]), np.concatenate(buffers)
