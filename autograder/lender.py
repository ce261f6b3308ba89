"""Earlier lessons' answers, lent to the code of a student that is graded: what `mine` gives there.

A warm process imports PyTorch and the declarations once and forks one that answers for each child that asks: a name
and arrays come in, PyTorch's result goes out. It runs no code of a student's; what they may send it are plain arrays,
and what they may ask for are functions of the lessons before theirs. Started by sandbox.py, in a jail of its own.
"""

import os
import resource
import signal
import socket

from autograder import wire
from autograder.builders import Build
from autograder.cases import Reference
from autograder.exercise import earlier, find, load_registry

MEMORY = 2**30  # bytes of address space, beyond what the warm process has
CPU = 20  # seconds for one child's questions, all together
TEXT = 500  # characters of an error


def serve(descriptor: int) -> None:
    """The warm process: orders are a lesson's name and the socket on which its answers are lent."""
    import torch

    load_registry()
    torch.set_num_threads(1)
    orders = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # buries those that answer
    while True:
        lesson, descriptors, _, _ = socket.recv_fds(orders, 1000, 1)
        if not lesson:
            return
        if os.fork() == 0:
            try:
                orders.close()
                _limit()
                _answer(socket.socket(fileno=descriptors[0]), frozenset(earlier(lesson.decode())))
            finally:
                os._exit(0)
        os.close(descriptors[0])


def _limit() -> None:
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    for name, most in {"CORE": 0, "FSIZE": 0, "CPU": CPU, "AS": mapped + MEMORY}.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


def _answer(channel: socket.socket, names: frozenset[str]) -> None:
    """Says that it is there, then answers until the other end is closed, or sends what is no question."""
    channel.sendall(b"r")
    while True:
        try:
            asked = wire.receive(channel)
            reply = _reply(asked["name"], asked["arguments"], asked["options"], names)
            wire.send(channel, reply)
        except (EOFError, OSError, wire.WireError, KeyError, TypeError):
            return


def _reply(name, arguments: list, options: dict, names: frozenset[str]) -> dict:
    if name not in names:
        return {"error": f"mine({name!r}): in a graded run, only what earlier lessons have built comes along"}
    if not all(map(_is_plain, (*arguments, *options.values()))) or isinstance(find(name).reference, type):
        return {"error": f"mine({name!r}): in a graded run, functions of arrays and numbers come along"}
    try:
        result = Reference(find(name))(*arguments, **options)
    except Exception as error:  # as the function itself would have stopped
        return {"error": f"{name}: {type(error).__name__}: {str(error)[:TEXT]}"}
    return {"values": list(result) if isinstance(result, tuple) else [result]}


def _is_plain(value) -> bool:
    """Whether nothing is made of it by a builder."""
    if isinstance(value, (list, tuple, dict)):
        return all(map(_is_plain, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, Build)
