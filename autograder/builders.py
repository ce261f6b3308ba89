"""Objects that an exercise hands to the student's code: models to inspect, functions to differentiate.

A declaration names one with `Build("cubic", …)`; the process that owns the student's code builds it from that
name and plain values, so that nothing but plain data ever travels between the two. No answer stands here.
"""

import sys
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Build:
    """An object to be made by the builder `name` of this module from plain `arguments`."""

    name: str
    arguments: dict = field(default_factory=dict)

    def __init__(self, name: str, **arguments):
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "arguments", arguments)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in self.arguments.items())})"

    def make(self):
        """The object itself; a KeyError where no builder has that name."""
        builder = getattr(sys.modules[__name__], self.name, None)
        if builder is None or self.name.startswith("_"):
            raise KeyError(f"autograder/builders.py has no builder {self.name!r}")
        return builder(**self.arguments)


def cubic():
    """A smooth scalar function of a NumPy array or a tensor, whose entries act on each other."""
    return lambda x: (x**3).sum() + x.sum() ** 2


def bump():
    """A scalar function with a single peak, at zero."""
    return lambda x: 1 / (1 + (x**2).sum())


def generator(seed):
    """A generator of random numbers in the state that the seed gives."""
    return np.random.default_rng(seed)


def sequential(layers):
    """An nn.Sequential from lists: ["Linear", 4, 3, {"bias": False}] is a layer, a list of such lists a Sequential."""
    from torch import nn

    def build(spec):
        if not isinstance(spec[0], str):
            return sequential(spec)
        name, *arguments = spec
        keywords = arguments.pop() if isinstance(spec[-1], dict) else {}
        return getattr(nn, name)(*arguments, **keywords)

    return nn.Sequential(*map(build, layers))


def mlp(widths, seed, activation="ReLU"):
    """An nn.Sequential of linear layers, this activation between them; float64, its numbers drawn by NumPy."""
    import torch
    from torch import nn

    rng, layers = np.random.default_rng(seed), []
    for i, o in pairwise(widths):
        layers += [nn.Linear(i, o, dtype=torch.float64), getattr(nn, activation)()]
    model = nn.Sequential(*layers[:-1])
    for parameter in model.parameters():
        parameter.data = torch.from_numpy(rng.standard_normal(tuple(parameter.shape)))
    return model


def named_layers(layers, seed):
    """An nn.Sequential of named layers, {"conv1": ["Conv2d", 1, 4, 3], …}; float64, its numbers drawn by NumPy."""
    import torch
    from torch import nn

    rng, built = np.random.default_rng(seed), sequential(list(layers.values()))
    model = nn.Sequential()
    for name, layer in zip(layers, built, strict=True):
        model.add_module(name, layer.double())
    for parameter in model.parameters():
        parameter.data = torch.from_numpy(rng.standard_normal(tuple(parameter.shape)))
    return model
