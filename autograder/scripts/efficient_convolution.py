"""Lesson 13: plays a block with batch norms: a training step, then a look in evaluation."""

import numpy as np


def block(
    InvertedResidual, state, x: "...", seed, in_channels, out_channels, stride, expand_ratio
) -> "y: ..., dx: ..., dparameters: ..., y in evaluation: ...":
    """`state` names every parameter and buffer; the upstream gradient is drawn from the seed."""
    import torch

    model = InvertedResidual(in_channels, out_channels, stride, expand_ratio).double()
    _same_names({name: tuple(value.shape) for name, value in model.state_dict().items()}, state)
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
    given = torch.tensor(x, requires_grad=True)
    y = model.train()(given)
    dy = np.random.default_rng(seed).standard_normal(tuple(y.shape))
    parameters = [parameter for _, parameter in sorted(model.named_parameters())]
    found = torch.autograd.grad((y * torch.from_numpy(dy)).sum(), [given, *parameters], allow_unused=True)
    dx, *dparameters = (value if value is not None else torch.zeros(1) for value in found)
    return y, dx, torch.cat([value.flatten() for value in dparameters]), model.eval()(given)


def _same_names(own, state):
    """Says which parameters and buffers are too many or are lacking, where load_state_dict would say it of `state`."""
    wanted = {name: value.shape for name, value in state.items()}
    many, few = (
        [f"{name} {shape}" for name, shape in these.items() if others.get(name) != shape]
        for these, others in ((own, wanted), (wanted, own))
    )
    told = [f"lacks {_some(few)}"] * bool(few) + [f"has what does not belong there: {_some(many)}"] * bool(many)
    if told:
        raise RuntimeError(f"its state_dict() {' and '.join(told)}")


def _some(names):
    """The first few, and how many more there are: a message has little room."""
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")
