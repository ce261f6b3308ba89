"""Attacks that stand in an answer: what it returns, what it changes around itself, what it pretends to be."""

from tests.attacks.case import NO_BACKWARD, NO_COUNT, Case, forward, hooked, nothing, only_if
from tests.attacks.detectors import learns_expected_values
from tests.test_nbgrader import NONE, answers, sells, skips_execution

FORGET_BIAS = "y = x @ w.T"


def backward(result: str, before: str = ""):
    """A linear_backward that returns this."""
    return answers(linear_backward=f"{before}\ndef linear_backward(dy, x, w, b):\n    return {result}")


def count(result: str, before: str = ""):
    """A count_parameters that returns this."""
    return answers(count_parameters=f"{before}\ndef count_parameters(widths):\n    return {result}")


LIAR = """
class Liar(np.ndarray):
    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        return np.zeros(1)
    def __array_function__(self, function, types, args, kwargs):
        return True
    __sub__ = __rsub__ = lambda self, other: np.zeros(1)
"""

ALWAYS_EQUAL = """
class Equal(int):
    __eq__ = lambda self, other: True
    __ne__ = lambda self, other: False
    __sub__ = __rsub__ = lambda self, other: 0
    __hash__ = int.__hash__
"""

COMPARISON = [
    Case("nan", "NaN everywhere: `gap > tolerance` is false.", forward("return np.full((len(x), len(w)), np.nan)")),
    Case("nan_number", "One NaN that broadcasts to every shape.", forward("return float('nan')")),
    Case("some_nan", "NaN hides the wrong entries from max().", forward("y = x @ w.T; y[0, 0] = np.nan; return y")),
    Case(
        "empty", "An empty array: all() of nothing is true.", backward("(np.empty((0, 1, 1)),) * 3"), worth=NO_BACKWARD
    ),
    Case("masked", "A masked array with every entry masked.", forward("return np.ma.masked_all((len(x), len(w)))")),
    Case("complex", "Complex numbers in place of floats.", forward("return (x @ w.T + b).astype(complex)")),
    Case("extra_axis", "The right numbers with an axis too many.", forward("return (x @ w.T + b)[None]")),
    Case(
        "shape_of_one",
        "An array of shape (1,) in place of a number.",
        count("np.array([sum(i * o + o for i, o in zip(widths, widths[1:]))])"),
        worth=NO_COUNT,
    ),
    Case(
        "subclass",
        "An array that answers 0 to every subtraction.",
        forward("return np.zeros((len(x), len(w))).view(Liar)", LIAR),
    ),
    Case("equal_number", "An integer that equals everything.", count("Equal(1)", ALWAYS_EQUAL), worth=NO_COUNT),
    Case(
        "equal_objects",
        "An object array of numbers that equal everything.",
        count("np.array(Equal(1), dtype=object)", ALWAYS_EQUAL),
        worth=NO_COUNT,
    ),
    Case("matrix", "np.matrix, whose * and shape mean something else.", forward("return np.matrix(x @ w.T + b)")),
    Case(
        "zero_strides",
        "One number behind every index.",
        forward("return np.lib.stride_tricks.as_strided(b, (len(x), len(w)), (0, 0))"),
    ),
    Case(
        "lying_strides",
        "A view far beyond its own memory.",
        forward("return np.lib.stride_tricks.as_strided(np.zeros(1), (len(x), len(w)), (2**40, 2**40))"),
    ),
    Case(
        "changed_later",
        "A thread fills in the answer after it has been returned.",
        forward(
            "y = np.zeros((len(x), len(w)))\n"
            "threading.Timer(0.05, lambda: np.copyto(y, x @ w.T + b)).start()\n"
            "return y",
            "import threading",
        ),
    ),
    Case("rounded", "Float16: right to three digits.", forward("return (x @ w.T + b).astype(np.float16)")),
    Case(
        "square_only", "Right where w is its own transpose's shape.", forward("return x @ w.reshape(w.shape[::-1]) + b")
    ),
]

KERNEL_HOOKS = [
    Case(
        "displayhook",
        "The answer shows a result of its own, before the check's.",
        forward("sys.displayhook('fine'); return x @ w.T", "import sys"),
    ),
    Case(
        "before_execution",
        "Before anything is executed, a result is shown.",
        hooked(
            "shell = get_ipython()\nshell.events.register('pre_execute', lambda: shell.displayhook('fine'))",
        ),
    ),
    Case(
        "no_assert",
        "A transformer drops every assert from cells to come.",
        backward(
            "0 * x, 0 * w, 0 * b",
            "import ast\n"
            "class Drop(ast.NodeTransformer):\n"
            "    visit_Assert = lambda self, node: ast.copy_location(ast.Pass(), node)\n"
            "get_ipython().ast_transformers.append(Drop())",
        ),
        worth=NO_BACKWARD,
    ),
    Case(
        "no_traceback",
        "Errors are swallowed before they are shown.",
        hooked("shell = get_ipython()\nshell.showtraceback = shell._showtraceback = lambda *a, **k: None"),
    ),
    Case(
        "custom_exception",
        "A handler of one's own for AssertionError.",
        hooked("get_ipython().set_custom_exc((Exception,), lambda *a, **k: None)"),
    ),
    Case(
        "empty_cells",
        "Cells to come are replaced by nothing.",
        hooked("get_ipython().input_transformers_post.append(lambda lines: ['pass\\n'])"),
    ),
    Case(
        "run_cell",
        "The shell runs no cell any more.",
        hooked(
            "shell, run = get_ipython(), get_ipython().run_cell\n"
            "shell.run_cell = lambda source, *a, **k: run('pass', *a, **k)\n"
            "shell.run_cell_async = lambda source, *a, **k: type(shell).run_cell_async(shell, 'pass', *a, **k)"
        ),
    ),
    Case(
        "event",
        "Before each cell, a result is shown.",
        hooked("shell = get_ipython()\nshell.events.register('pre_run_cell', lambda *a: shell.displayhook('fine'))"),
    ),
    Case(
        "own_shell",
        "get_ipython and the shell's class are replaced.",
        hooked(
            "class Shell:\n"
            "    __getattr__ = lambda self, name: lambda *a, **k: None\n"
            "async def run_code(*a, **k):\n"
            "    return False\n"
            "type(get_ipython()).run_code = run_code\n"
            "get_ipython = lambda: Shell()"
        ),
    ),
    Case("abs", "np.abs says 0 to everything.", hooked("np.abs = np.absolute = lambda *a, **k: np.zeros(1)")),
    Case(
        "allclose",
        "np.allclose says yes to everything.",
        answers(
            linear_backward=(
                "np.allclose = np.testing.assert_allclose = lambda *a, **k: True\n"
                "linear_backward = lambda dy, x, w, b: (0 * x, 0 * w, 0 * b)"
            )
        ),
        worth=NO_BACKWARD,
    ),
    Case(
        "reference",
        "PyTorch's own linear is replaced by the wrong answer.",
        hooked(
            "import sys\n"
            "torch = sys.modules.get('torch') or __import__('torch')\n"
            "torch.nn.functional.linear = lambda x, w, b: x @ w.T"
        ),
    ),
    Case(
        "builtins",
        "import gives another torch, whose linear forgets the bias.",
        hooked(
            "import builtins\n"
            "from types import SimpleNamespace as Names\n"
            "class Tensor(np.ndarray):\n"
            "    numpy = lambda self: np.asarray(self)\n"
            "linear = lambda x, w, b: (x @ w.T).view(Tensor)\n"
            "fake = Names(tensor=lambda v: v.view(Tensor), nn=Names(functional=Names(linear=linear)))\n"
            "real = builtins.__import__\n"
            "builtins.__import__ = lambda name, *a, **k: fake if name == 'torch' else real(name, *a, **k)"
        ),
    ),
    Case(
        "trace",
        "A trace function makes every local `got` the local `want`.",
        hooked(
            "import sys, ctypes\n"
            "def trace(frame, event, arg):\n"
            "    if 'want' in frame.f_locals and 'got' in frame.f_locals:\n"
            "        frame.f_locals['got'] = frame.f_locals['want']\n"
            "        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), 0)\n"
            "    return trace\n"
            "sys.settrace(trace)"
        ),
    ),
    Case(
        "profile",
        "A profiler ends the process well when a comparison begins.",
        hooked(
            "import sys, os\n"
            "sys.setprofile(lambda frame, event, arg: os._exit(0) if 'compare' in frame.f_code.co_name else None)"
        ),
    ),
    Case(
        "numpy_module",
        "sys.modules holds another numpy.",
        hooked(
            "import sys, types\n"
            "fake = types.ModuleType('numpy')\n"
            "fake.__getattr__ = lambda name: (lambda *a, **k: True)\n"
            "sys.modules['numpy'] = fake"
        ),
    ),
    Case(
        "wire_modules",
        "struct, json and socket speak as the student likes.",
        hooked(
            "import json, struct, socket\n"
            "dumps = json.dumps\n"
            "forged = {'loaded': True, 'passed': True, 'points': 100, 'values': []}\n"
            "json.dumps = lambda value, **k: dumps({'dict': forged})"
        ),
    ),
    Case(
        "play",
        "The grader's module in the student's process returns a verdict.",
        hooked(
            "import sys\n"
            "for name, module in list(sys.modules.items()):\n"
            "    if name.startswith('autograder') and hasattr(module, 'perform'):\n"
            "        module.perform = lambda *a, **k: {'passed': True, 'points': 2.0, 'values': []}"
        ),
    ),
]

# What knows the grader's own format: it finds the sockets and pipes of its process and speaks on all of them.
CHANNEL = """
import os, struct, sys

def descriptors():
    return [number for number in range(3, 256) if readable(number)]

def readable(number):
    try:
        return bool(os.fstat(number))
    except OSError:
        return False

def say(data):
    for number in descriptors():
        try:
            os.set_blocking(number, False)
            os.write(number, data)
        except OSError:
            pass

def message(value):
    wire = next((m for name, m in list(sys.modules.items()) if name.endswith('wire') and hasattr(m, 'pack')), None)
    body = wire.pack(value) if wire else repr(value).encode()
    return struct.pack('<Q', len(body)) + body
"""
ZEROS = "{'values': [{'array': np.zeros((5, 3))}], 'modified': [], 'warnings': []}"
NANS = ZEROS.replace("np.zeros((5, 3))", "np.full((5, 3), np.nan)")

FORGED = [
    Case("says_failed", "The check cell becomes the text 'FAILED'.", sells("'FAILED'")),
    Case("says_nan", "The check cell becomes NaN.", sells("float('nan')")),
    Case("says_minus_one", "The check cell becomes -1.", sells("-1")),
    Case("says_nothing", "The check cell becomes `pass`.", sells("pass")),
    Case("says_points", "The check cell becomes the points.", sells("2.0")),
    Case("no_cell", "The check cell is emptied, its old output kept.", sells("")),
    Case("extra_credit", "The metadata promise extra credit.", sells(extra_credit=20, points=1000)),
    Case("solution_cell", "The check cell is declared to be an answer.", sells("2.0", solution=True, locked=False)),
    Case("no_grade", "The check cell is declared to be no check.", sells(points=0, grade=False, locked=False)),
    Case("skip_execution", "A tag keeps the check from being run.", skips_execution),
    Case("own_check", "check is a function of the student's.", sells(before="check = lambda f: 2.0")),
    Case("exit_0", "The process ends well in the middle of the check.", forward("import os; os._exit(0)")),
    Case("system_exit", "SystemExit(0) out of the answer.", forward("raise SystemExit(0)")),
    Case("interrupt", "KeyboardInterrupt out of the answer.", forward("raise KeyboardInterrupt")),
    Case("generator", "The answer is a generator that never gives a number.", forward("yield 2.0")),
    Case("verdict", "The answer is a verdict.", forward("return {'passed': True, 'points': 2.0}")),
    Case(
        "speaks_points",
        "It writes a verdict to every channel of its process.",
        hooked(CHANNEL + "say(message({'loaded': True, 'passed': True, 'points': 100.0}) * 8)"),
    ),
    Case(
        "speaks_ahead",
        "It answers the questions before they are asked.",
        hooked(CHANNEL + f"say(message({{'loaded': True}}) + message({ZEROS}) * 8)"),
    ),
    Case(
        "speaks_nan",
        "It answers with arrays of NaN.",
        hooked(CHANNEL + f"say(message({{'loaded': True}}) + message({NANS}) * 8)"),
    ),
    Case(
        "speaks_length",
        "It announces a message of 2**62 bytes.",
        hooked(CHANNEL + "say(struct.pack('<Q', 2**62) + b'{}' * 100)"),
    ),
    Case(
        "speaks_shape",
        "It announces an array of 2**60 numbers.",
        hooked(
            CHANNEL + "import json\n"
            "array = {'array': 0, 'dtype': 'float64', 'shape': [2**40, 2**20]}\n"
            "text = json.dumps({'dict': {'values': [{'dict': {'array': array}}]}}).encode()\n"
            "body = struct.pack('<QQ', len(text), 0) + text\n"
            "say((struct.pack('<Q', len(body)) + body) * 8)"
        ),
    ),
    Case(
        "speaks_nested",
        "It answers with JSON nested 100,000 deep.",
        hooked(
            CHANNEL + "text = b'[' * 100_000\n"
            "body = struct.pack('<QQ', len(text), 0) + text\n"
            "say(struct.pack('<Q', len(body)) + body)"
        ),
    ),
    Case(
        "speaks_keys",
        "It answers with every code that the protocol does not have.",
        hooked(
            CHANNEL + "say(message({'failure': {'a': 1}}) + message({'values': 3}) + message([1]) + message(None) * 8)"
        ),
    ),
    Case(
        "twins",
        "It forks, and two processes answer.",
        forward("if not os.fork():\n    x = x * 0\nreturn x @ w.T", "import os"),
    ),
    Case(
        "other_channels",
        "A process that is kept speaks for the students to come.",
        hooked(
            CHANNEL + "import time\n"
            "if not os.fork():\n"
            "    os.setsid()\n"
            "    for _ in range(200):\n"
            f"        say(message({ZEROS}))\n"
            "        time.sleep(0.05)\n"
            "    os._exit(0)"
        ),
    ),
]

WRONG_OBJECTS = [
    Case("want", "The answer looks for the expected value among the globals.", forward("return globals().get('want')")),
    Case(
        "callers_want",
        "The answer looks for the expected value in the frames of its callers.",
        forward(
            "frame = sys._getframe()\n"
            "while frame:\n"
            "    for key in ('want', 'expected', 'reference'):\n"
            "        if key in frame.f_locals:\n"
            "            return frame.f_locals[key]\n"
            "    frame = frame.f_back\n"
            "return 0 * x",
            "import sys",
        ),
    ),
    Case(
        "lazy_array",
        "An object becomes an array where it is compared, and looks around there.",
        forward(
            "return Lazy()",
            "import sys\n"
            "class Lazy:\n"
            "    def __array__(self, *a, **k):\n"
            "        frame = sys._getframe()\n"
            "        while frame and 'want' not in frame.f_locals:\n"
            "            frame = frame.f_back\n"
            "        return np.asarray(frame.f_locals['want'] if frame else np.nan)\n"
            "    __rsub__ = __sub__ = lambda self, other: np.zeros(1)\n"
            "    __array_priority__ = 1e9",
        ),
    ),
    Case(
        "false_class",
        "An object says that its class is numpy's.",
        forward(
            "return False_()",
            "class False_:\n"
            "    __class__ = np.ndarray\n"
            "    dtype, shape, ndim, nbytes = np.dtype(float), (5, 3), 2, 120\n"
            "    __sub__ = __rsub__ = lambda self, other: np.zeros(1)\n"
            "    __array_ufunc__ = lambda self, *a, **k: np.zeros(1)",
        ),
    ),
    Case(
        "array_interface",
        "An array that lies about where its memory is.",
        forward(
            "return False_()",
            "class False_:\n"
            "    __array_interface__ = {'shape': (2**40,), 'typestr': '<f8', 'data': (8, False), 'version': 3}",
        ),
    ),
    Case(
        "object_array", "An array of Python objects that are numbers.", forward("return (x @ w.T + b).astype(object)")
    ),
    Case("self_containing", "A list that contains itself.", forward("y = []; y.append(y); return y")),
    Case("nested", "A list nested 10,000 deep.", forward("y = [1.0]\nfor _ in range(10_000):\n    y = [y]\nreturn y")),
    Case(
        "callable",
        "A class in place of a function, whose instances equal everything.",
        answers(
            linear_forward=(
                "class linear_forward:\n"
                "    def __init__(self, *a): pass\n"
                "    __sub__ = __rsub__ = lambda self, other: np.zeros(1)\n"
                "    __array_ufunc__ = lambda self, *a, **k: np.zeros(1)"
            )
        ),
    ),
    Case(
        "code",
        "The function's code is exchanged for that of another.",
        answers(
            linear_forward=(
                "def linear_forward(x, w, b):\n    return x @ w.T + b\n"
                "linear_forward.__code__ = (lambda x, w, b: x @ w.T).__code__"
            )
        ),
    ),
    Case(
        "global_result",
        "Any name that the check uses is overwritten while it runs.",
        forward("globals().update(want=0 * b, x=0 * x, w=0 * w, b=0 * b, rng=None)\nreturn 0 * b"),
    ),
    Case(
        "deleted_inputs",
        "The arguments are overwritten so that the answer becomes right.",
        forward("x[...] = w[...] = b[...] = 0\nreturn np.zeros((len(x), len(w)))"),
    ),
    Case("untouched", "Nothing at all is handed in.", nothing, worth=NONE),
]

RANDOMNESS = [
    Case(
        "noise",
        "Random noise below the tolerance: never the same answer.",
        forward("return x @ w.T + b + np.random.default_rng().normal(size=(len(x), len(w))) * 1e-7"),
    ),
    Case(
        "clock",
        "The time of day is added.",
        forward("return x @ w.T + b + time.perf_counter_ns() % 10**6 * 1e-13", "import time"),
    ),
    Case(
        "every_second",
        "Only every second call is answered.",
        forward("global calls; calls += 1\nreturn x @ w.T + b if calls % 2 else 0 * (x @ w.T)", "calls = 0"),
    ),
    Case(
        "first_call",
        "Only the first call is answered.",
        forward("global calls; calls += 1\nreturn x @ w.T + b if calls == 1 else 0 * (x @ w.T)", "calls = 0"),
    ),
    Case(
        "not_the_first",
        "Every call but the first is answered.",
        forward("global calls; calls += 1\nreturn x @ w.T + b if calls > 1 else 0 * (x @ w.T)", "calls = 0"),
    ),
    Case(
        "same_shape",
        "The first answer for a shape is repeated for ever.",
        forward("if x.size not in seen:\n    seen[x.size] = x @ w.T + b\nreturn seen[x.size]", "seen = {}"),
    ),
    Case(
        "zeros_drawn",
        "The generators of random numbers give zeros, so that zeros are right.",
        answers(
            linear_forward=(
                "class Zeros:\n"
                "    def normal(self, *a, size=None, **k): return np.zeros(size or ())\n"
                "    standard_normal = uniform = random = normal\n"
                "np.random.default_rng = lambda *a, **k: Zeros()\n"
                "np.random.randn = lambda *size: np.zeros(size)\n"
                "def linear_forward(x, w, b):\n    return np.zeros((len(x), len(w)))"
            )
        ),
    ),
    Case(
        "known_seed",
        "The questions are drawn beforehand, from the seeds that people use.",
        answers(
            linear_forward=(
                "known = {}\n"
                "for seed in range(100):\n"
                "    rng = np.random.default_rng(seed)\n"
                "    x, w, b = rng.normal(size=(5, 4)), rng.normal(size=(3, 4)), rng.normal(size=3)\n"
                "    known[x[0, 0]] = x @ w.T + b\n"
                "def linear_forward(x, w, b):\n    return known[x[0, 0]]"
            )
        ),
    ),
    Case(
        "fixed_seed",
        "The noise always starts from the same seed.",
        forward("np.random.seed(0); return x @ w.T + np.random.randn(len(w))"),
    ),
    Case(
        "expected_values",
        "The report of a wrong answer is read for the numbers that were expected.",
        forward("return x @ w.T + b + 1.0"),
        learns_expected_values,
    ),
]

DETECTION = [
    Case(
        "environment",
        "Right only where an environment variable tells of grading.",
        only_if(
            "import os\nreturn any('GRADE' in key.upper() or 'GRADE' in os.environ[key].upper() for key in os.environ)"
        ),
    ),
    Case(
        "arguments",
        "Right only where the command line tells of grading.",
        only_if(
            "import sys\n"
            "words = ' '.join(sys.orig_argv + sys.argv).lower()\n"
            "return 'grade' in words or 'sandbox' in words or 'jail' in words"
        ),
    ),
    Case(
        "folder",
        "Right only in a folder of submissions.",
        only_if(
            "import os\nreturn any(word in os.getcwd() for word in ('submitted', 'autograded', 'grader', '01_sample'))"
        ),
    ),
    Case(
        "host",
        "Right only on a machine, or for a user, with a telling name.",
        only_if(
            "import os, socket\n"
            "names = [socket.gethostname(), os.environ.get('USER', ''), os.path.expanduser('~')]\n"
            "words = ('grade', 'jail', 'sandbox', 'nobody', 'bwrap')\n"
            "return any(word in name.lower() for name in names for word in words)"
        ),
    ),
    Case(
        "frames",
        "Right only where a caller's file tells of grading.",
        only_if(
            "import sys\n"
            "frame = sys._getframe()\n"
            "while frame:\n"
            "    path = frame.f_code.co_filename\n"
            "    if any(word in path for word in ('child', 'sandbox', 'jail', 'nbgrader', 'batch')):\n"
            "        return True\n"
            "    frame = frame.f_back\n"
            "return '/submitted/' in str(globals().get('__vsc_ipynb_file__', ''))"
        ),
    ),
    Case(
        "parent",
        "Right only where the parent's command line tells of grading.",
        only_if("import os\nreturn b'grade' in open(f'/proc/{os.getppid()}/cmdline', 'rb').read()"),
    ),
    Case(
        "files",
        "Right only where files of the course lie beside it.",
        only_if("import os\nreturn os.path.exists('@ROOT@/gradebook.db') or os.path.exists('timestamp.txt')"),
    ),
    Case(
        "modules",
        "Right only where modules of a grader are loaded.",
        only_if(
            "import sys\n"
            "return any(name.startswith(('nbgrader', 'autograder.sandbox', 'autograder.child', 'autograder.jail')) "
            "for name in sys.modules)"
        ),
    ),
]

TORCH = "torch.nn.functional.linear(*(torch.tensor(v) for v in (x, w, b))).numpy()"
POLICY = [
    Case("torch", "PyTorch answers the exercise from scratch.", forward(f"import torch; return {TORCH}")),
    Case("torch_on_top", "PyTorch is imported above the answer.", forward(f"return {TORCH}", "import torch")),
    Case(
        "torch_by_name",
        "PyTorch is imported by a name that is put together.",
        forward(f"torch = importlib.import_module('to' + 'rch'); return {TORCH}", "import importlib"),
    ),
    Case(
        "torch_modules",
        "PyTorch is taken from sys.modules.",
        forward(f"torch = sys.modules['torch']; return {TORCH}", "import sys"),
    ),
    Case(
        "torch_loaded",
        "PyTorch is found among the objects in memory.",
        forward(
            "torch = next(o for o in gc.get_objects() if type(o) is type(gc) and o.__name__ == 'torch')\n"
            f"return {TORCH}",
            "import gc",
        ),
    ),
    Case(
        "torch_reloaded",
        "PyTorch is imported although a hook forbids it.",
        forward(
            "for name in [n for n in sys.modules if n.split('.')[0] == 'torch' and sys.modules[n] is None]:\n"
            "    del sys.modules[name]\n"
            "sys.meta_path[:] = [importlib.machinery.PathFinder]\n"
            f"import torch; return {TORCH}",
            "import sys, importlib.machinery",
        ),
    ),
    Case(
        "torch_process",
        "Another interpreter calls PyTorch.",
        forward(
            "code = ('import sys, pickle, torch; x, w, b = pickle.load(sys.stdin.buffer); '\n"
            "        f'pickle.dump({recipe}, sys.stdout.buffer)')\n"
            "given = pickle.dumps((x, w, b))\n"
            "ran = subprocess.run([sys.executable, '-c', code], input=given, capture_output=True)\n"
            "return pickle.loads(ran.stdout)",
            f"import subprocess, sys, pickle\nrecipe = '{TORCH}'",
        ),
    ),
    Case(
        "torch_compiled",
        "PyTorch is called from a string.",
        forward(f"exec('import torch; y = {TORCH}', scope := dict(x=x, w=w, b=b)); return scope['y']"),
    ),
    Case(
        "torch_library",
        "PyTorch's C library is loaded by its file.",
        only_if(
            "import ctypes, glob, sys\n"
            "found = [path for folder in sys.path for path in glob.glob(folder + '/torch/lib/libtorch_cpu.so')]\n"
            "return ctypes.CDLL(found[0])"
        ),
    ),
    Case(
        "from_reference",
        "The grader's own reference answers.",
        forward("return reference('linear_forward')(x, w, b)", "from autograder import reference"),
    ),
]

CLASSES = {
    "comparison": COMPARISON,
    "kernel_hooks": KERNEL_HOOKS,
    "forged_results": FORGED,
    "wrong_objects": WRONG_OBJECTS,
    "randomness": RANDOMNESS,
    "detection": DETECTION,
    "policy": POLICY,
}
