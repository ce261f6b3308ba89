"""Interactive figures, one module per lesson: `widgets.linear`, `widgets.activations`, ...

A lesson's module is imported when its name is first used.
"""

from importlib import import_module
from pkgutil import iter_modules


def __getattr__(name):
    if name in __dir__():
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"course.widgets has no module {name!r}; there are: {', '.join(__dir__())}")


def __dir__():
    return sorted(module.name for module in iter_modules(__path__))
