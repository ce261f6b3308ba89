"""Lesson 06: many steps of an optimiser, each from the state that the one before it returned."""


def sgd(sgd_step, param: "...", grads: "...", lr) -> "param: ...":
    for grad in grads:
        param = sgd_step(param, grad, lr)
        if param is None:  # a forgotten return is told as one, not as the next step's exception
            break
    return param


def momentum(momentum_step, param: "...", grads: "...", velocity: "...", lr, **settings) -> "param: ..., velocity: ...":
    for grad in grads:
        param, velocity = momentum_step(param, grad, velocity, lr, **settings)
    return param, velocity


def rmsprop(rmsprop_step, param: "...", grads: "...", sq: "...", lr, **settings) -> "param: ..., sq: ...":
    for grad in grads:
        param, sq = rmsprop_step(param, grad, sq, lr, **settings)
    return param, sq


def adam(adam_step, param: "...", grads: "...", m: "...", v: "...", t, lr, **settings) -> "param: ..., m: ..., v: ...":
    for t_now, grad in enumerate(grads, t):
        param, m, v = adam_step(param, grad, m, v, t_now, lr, **settings)
    return param, m, v


def rates(layer_groups, model, lr, factor) -> "rates: ...":
    """The learning rate of every parameter of the model, in its own order; 0 where no group holds it."""
    held = {id(p): group["lr"] for group in layer_groups(model, lr, factor) for p in group["params"]}
    return [held.get(id(p), 0.0) for p in model.parameters()]


def optimiser(
    AdamW, w: "n i", b: "n", dws: "s n i", dbs: "s n", first, second, late=0, halved=-1, resumed=-1, **settings
) -> "w: n i, b: n":
    """Two groups; b may get its first gradient late, learning rates may be halved, a run may be resumed."""
    import torch

    params = [torch.nn.Parameter(torch.tensor(value)) for value in (w, b)]

    def construct():
        groups = zip(params, (first, second), strict=True)
        return AdamW([{"params": [p], **group} for p, group in groups], **settings)

    optimiser = construct()
    for k, grads in enumerate(zip(dws, dbs, strict=True)):
        if k == resumed:
            saved, optimiser = optimiser.state_dict(), construct()
            optimiser.load_state_dict(saved)
        for group in optimiser.param_groups if k == halved else ():
            group["lr"] /= 2
        for p, grad in zip(params, grads, strict=True):
            p.grad = torch.tensor(grad)
        if k < late:
            params[1].grad = None
        optimiser.step()
    return tuple(p.detach().numpy() for p in params)
