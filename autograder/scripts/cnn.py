"""Lesson 11: plays layers of NumPy, and functions that look into a PyTorch model and must leave it as it was."""

import numpy as np

# --- Layers ----------------------------------------------------------------------------------------------------------


def conv_layer(
    ConvLayer, x: "n c h w", w: "o i kh kw", b: "o", dy: "...", **settings
) -> "y: ..., dx: n c h w, dw: o i kh kw, db: o, y after a step: ...":
    layer = ConvLayer(w.copy(), b.copy(), **settings)
    layer.forward(3 * x)
    layer.backward(2 * dy)
    y, dx = layer.forward(x), layer.backward(dy)
    dw, db = (np.array(gradient) for gradient in layer.gradients())
    for parameter in layer.parameters():
        parameter *= 2
    return y, dx, dw, db, layer.forward(x)


def layer_without_parameters(Layer, x: "...", dy: "...", **settings) -> "y: ..., dx: ..., how many parameters:":
    """The layer meets another batch before, and another layer one in between: each keeps its own."""
    layer, another = Layer(**settings), Layer(**settings)
    layer.forward(-x[:1])
    y = layer.forward(x)
    another.forward(-2 * x)
    return y, layer.backward(dy), len(layer.parameters()) + len(layer.gradients())


# --- Looking into a model --------------------------------------------------------------------------------------------

# How the model stands afterwards, and whether the answer drags its graph along.
LEFT = "(hooks left behind):, (training): ..., (parameters and gradients): ..."


def maps(activation_maps, model, x: "...", layer, train=False) -> f"maps: ..., (requires_grad):, {LEFT}":
    """Asked twice: a hook that stayed, or a shared store, shows the second time."""
    _prepare(model, train)
    activation_maps(model, _tensor(x) + 1, layer)
    found = activation_maps(model, _tensor(x), layer)
    return found, getattr(found, "requires_grad", False), *_left(model)


def patches(top_patches, model, images: "...", layer, channel, k) -> f"image: k, row: k, column: k, {LEFT}":
    _prepare(model)
    image, row, column = top_patches(model, _tensor(images), layer, channel, k)
    return image, row, column, *_left(model)


def picture(
    maximise_activation, model, layer, channel, steps, rng, **settings
) -> f"picture: ..., (requires_grad):, {LEFT}":
    _prepare(model)
    found = maximise_activation(model, layer, channel, steps, rng, **settings)
    return found, getattr(found, "requires_grad", False), *_left(model)


def pixels(
    saliency, model, x: "...", target: "n", train=False
) -> f"saliency: ..., saliency asked again: ..., (requires_grad of x):, {LEFT}":
    _prepare(model, train)
    x, target = _tensor(x), _tensor(target)
    first = _array(saliency(model, x, target))
    return first, saliency(model, x, target), x.requires_grad, *_left(model)


def ablated(
    ablate_channel, model, x: "...", layer, channel, train=False
) -> f"answers: ..., (answers of all channels afterwards): ..., (requires_grad):, {LEFT}":
    import torch

    _prepare(model, train)
    found = ablate_channel(model, _tensor(x), layer, channel)
    with torch.no_grad():
        whole = model(_tensor(x))
    return _array(found), whole, getattr(found, "requires_grad", False), *_left(model)


def effects(repair_channel_effects, model, x: "...", target: "n", layer) -> f"effects: ..., (requires_grad):, {LEFT}":
    _prepare(model)
    found = repair_channel_effects(model, _tensor(x), _tensor(target), layer)
    return found, getattr(found, "requires_grad", False), *_left(model)


def _tensor(array):
    import torch

    return torch.from_numpy(array)


def _array(value):
    """A copy of what came, so that nothing that happens later changes it."""
    return value.detach().numpy().copy() if hasattr(value, "detach") else value


def _prepare(model, train=False):
    """Fills every .grad, as a backward pass before would have left it."""
    import torch

    for parameter in model.train(train).parameters():
        parameter.grad = torch.full_like(parameter, 0.5)


def _left(model):
    hooks = sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())
    modes = [part.training for part in model.modules()]
    numbers = [np.zeros(0)]
    for parameter in model.parameters():
        gradient = np.full(parameter.shape, -1.0) if parameter.grad is None else parameter.grad.numpy()
        numbers += [parameter.detach().numpy().ravel(), gradient.ravel(), [parameter.requires_grad]]
    return hooks, modes, np.concatenate(numbers)
