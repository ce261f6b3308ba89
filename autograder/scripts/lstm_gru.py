"""Lesson 17: plays modules that return what nn.LSTM and nn.GRU return, from given states and from none."""

import numpy as np

NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
GRADIENTS = ", ".join(f"d{name}: ..." for name in NAMES)


def lstm(
    LSTM, input_size, hidden_size, x: "...", h_0: "...", c_0: "...", seed
) -> f"output: ..., h_n: ..., c_n: ..., output without states: ..., dx: ..., dh_0: ..., dc_0: ..., {GRADIENTS}, start:":
    model = _loaded(LSTM(input_size, hidden_size), 4 * hidden_size, input_size, hidden_size, seed)
    given = _leaves(x, h_0, c_0)
    output, (h_n, c_n) = model(given[0], (given[1], given[2]))
    alone, _ = model(given[0])
    return output, h_n, c_n, alone, *_gradients((output, h_n, c_n, alone), given, model, seed), _start(LSTM)


def gru(
    GRU, input_size, hidden_size, x: "...", h_0: "...", seed
) -> f"output: ..., h_n: ..., output without a state: ..., dx: ..., dh_0: ..., {GRADIENTS}, start:":
    model = _loaded(GRU(input_size, hidden_size), 3 * hidden_size, input_size, hidden_size, seed)
    given = _leaves(x, h_0)
    output, h_n = model(*given)
    alone, _ = model(given[0])
    return output, h_n, alone, *_gradients((output, h_n, alone), given, model, seed), _start(GRU)


def _loaded(model, rows, input_size, hidden_size, seed):
    """The model in float64 with parameters drawn from the seed; a sentence where their names or shapes are others."""
    import torch

    if sorted(name for name, _ in model.named_parameters()) != sorted(NAMES) or len(model.state_dict()) != 4:
        own = ", ".join(model.state_dict()) or "nothing"
        raise RuntimeError(f"its parameters must be {', '.join(NAMES)}; its state_dict() has {own}")
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, shape in zip(NAMES, [(rows, input_size), (rows, hidden_size), (rows,), (rows,)], strict=True):
            value = model.double().get_parameter(name)
            if tuple(value.shape) != shape:
                raise RuntimeError(f"{name} has the shape {tuple(value.shape)}, expected {shape}")
            value.copy_(torch.from_numpy(rng.standard_normal(shape) / (1 + 0.2 * hidden_size)))
    return model


def _leaves(*arrays):
    import torch

    return [torch.tensor(array, requires_grad=True) for array in arrays]


def _gradients(outputs, given, model, seed):
    """Of the inputs and the parameters, for upstream gradients drawn from the seed."""
    import torch

    rng = np.random.default_rng([seed, 1])
    loss = sum((y * torch.from_numpy(rng.standard_normal(tuple(y.shape)))).sum() for y in outputs)
    leaves = [*given, *(model.get_parameter(name) for name in NAMES)]
    return torch.autograd.grad(loss, leaves, allow_unused=True)


def _start(Model):
    """Whether every parameter of a fresh model lies within ± 1/√H and fills more than half of that."""
    sizes = [parameter.detach().abs().max().item() for parameter in Model(3, 16).parameters()]
    return float(all(0.125 < size <= 0.25 for size in sizes))
