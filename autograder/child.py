"""The processes that own a student's code while it is graded: they load the cells, answer requests, know no answer.

A warm process imports numpy (and torch, where the exercises are about torch) once. For every submission it forks a
supervisor into namespaces of its own, which runs none of the student's code and forks the children that do, one at a
time, on a budget, with no way to start a process. Started by sandbox.py, in the jail that
jail.py describes; nothing here decides a point.
"""

import __future__

import ast
import builtins
import contextlib
import ctypes
import errno
import gc
import importlib
import importlib.abc
import importlib.machinery
import linecache
import os
import resource
import signal
import socket
import sys
import tempfile
import time
import types
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from autograder import play, wire

STATEMENT_SECONDS = 3.0  # for one statement of a cell, when the cells are first run
LOAD_SECONDS = 8.0  # for all statements together; those left then get…
HURRY_SECONDS = 0.2  # … this long each
SLOW = 0.1  # seconds; what takes longer and defines nothing is not run again for the next exercise
MEMORY = 2 * 2**30  # bytes of address space, beyond what the warm process has
FILE_SIZE = 16 * 2**20  # bytes of one file
FILES = 64  # open at once
WORK = "size=64m,nr_inodes=1k,mode=700"  # the file system in memory that is home and work folder

WARM = ("numpy", "IPython.core.inputtransformer2", "pyseccomp")
TORCH = ("torch", "torch.overrides")
# Imported by the warm process for a notebook that holds the word: not for all, as a fork of less is quicker. The first
# optimiser that is made has torch import its compiler.
ON_DEMAND = {
    "numpy": {"scipy.special": "scipy.special"},
    "torch": {"scipy.special": "scipy.special", "torch.optim": "torch._dynamo"},
}
LATER = ("matplotlib",)  # imported when it is used: answers hardly do
COURSE = ("course", "ipywidgets")  # figures and data: not needed to define an answer
FOREIGN = tuple(
    "torch torchvision torchaudio functorch torchgen jax jaxlib flax optax haiku tensorflow tf_keras keras cupy "
    "autograd numba tinygrad mxnet theano pytensor aesara paddle mindspore chainer onnx onnxruntime mlx dask xarray "
    "sparse".split()
)  # "from scratch" means without them
REFUSED = tuple(
    "fork vfork execve execveat unshare setns mount umount2 pivot_root chroot move_mount open_tree fsopen fsconfig "
    "fsmount fspick mount_setattr ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_open "
    "pidfd_getfd pidfd_send_signal socket bpf perf_event_open userfaultfd io_uring_setup keyctl add_key request_key "
    "memfd_create memfd_secret shmget semget msgget mq_open name_to_handle_at open_by_handle_at init_module "
    "finit_module kexec_load reboot swapon".split()
)  # system calls: no process, no namespace, no socket, no memory that no limit counts
CLONE_THREAD = 0x10000  # a flag of clone: threads may start


# --- the warm process --------------------------------------------------------------------------------------------


def serve(descriptor: int, torch: bool, jailed: bool) -> None:
    """The warm process: imports what answers use, then forks a supervisor for each socket it is sent.

    Orders come on the socket of that descriptor: a socket, with the names of modules to import before, which are those
    of ON_DEMAND that the notebook uses; its first word is no module, as an empty one would be the end.
    """
    orders = socket.socket(fileno=descriptor)
    _import(WARM + (TORCH if torch else ()))
    _rehearse(torch)
    gc.collect()
    gc.freeze()  # a collection in a child would write to, and so copy, every page
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # buries the supervisors
    setting = Setting(torch, _refusals() if jailed else None, _address_space() + MEMORY)
    while True:
        message, descriptors, _, _ = socket.recv_fds(orders, 1000, 1)
        if not message:
            return
        _import(message.decode().split()[1:])
        if os.fork() == 0:
            orders.close()
            with _last_act():
                _submission(socket.socket(fileno=descriptors[0]), setting)
        os.close(descriptors[0])


def unmark() -> None:
    """Puts what stands in a notebook in place of words by which code could tell that it is graded."""
    sys.argv = sys.orig_argv = ["python", "-m", "ipykernel_launcher"]
    del sys.modules[__name__]
    for value in list(globals().values()):
        if isinstance(value, types.FunctionType) and value.__module__ == __name__:
            value.__code__ = _renamed(value.__code__)


def _renamed(code: types.CodeType) -> types.CodeType:
    inner = tuple(_renamed(each) if isinstance(each, types.CodeType) else each for each in code.co_consts)
    return code.replace(co_filename="<kernel>", co_consts=inner)


def _import(names: Iterable[str]) -> None:
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _rehearse(torch: bool) -> None:
    """Plays once what children will play, so that what is done at the first time is done before they are forked."""
    import numpy as np

    one = np.ones((1, 1))
    play.perform(lambda x: x + 0.0, {"kind": "function", "inputs": {"x": one}, "outputs": 1, "forbids": []})
    if torch:
        from torch import nn, set_num_threads
        from torch.autograd import Function

        class Doubled(Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return 2 * x

            @staticmethod
            def backward(ctx, dy):
                return 2 * dy

        set_num_threads(1)
        inputs: dict = {"inputs": {"x": one}, "wrt": ["x"], "upstream": [one]}
        state = {"weight": one, "bias": one[0]}
        init = {"in_features": 1, "out_features": 1}
        inputs |= {"init": init, "train": True, "state": state, "parameters": list(state), "buffers": [], "start": []}
        for kind, target in (("module", nn.Linear), ("autograd", Doubled)):
            play.perform(target, {"kind": kind, "inputs": inputs, "forbids": ["torch.nn.functional.conv3d"]})


@dataclass(frozen=True)
class Setting:
    """What holds for every child of a warm process."""

    torch: bool  # whether torch can be imported
    refusals: "Program | None"  # the filter of system calls; None without a jail
    memory: int  # bytes of address space


def _address_space() -> int:
    """Bytes that this process has mapped."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


@contextlib.contextmanager
def _last_act():
    """What a forked process does, and nothing of its parent's after that."""
    try:
        yield
    finally:
        os._exit(0)


# --- the supervisor of a submission ------------------------------------------------------------------------------


def _submission(control: socket.socket, setting: Setting) -> None:
    """Receives the cells, then a socket for each exercise, for which it forks a child; ends, with them, at its end."""
    if setting.refusals:
        _seclude()
    control.sendall(b"r")  # ready
    os.chdir(os.environ["HOME"])
    _silence()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    task = wire.receive(control)
    _limit(setting.memory, task["total"])
    for script in task["scripts"]:
        play.script_of(script)
    _stand_ins(setting.torch)
    cells = [prepared(number, *cell) for number, cell in enumerate(task["cells"])]
    namespace = defined(cells)
    child = 0
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        if child:
            _end(child)
        if not message:
            return
        child = os.fork()
        if child == 0:
            control.close()
            with _last_act():
                channel, *lender = (socket.socket(fileno=descriptor) for descriptor in descriptors)
                _lenders.extend(lender)
                _exercise(channel, cells, namespace, task["seconds"], setting.refusals)
        for descriptor in descriptors:
            os.close(descriptor)


def _end(child: int) -> None:
    """Kills a child, and without a jail what it has started in its session, and buries it."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


_NAMESPACES = {"user": 0x10000000, "pid": 0x20000000, "mnt": 0x20000, "net": 0x40000000, "ipc": 0x8000000}
_READ_ONLY, _NO_SUID_OR_DEVICES = 1, 2 | 4


def _seclude() -> None:
    """Goes into namespaces of its own: no other process, no network; an empty file system for what is written.

    Returns in their first process, with which all others in them end.
    """
    user, group = os.getuid(), os.getgid()
    _call("unshare", sum(_NAMESPACES.values()))
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    if os.fork():
        os._exit(0)
    _call("mount", b"tmpfs", os.environb[b"HOME"], b"tmpfs", _NO_SUID_OR_DEVICES, WORK.encode())
    _call("mount", b"tmpfs", b"/proc", b"tmpfs", _NO_SUID_OR_DEVICES | _READ_ONLY, b"size=4k")


def _call(name: str, *arguments) -> None:
    """A function of the C library that returns 0 or sets errno."""
    if getattr(_LIBC, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


_LIBC = ctypes.CDLL(None, use_errno=True)


# --- the child ---------------------------------------------------------------------------------------------------


def _exercise(
    channel: socket.socket, cells: list["Cell"], namespace: dict, seconds: float, refusals: "Program | None"
) -> None:
    """Loads the cells, says how that went, then answers requests, exercise by exercise, until it is killed."""
    os.setsid()
    task = wire.receive(channel)
    if refusals:
        _refuse(refusals)
    errors, slow = load(cells, namespace, {tuple(pair) for pair in task["skip"]}, seconds)
    found = [name for name in task["exercises"] if name in namespace]
    wire.send(channel, {"found": found, "errors": errors, "slow": [list(place) for place in slow]})
    while True:
        asked = wire.receive(channel)
        for request in asked["requests"]:
            reply = play.perform(namespace[asked["exercise"]], request)
            wire.send(channel, reply)
            if "failure" in reply:
                break


def _silence() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def _limit(memory: int, seconds: float) -> None:
    """What a child gets, and so does the supervisor, which needs little."""
    cpu = int(seconds + LOAD_SECONDS) + 1
    limits = {"CORE": 0, "AS": memory, "FSIZE": FILE_SIZE, "NOFILE": FILES, "CPU": cpu}
    for name, most in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing on is then an OSError


class Program(ctypes.Structure):
    """struct sock_fprog: how many instructions of 8 bytes, and where."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _refusals() -> Program:
    """The program by which the kernel filters a child's system calls."""
    import pyseccomp

    refuse = pyseccomp.ERRNO(errno.EPERM)
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in REFUSED:
        with contextlib.suppress(ValueError, OSError):  # a machine without that call
            rules.add_rule(refuse, name)
    rules.add_rule(refuse, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, CLONE_THREAD, 0))
    rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")  # its flags can't be read; the C library then takes clone
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        instructions = file.read()
    return Program(len(instructions) // 8, instructions)


def _refuse(program: Program) -> None:
    """From here on, the kernel refuses system calls that no answer needs."""
    no_new_privileges, seccomp, filtered = 38, 22, 2
    _call("prctl", no_new_privileges, 1, 0, 0, 0)
    _call("prctl", seccomp, filtered, ctypes.byref(program), 0, 0)


# --- cells -------------------------------------------------------------------------------------------------------


@dataclass
class Statement:
    """A statement at the top level of a cell."""

    node: ast.stmt
    code: types.CodeType
    done: bool = False  # its definition stands in the namespace that every child starts from

    @property
    def defines(self) -> bool:
        return isinstance(self.node, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom)


@dataclass(frozen=True)
class Cell:
    """A cell, compiled statement by statement."""

    exercise: str | None
    statements: list[Statement]
    error: str | None = None  # what is wrong with its syntax


_futures = 0  # `from __future__` holds for all later cells, as in a notebook


def prepared(number: int, exercise: str | None, source: str) -> Cell:
    """A cell as it will be run; none of it runs here."""
    filename = f"<{exercise or f'cell {number + 1}'}>"
    try:
        text, tree = _parsed(source)
        statements = [Statement(node, _compiled(node, filename)) for node in tree.body]
    except SyntaxError as error:
        return Cell(exercise, [], f"{type(error).__name__}: {error.msg} (line {error.lineno})")
    except (ValueError, RecursionError, MemoryError) as error:
        return Cell(exercise, [], f"{type(error).__name__}: {str(error)[:300]}")
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    return Cell(exercise, statements)


def _parsed(source: str) -> tuple[str, ast.Module]:
    """Python's own syntax, or else IPython's (%magic, !shell, help?)."""
    try:
        return source, ast.parse(source)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager

        text = TransformerManager().transform_cell(source)
        return text, ast.parse(text)


def _compiled(node: ast.stmt, filename: str) -> types.CodeType:
    global _futures
    if isinstance(node, ast.ImportFrom) and node.module == "__future__":
        for name in node.names:
            _futures |= getattr(__future__, name.name).compiler_flag if hasattr(__future__, name.name) else 0
    return compile(ast.Module([node], []), filename, "exec", flags=_futures)


def defined(cells: list[Cell]) -> dict:
    """The namespace that children start from: what can be defined, once for all, without running the student's code.

    That is: imports of modules that are here already, constants, and functions, if no other statement binds the name.
    """
    namespace: dict = {"__name__": "__main__", "__builtins__": builtins}
    statements = [statement for cell in cells for statement in cell.statements]
    bound = Counter(name for statement in statements for name in _bound(statement.node))
    for statement in statements:
        if _inert(statement.node) and all(bound[name] == 1 for name in _bound(statement.node)):
            with contextlib.suppress(Exception):
                exec(statement.code, namespace)
                statement.done = True
    return namespace


def _bound(tree: ast.AST) -> set[str]:
    """The names that a statement may bind, at any depth; what the body of a function binds is its own."""
    if isinstance(tree, ast.FunctionDef) and not any(isinstance(node, ast.Global) for node in ast.walk(tree)):
        return {tree.name}
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
        if (
            node is tree
            and isinstance(node, ast.FunctionDef)
            and not any(isinstance(n, ast.Global) for n in ast.walk(node))
        ):
            return names  # what its body binds is its own
    return names


def _inert(node: ast.stmt) -> bool:
    """Whether executing a statement runs nothing but the interpreter, and modules that are imported already."""
    if isinstance(node, ast.Import):
        return all(_is_here(alias.name) for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        named = all(alias.name != "*" for alias in node.names)
        return not node.level and named and _is_here(node.module or "")
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Name) for target in node.targets) and _is_plain(node.value)
    if isinstance(node, ast.FunctionDef):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        outside = [*node.args.defaults, *node.args.kw_defaults, node.returns]
        outside += [argument.annotation for argument in arguments if argument]
        return not node.decorator_list and all(expression is None or _is_plain(expression) for expression in outside)
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_here(module: str) -> bool:
    return module in sys.modules or module.partition(".")[0] in LATER + COURSE + FOREIGN


def _is_plain(expression: ast.expr) -> bool:
    """Constants, names and attributes.

    Evaluating them runs no code of the student's: what stands in the namespace by then is modules, constants and
    functions, none of them an object with a say in how it is looked at.
    """
    allowed = (
        ast.Constant, ast.Name, ast.Attribute, ast.Tuple, ast.List, ast.Subscript, ast.UnaryOp, ast.USub, ast.Load,
    )  # fmt: skip
    return all(isinstance(node, allowed) for node in ast.walk(expression))


Place = tuple[int, int]  # (cell, statement)


def load(cells: list[Cell], namespace: dict, skip: set[Place], seconds: float) -> tuple[dict[str, str], list[Place]]:
    """Runs what is left of the cells, in order, in the namespace, but for those to skip; each statement so long.

    Returns, by exercise, what its cell stopped with, and the statements that need not run again, because they failed,
    or were slow and define nothing. A statement that fails does not keep later ones from running: what is defined
    counts.
    """
    errors: dict[str, str] = {}
    again: list[Place] = []
    begun = time.perf_counter()
    for number, cell in enumerate(cells):
        problems = [cell.error] if cell.error else []
        for place, statement in enumerate(cell.statements):
            if statement.done or (number, place) in skip:
                continue
            start = time.perf_counter()
            hurried = start - begun > LOAD_SECONDS
            problem = _run(statement.code, namespace, HURRY_SECONDS if hurried else min(STATEMENT_SECONDS, seconds))
            if problem or (time.perf_counter() - start > SLOW and not statement.defines):
                again.append((number, place))
            problems += [problem] if problem else []
        if problems and cell.exercise:
            errors[cell.exercise] = problems[0]
    return errors, again


class _TimeUp(BaseException):
    """A statement ran too long while it was loaded."""


def _run(code: types.CodeType, namespace: dict, seconds: float) -> str | None:
    """Runs one statement; what it stopped with, or None."""

    def time_is_up(number, frame):
        raise _TimeUp

    signal.signal(signal.SIGALRM, time_is_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        exec(code, namespace)
    except _TimeUp:
        return f"a loop: it did not end within {seconds:g} seconds"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return None


# --- stand-ins ---------------------------------------------------------------------------------------------------


def _stand_ins(torch: bool) -> None:
    """What can be imported without being here: the package with its references, figures, foreign libraries."""
    package = types.ModuleType("autograder")
    for name in ("check", "examine", "reference"):
        setattr(package, name, lambda *args, **kwargs: None)
    package.mine = mine  # type: ignore[attr-defined]
    sys.modules["autograder"] = package
    builtins.get_ipython = lambda: Silent("get_ipython")  # type: ignore[attr-defined]  # what %timeit and its like call
    sys.meta_path.insert(0, _Finder(COURSE, Silent))
    sys.meta_path.insert(0, _Later())
    if not torch:
        sys.meta_path.insert(0, _Finder(FOREIGN, hollow))


_lenders: list[socket.socket] = []  # the socket to the process that answers for earlier lessons, where there is one


def mine(name: str) -> Callable:
    """The reference of an earlier lesson: it is not here, arrays are sent to where it is."""

    def answer(*args, **kwargs):
        play.refuse_withheld(name)
        try:
            wire.send(_lenders[0], {"name": name, "arguments": list(args), "options": kwargs})
        except (TypeError, wire.WireError):
            raise TypeError(f"mine({name!r}): in a graded run, functions of arrays and numbers come along") from None
        reply = wire.receive(_lenders[0])
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["values"][0] if len(reply["values"]) == 1 else tuple(reply["values"])

    answer.__name__ = name
    return answer


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules of these names, and any inside them, whose contents are made as they are asked for."""

    def __init__(self, names: tuple[str, ...], make: Callable):
        self.names, self.make = names, make

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in self.names:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def exec_module(self, module) -> None:
        module.__getattr__ = _attribute(self.make)


def _attribute(make: Callable) -> Callable:
    """A __getattr__ that makes what it is asked for."""

    def attribute(name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return make(name)

    return attribute


class _Later(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules of LATER, which import themselves in truth when anything in them is asked for."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in LATER:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def exec_module(self, module) -> None:
        def attribute(name: str):
            if name.startswith("__"):
                raise AttributeError(name)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                for other in [other for other in sys.modules if other.partition(".")[0] in LATER]:
                    del sys.modules[other]
            return getattr(importlib.import_module(module.__name__), name)

        module.__getattr__ = attribute


class Silent:
    """Anything of the course's figures: may be called, and does nothing."""

    def __init__(self, name: str):
        self.__name__ = name

    def __getattr__(self, name: str):
        return _attribute(Silent)(name)

    def __call__(self, *args, **kwargs):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *exception) -> None:
        pass


class _Hollow(type):
    """A class out of a library that is not here: may be named and subclassed, never used."""

    def __getattr__(cls, name: str):
        return _attribute(hollow)(name)

    def __call__(cls, *args, **kwargs):
        raise play.Failure("uses_torch", name=cls.__name__)


def hollow(name: str) -> _Hollow:
    """Stands in for anything of that name."""
    return _Hollow(name, (), {})
