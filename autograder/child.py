"""The process that owns a student's code while it is graded: loads the cells, answers requests, knows no answer.

One warm process imports numpy and torch once and forks a child for every exercise of every submission, so that
a check costs what the student's own code costs. Started by sandbox.py; nothing here decides a point.
"""

import builtins
import contextlib
import importlib
import linecache
import os
import signal
import socket
import struct
import sys
import types

from autograder import play, wire

CELL_SECONDS = 3.0  # for a cell to run while it is loaded
MEMORY = 6 * 2**30  # bytes of address space
FILE_SIZE = 16 * 2**20  # bytes of one file
WARM = (
    "numpy", "scipy.special", "torch", "torch.overrides", "matplotlib.pyplot", "IPython.core.inputtransformer2",
    "course.data", "course.plots", "course.widgets",
)  # fmt: skip


def serve(channel: socket.socket) -> None:
    """The warm process: forks a child for each socket it is sent, kills the children it is told to."""
    for name in WARM:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    _warm_autograd()
    while True:
        command, descriptors, _, _ = socket.recv_fds(channel, 9, 1)
        if len(command) < 9:
            return
        (number,) = struct.unpack("<q", command[1:])
        if command[:1] == b"f":
            _fork(channel, descriptors[0])
        else:
            _end(number)
            channel.sendall(struct.pack("<q", 0))


def _warm_autograd() -> None:
    """Torch imports hundreds of modules at its first backward pass; no answer is computed here."""
    import torch

    torch.set_num_threads(1)
    torch.ones(1, requires_grad=True).sum().backward()


def _fork(channel: socket.socket, descriptor: int) -> None:
    pid = os.fork()
    if pid == 0:
        channel.close()
        try:
            _child(socket.socket(fileno=descriptor))
        finally:
            os._exit(0)
    os.close(descriptor)
    channel.sendall(struct.pack("<q", pid))


def _end(pid: int) -> None:
    """Kills a child and all that it started in its session, and buries it."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


# --- the child ---------------------------------------------------------------------------------------------------


def _child(channel: socket.socket) -> None:
    os.setsid()
    _limit()
    _silence()
    task = wire.receive(channel)
    seconds = min(CELL_SECONDS, task["seconds"])
    namespace, errors = load(task["cells"], seconds)
    name = task["exercise"]
    if name not in namespace:
        error = errors.get(name)
        wire.send(channel, {"failure": "not_loaded", "error": error} if error else {"failure": "missing"})
        return
    wire.send(channel, {"loaded": True})
    while True:
        wire.send(channel, play.perform(namespace[name], wire.receive(channel)))


def _limit() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing on is then an OSError


def _silence() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


class _CellTime(BaseException):
    """A cell ran too long while it was loaded."""


def load(cells: list, seconds: float = CELL_SECONDS) -> tuple[dict, dict]:
    """Runs [exercise or None, source] cells in order in one namespace.

    Returns the namespace and, by exercise, what its cell stopped with. A cell that stops does not keep the later
    ones from running.
    """
    namespace: dict = {"__name__": "__main__", "__builtins__": builtins}
    _stand_ins()
    errors = {}
    for number, (exercise, source) in enumerate(cells):
        error = _run(source, f"<{exercise or f'cell {number + 1}'}>", namespace, seconds)
        if error and exercise:
            errors[exercise] = error
    return namespace, errors


def _run(source: str, filename: str, namespace: dict, seconds: float) -> str | None:
    """Runs one cell; what it stopped with, or None."""
    from IPython.core.inputtransformer2 import TransformerManager

    def time_is_up(number, frame):
        raise _CellTime

    signal.signal(signal.SIGALRM, time_is_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        code = TransformerManager().transform_cell(source)
        linecache.cache[filename] = (len(code), None, code.splitlines(keepends=True), filename)
        exec(compile(code, filename, "exec"), namespace)
    except _CellTime:
        return f"a loop: it did not end within {seconds:g} seconds"
    except SyntaxError as error:
        return f"{type(error).__name__}: {error.msg} (line {error.lineno})"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return None


def _stand_ins() -> None:
    """In place of the package, names that do nothing: the references must not be importable where students' code is."""
    stand_in = types.ModuleType("autograder")
    for name in ("check", "examine", "reference"):
        setattr(stand_in, name, lambda *args, **kwargs: None)
    sys.modules["autograder"] = stand_in
    builtins.get_ipython = lambda: _Magics()  # type: ignore[attr-defined]


class _Magics:
    """What %timeit and its like find: every call does nothing."""

    def __getattr__(self, name: str):
        return lambda *args, **kwargs: None


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
