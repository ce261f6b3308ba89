"""Builders of what a case cannot spell as an array: functions and models that an exercise takes as an argument.

A case names one: `Build("sequential", layers=[["Linear", 4, 3], ["ReLU"]])`. The arguments are plain data.
Nothing here knows an answer.
"""

from torch import nn


def cubic():
    """A smooth scalar function of a NumPy array or a tensor, whose entries act on each other."""
    return lambda x: (x**3).sum() + x.sum() ** 2


def bump():
    """A scalar function with a single peak at zero."""
    return lambda x: 1 / (1 + (x**2).sum())


def sequential(layers):
    """An nn.Sequential from nested lists: ["Linear", 4, 3, {"bias": False}] is a layer, a list of lists a Sequential."""
    return nn.Sequential(*map(_layer, layers))


def _layer(spec):
    if not isinstance(spec[0], str):
        return sequential(spec)
    name, *arguments = spec
    keywords = arguments.pop() if arguments and isinstance(arguments[-1], dict) else {}
    return getattr(nn, name)(*arguments, **keywords)
