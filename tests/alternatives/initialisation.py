"""Other right ways to solve the exercises of lesson 05."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# --- Counting connections --------------------------------------------------------------------------------------------


def fans_by_prod(shape):
    out, into, *kernel = shape
    area = np.prod(kernel) if kernel else 1
    return into * area, out * area


def fans_by_division(shape):
    numbers = math.prod(shape)
    return numbers // shape[0], numbers // shape[1]


def fans_of_an_array(shape):
    w = np.empty(shape)
    return [w[0].size, w[:, 0].size]


# --- Drawing weights -------------------------------------------------------------------------------------------------


def xavier_scaled(shape, rng):
    a = (6 / sum(fans_by_prod(shape))) ** 0.5
    return a * (2 * rng.random(shape) - 1)


def xavier_one_by_one(shape, rng):
    w, a = np.empty(shape), np.sqrt(3) * np.sqrt(2 / sum(fans_by_division(shape)))
    for index in np.ndindex(*shape):
        w[index] = rng.uniform(-a, a)
    return w


def he_scaled(shape, rng):
    return rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))


def he_flat(shape, rng):
    fan_in, _ = fans_by_prod(shape)
    return rng.normal(scale=(fan_in / 2) ** -0.5, size=math.prod(shape)).reshape(shape)


# --- Clipping --------------------------------------------------------------------------------------------------------


def clip_flat(grads, max_norm):
    norm = np.linalg.norm(np.concatenate([grad.ravel() for grad in grads]))
    return [grad * np.clip(max_norm / (norm + 1e-6), None, 1) for grad in grads], norm


def clip_norm_of_norms(grads, max_norm):
    norm = math.hypot(*(np.linalg.norm(grad) for grad in grads))
    if norm + 1e-6 > max_norm:
        return tuple(grad / (norm + 1e-6) * max_norm for grad in grads), norm
    return tuple(grads), norm


def clip_copies(grads, max_norm):
    grads = [grad.copy() for grad in grads]
    norm = sum(np.vdot(grad, grad) for grad in grads) ** 0.5
    for grad in grads:
        grad *= min(max_norm / (norm + 1e-6), 1)
    return grads, float(norm)


# --- In PyTorch ------------------------------------------------------------------------------------------------------


def norms_by_backward(model, x, y):
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    return np.array([p.grad.norm().item() for p in model.parameters()])


def norms_by_setting_none(model, x, y):
    for _, p in model.named_parameters():
        p.grad = None
    (-F.log_softmax(model(x), 1)[torch.arange(len(y)), y].mean()).backward()
    return [float(p.grad.square().sum().sqrt()) for _, p in model.named_parameters()]


def norms_by_autograd(model, x, y):
    gradients = torch.autograd.grad(nn.CrossEntropyLoss()(model(x), y), list(model.parameters()))
    return torch.stack([torch.linalg.norm(g.ravel()) for g in gradients])


@torch.no_grad()
def initialise_by_name(model, generator):
    for part in model.modules():
        if type(part).__name__ == "Linear":
            part.weight.copy_(torch.randn(part.weight.shape, dtype=torch.float64, generator=generator))
            part.weight *= (2 / part.in_features) ** 0.5
            for bias in [part.bias] if part.bias is not None else []:
                bias.fill_(0)


def initialise_recursively(model, generator):
    if isinstance(model, nn.Linear):
        nn.init.normal_(model.weight, std=math.sqrt(2 / model.weight.shape[1]), generator=generator)
        if model.bias is not None:
            nn.init.constant_(model.bias, 0)
    for child in model.children():
        initialise_recursively(child, generator)


def initialise_data(model, generator):
    def fill(part):
        if isinstance(part, nn.Linear):
            part.weight.data.normal_(0, np.sqrt(2 / part.in_features), generator=generator)
            if part.bias is not None:
                part.bias.data.zero_()

    for part in model.modules():
        fill(part)


# --- Predict ---------------------------------------------------------------------------------------------------------


def decades_layer_by_layer(depth, width, weight_std, activation):
    total = 0.0
    for _ in range(depth):
        total += np.log10(width) + 2 * np.log10(weight_std) - (np.log10(2) if activation == "relu" else 0)
    return total


def decades_of_a_root(depth, width, weight_std, activation):
    kept = {"relu": 1 / 2, "linear": 1}[activation]
    return 2 * depth * math.log10(math.sqrt(width * kept) * weight_std)


def layers_by_counting(width, weight_std):
    size, layers = 1.0, 0
    while size >= 2.0**-149:
        size *= math.sqrt(width / 2) * weight_std
        layers += 1
    return layers


def layers_in_bits(width, weight_std):
    return np.floor(149 / -np.log2(np.sqrt(width * weight_std**2 / 2))) + 1


ALTERNATIVES = {
    "fan_in_fan_out": [fans_by_prod, fans_by_division, fans_of_an_array],
    "xavier_uniform": [xavier_scaled, xavier_one_by_one],
    "he_normal": [he_scaled, he_flat],
    "clip_grad_norm": [clip_flat, clip_norm_of_norms, clip_copies],
    "gradient_norms": [norms_by_backward, norms_by_setting_none, norms_by_autograd],
    "initialise": [initialise_by_name, initialise_recursively, initialise_data],
    "repair_xavier_uniform": [xavier_scaled, xavier_one_by_one],
    "repair_he_normal": [he_scaled, he_flat],
    "predict_decades": [decades_layer_by_layer, decades_of_a_root],
    "layers_until_zero": [layers_by_counting, layers_in_bits],
}
