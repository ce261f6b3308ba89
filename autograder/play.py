"""Runs the student's function on given inputs and turns whatever it does into plain arrays and plain words.

This is all of the package that stands in the student's process when a submission is graded: it knows no
reference and no points, and takes no decision. A request is
    {"kind", "inputs", "outputs" (how many), "forbids", "withheld"},
    for a script also {"script", "torch" (whether it is about it)}
and the reply is either {"values": [{"array": …} or {"refused": code, …}, …], "modified": […], "warnings": […]}
or {"failure": code, …}. The codes are put into words in report.py.
"""

import contextlib
import importlib
import inspect
import io
import linecache
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from autograder.builders import Build

MAX_BYTES = 64 * 2**20  # of one output
SCRIPTS = Path(__file__).with_name("scripts")
# Files of frames that are not the student's: Python's, its packages', ours (where it is disguised, <kernel>).
_NOT_THEIRS = re.compile(rf"site-packages|/lib/python|^<kernel>$|^{re.escape(str(Path(__file__).parent))}/")


class Failure(Exception):
    """Ends the performance of a request with a code and its details."""

    def __init__(self, code: str, **details):
        super().__init__(code)
        self.reply = {"failure": code, **details}


def perform(target, request: dict) -> dict:
    """One request on the student's function or class -> a reply. Raises only what a time limit raises."""
    player = {
        "function": _play_function, "script": _play_script, "module": _play_module, "autograd": _play_autograd,
    }[request["kind"]]  # fmt: skip
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("always")
        try:
            with np.errstate(over="warn", invalid="warn", divide="warn", under="ignore"), _withholding(request):
                reply = player(target, request)
        except Failure as failure:
            return failure.reply
        except MemoryError:
            return {"failure": "memory"}
        except (Exception, SystemExit) as error:
            return _raised(error)
    reply["warnings"] = list(dict.fromkeys(f"{w.category.__name__}: {w.message}" for w in caught))[:3]
    return reply


def _raised(error: BaseException) -> dict:
    """Type, message and the student's own line, of an exception out of the student's code."""
    if isinstance(error, NotImplementedError):
        lacking = re.search(r"\b(forward|backward)\b", str(error))  # torch's words for a method that is not there
        return {"failure": "method", "method": lacking[0]} if lacking else {"failure": "unwritten"}
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if not _NOT_THEIRS.search(frame.filename)), None)
    line = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip() if frame else ""
    return {"failure": "raised", "type": type(error).__name__, "message": str(error)[:500], "line": line[:200]}


# --- functions -------------------------------------------------------------------------------------------------


def _play_function(target, request: dict) -> dict:
    if not callable(target) or isinstance(target, type):
        raise Failure("not_callable", type=type(target).__name__)
    given = {name: as_given(value) for name, value in request["inputs"].items()}
    before = _copied(given)
    from_torch = any(type(value).__module__.startswith("torch") for value in given.values())
    with _no_torch(active=not from_torch):
        result = target(*given.values())
    return _reply(result, request, from_torch, _changed(before, given))


def _reply(result, request: dict, torch_allowed: bool, modified: list[str]) -> dict:
    values = [_plain(value, torch_allowed) for value in _split(result, request["outputs"])]
    return {"values": values, "modified": modified}


def as_given(value):
    """A value as the student's function gets it: a copy of an array, a float for a 0-d one, an object of ours."""
    if isinstance(value, Build):
        return value.make()
    if isinstance(value, np.ndarray):
        return value.copy() if value.ndim else value.item()
    return value


def _changed(before: dict, after: dict) -> list[str]:
    """The names of the arguments that are not as they were."""
    return [name for name, then in before.items() if not _unchanged(then, after[name])]


def _same(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether an argument is as it was; the trace that rounding leaves of += h, -= h is no change."""
    if before.shape != after.shape or before.dtype != after.dtype:
        return False
    return np.array_equal(before, after) or np.allclose(before, after, rtol=1e-12, atol=1e-12, equal_nan=True)


def _split(result, count: int) -> list:
    """The student's return value as `count` outputs."""
    if count == 1:
        if isinstance(result, tuple):
            raise Failure("arity", got=f"a tuple of {len(result)}", want=1)
        return [result]
    if isinstance(result, (tuple, list)):
        if len(result) != count:
            raise Failure("arity", got=f"{len(result)} values", want=count)
        return list(result)
    raise Failure("arity", got="nothing (None)" if result is None else f"one {type(result).__name__}", want=count)


def _plain(value, torch_allowed: bool = False) -> dict:
    """An output as a plain array, or the code of what it is instead."""
    if value is None:
        return {"refused": "no_gradient" if torch_allowed else "none"}
    if _is_tensor(value):
        if not torch_allowed:
            return {"refused": "tensor"}
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ma.MaskedArray):
        return {"refused": "masked"}
    if isinstance(value, np.ndarray) and type(value) is not np.ndarray:
        return {"refused": "subclass", "type": type(value).__name__}
    if not isinstance(value, (np.ndarray, np.generic, bool, int, float, complex, list, tuple)):
        return {"refused": "type", "type": type(value).__name__}
    if isinstance(value, (list, tuple)) and any(_is_tensor(item) for item in value):
        return {"refused": "tensors" if torch_allowed else "tensor"}
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return {"refused": "ragged"}
    return _portable(array)


def _portable(array: np.ndarray) -> dict:
    if array.dtype.kind == "c":
        return {"refused": "complex"}
    if array.dtype.kind not in "biuf":
        return {"refused": "dtype", "dtype": str(array.dtype)}
    if array.nbytes > MAX_BYTES:
        return {"refused": "size", "shape": list(array.shape)}
    if array.dtype.itemsize > 8 or not array.dtype.isnative:
        array = array.astype(array.dtype.kind + "8")
    return {"array": np.array(array, order="C", copy=True)}


# --- scripts -----------------------------------------------------------------------------------------------------


@cache
def script_of(name: str) -> Callable:
    """The script "lesson.function"."""
    lesson, _, function = name.partition(".")
    return getattr(importlib.import_module(f"autograder.scripts.{lesson}"), function)


def _play_script(target, request: dict) -> dict:
    if not callable(target):
        raise Failure("not_callable", type=type(target).__name__)
    given = {name: as_given(value) for name, value in request["inputs"].items()}
    before = _copied(given)
    modified: list[str] = []
    player = target if isinstance(target, type) else _watched(target, modified)
    forbids = [_resolve(name) for name in request["forbids"]]
    if isinstance(target, type):
        _refuse_classes([target], forbids, request["forbids"])
    with _forbidding(request["forbids"], forbids) if forbids else _no_torch(active=not request["torch"]):
        try:
            result = script_of(request["script"])(player, **given)
        except (AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
            raise _misfit(error, target) or error from None
    return _reply(result, request, request["torch"], list(dict.fromkeys(modified + _changed(before, given))))


def _watched(function: Callable, modified: list[str]) -> Callable:
    """The function, on copies of the arrays it is called with; the names of those that it changes are added."""

    def watched(*args, **kwargs):
        args, kwargs = _copied(args), _copied(kwargs)
        given = dict(zip(inspect.signature(function).parameters, args, strict=False)) | kwargs
        before = _copied(given)
        result = function(*args, **kwargs)
        modified.extend(_changed(before, given))
        return result

    return watched


def _copied(value):
    """The same with every array in it copied."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_copied, value))
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return value.copy() if isinstance(value, np.ndarray) else value


def _unchanged(before, after) -> bool:
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(map(_unchanged, before, after))
    return not isinstance(before, np.ndarray) or (isinstance(after, np.ndarray) and _same(before, after))


def _misfit(error: Exception, target) -> Failure | None:
    """What an exception says of the fit between the script and the answer, if it was raised between the two."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if Path(frame.filename).parent != SCRIPTS:
        return None
    if isinstance(error, AttributeError) and isinstance(target, type) and isinstance(error.obj, target):
        return Failure("method", method=error.name)
    return Failure("misfit", line=frame.line or "", type=type(error).__name__, message=str(error)[:500])


# --- torch classes ---------------------------------------------------------------------------------------------


def _play_module(target, request: dict) -> dict:
    """Construct, load the given parameters by name, run forward and backward; y, gradients, buffers come back."""
    import torch

    base = torch.nn.Module
    if not (isinstance(target, type) and issubclass(target, base)):
        raise Failure("not_a_class", want="nn.Module", type=_kind_of(target))
    forbids = [_resolve(name) for name in request["forbids"]]
    with _forbidding(request["forbids"], forbids):
        model = target(**request["inputs"]["init"]).double()
        held = [*model.named_parameters(), *model.named_buffers()]
        start = {name: value.detach().clone() for name, value in held}
        _refuse_classes([type(part) for part in model.modules()], forbids, request["forbids"])
        _load(model, request["inputs"]["state"], request["inputs"]["parameters"])
        model.train(request["inputs"]["train"])
        inputs = _tensors(request["inputs"]["inputs"], request["inputs"]["wrt"])
        outputs = _outputs_of(model(*inputs.values()))
        parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
        wanted = [inputs[name] for name in request["inputs"]["wrt"]]
        wanted += [parameters[name] for name in request["inputs"]["parameters"]]
        found = _backward(outputs, request["inputs"]["upstream"], wanted)
    values = [_plain(value, torch_allowed=True) for value in (*outputs, *found)]
    for name in request["inputs"]["buffers"]:
        values.append({"refused": "graph"} if buffers[name].requires_grad else _plain(buffers[name], True))
    values += [_plain(start[name], True) for name in request["inputs"]["start"]]
    return {"values": values, "modified": []}


def _load(model, state: dict, parameters: list) -> None:
    """The reference's values into the student's module, by name; refused unless names, shapes and kinds agree."""
    import torch

    own = {name: list(value.shape) for name, value in model.state_dict().items()}
    want = {name: list(value.shape) for name, value in state.items()}
    if own != want:
        raise Failure("state", got=own, want=want)
    learnable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if sorted(learnable) != sorted(parameters):
        raise Failure("parameters", got=learnable, want=parameters)
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})


def _play_autograd(target, request: dict) -> dict:
    """`.apply`, then a backward pass through the student's own backward; outputs and gradients come back."""
    import torch

    if not (isinstance(target, type) and issubclass(target, torch.autograd.Function)):
        raise Failure("not_a_class", want="torch.autograd.Function", type=_kind_of(target))
    wrt = request["inputs"]["wrt"]
    with _forbidding(request["forbids"], [_resolve(name) for name in request["forbids"]]):
        inputs = _tensors(request["inputs"]["inputs"], wrt)
        outputs = _outputs_of(target.apply(*inputs.values()))  # type: ignore[attr-defined]
        found = _backward(outputs, request["inputs"]["upstream"], [inputs[name] for name in wrt])
    return {"values": [_plain(value, torch_allowed=True) for value in (*outputs, *found)], "modified": []}


def _tensors(inputs: dict, wrt: list) -> dict:
    import torch

    tensors = {name: torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value
               for name, value in inputs.items()}  # fmt: skip
    return {name: value.requires_grad_() if name in wrt else value for name, value in tensors.items()}


def _outputs_of(result) -> tuple:
    outputs = result if isinstance(result, tuple) else (result,)
    for value in outputs:
        if not _is_tensor(value):
            raise Failure("not_a_tensor", type=type(value).__name__)
    return outputs


def _backward(outputs: tuple, upstream: list, wanted: list) -> list:
    import torch

    if len(outputs) != len(upstream):
        raise Failure("arity", got=f"{len(outputs)} values", want=len(upstream))
    pairs = [(y, torch.from_numpy(np.array(dy))) for y, dy in zip(outputs, upstream, strict=True)]
    if any(y.shape != dy.shape for y, dy in pairs):  # the outputs are wrong already: they get the verdict
        return [None] * len(wanted)
    if not any(y.requires_grad for y, _ in pairs):
        raise Failure("detached")
    loss = sum((y * dy).sum() for y, dy in pairs)  # grad_outputs= would make torch import sympy, a third of a second
    return list(torch.autograd.grad(loss, wanted, allow_unused=True))


def _is_tensor(value) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _kind_of(target) -> str:
    return f"the class {target.__name__}" if isinstance(target, type) else f"a {type(target).__name__}"


# --- what an answer may not call -------------------------------------------------------------------------------


def _resolve(name: str):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def _refuse_classes(classes, forbids: list, names: list) -> None:
    for forbidden, name in zip(forbids, names, strict=True):
        if isinstance(forbidden, type) and any(forbidden in cls.__mro__ for cls in classes):
            raise Failure("forbidden", name=name)


def _forbidding(names: list, functions: list):
    """While active, calling one of these torch functions is a Failure that names it."""
    by_id = {id(function): name for function, name in zip(functions, names, strict=True)}

    def look(function):
        if id(function) in by_id:
            raise Failure("forbidden", name=by_id[id(function)])

    return _watching_torch(look)


def _no_torch(active: bool):
    """While active, any call of torch is a Failure: "from scratch" means NumPy."""
    if not active or not hasattr(sys.modules.get("torch"), "__version__"):  # not here, or a stand-in
        return contextlib.nullcontext()

    def look(function):
        raise Failure("uses_torch", name=getattr(function, "__name__", str(function)))

    return _watching_torch(look)


_lent = False  # whether what runs is an answer that the course has lent
_withheld: frozenset[str] = frozenset()  # the exercises whose answers would be the one that is sought


@contextlib.contextmanager
def _withholding(request: dict):
    global _withheld
    before, _withheld = _withheld, frozenset(request.get("withheld", ()))
    try:
        yield
    finally:
        _withheld = before


def refuse_withheld(name: str) -> None:
    """A Failure where an answer asks for one of these."""
    if name in _withheld:
        raise Failure("forbidden", name=f"mine({name!r})")


@contextlib.contextmanager
def lent(name: str):
    """While active, nobody minds calls of torch: an earlier lesson's reference runs inside an answer."""
    refuse_withheld(name)
    global _lent
    before, _lent = _lent, True
    try:
        yield
    finally:
        _lent = before


def _watching_torch(look):
    from torch.overrides import TorchFunctionMode

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if not _lent:
                look(function)
            return function(*args, **(kwargs or {}))

    return Watch()
