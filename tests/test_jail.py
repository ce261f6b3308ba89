"""What a student's code finds around it when it is graded: an interpreter, an empty folder, and nobody else."""

import os
import shutil
import socket
import threading
import time
from pathlib import Path

import psutil
import pytest

from autograder import jail, sandbox
from autograder.sandbox import Cell, JailError, examine_notebook

IMPORTS = Cell(None, "import numpy as np")
RIGHT = "return x @ w.T + b"
ROOT = Path(__file__).parents[1]


def graded(*lines, **options):
    """linear_forward with these lines in its body."""
    source = "def linear_forward(x, w, b):\n" + "\n".join(f"    {line}" for line in lines)
    return examine_notebook([IMPORTS, Cell("linear_forward", source)], ["linear_forward"], seed=1, **options)[
        "linear_forward"
    ]


def found(expression):
    """What an expression is worth inside."""
    text = graded("import os, sys", f"raise ValueError('<<' + str(({expression})) + '>>')").text
    return text.partition("ValueError: <<")[2].partition(">>")[0]


# --- what it sees ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/work", "/home", "/var", "/etc/passwd", "/opt", "/mnt", "/sys", str(ROOT / "solutions"), str(ROOT / "course")],
)
def test_nothing_of_this_machine_is_there_but_the_interpreter(path):
    inside = found(f"os.listdir({path!r}) if os.path.isdir({path!r}) else os.path.exists({path!r})")
    visible = {str(ROOT / name).removeprefix(path + "/").partition("/")[0] for name in ("autograder", ".venv")}
    assert inside == "False" or set(eval(inside)) <= visible | {".pyenv"}


def test_of_the_package_only_what_plays_the_student_is_there():
    assert set(eval(found(f"os.listdir({str(jail.PACKAGE)!r})"))) == set(jail.PLAYS)


def test_no_answer_is_in_memory():
    assert found("[name for name in sys.modules if name.startswith('autograder.') and 'exercis' in name]") == "[]"
    assert found("[o for o in __import__('gc').get_objects() if type(o).__name__ == 'Exercise']") == "[]"


def test_home_and_work_folder_are_one_empty_folder():
    assert found("os.listdir(os.path.expanduser('~')), os.getcwd()") == f"([], {jail.HOME!r})"


def test_the_environment_holds_nothing_of_ours(monkeypatch):
    monkeypatch.setenv("AUTOGRADER_SEED", "12345")
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    ended()
    names = set(eval(found("sorted(os.environ)")))
    ended()
    allowed = {
        "PATH",
        "HOME",
        "PWD",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "MPLBACKEND",
        "MPLCONFIGDIR",
        "PYTHONPATH",
        "TMPDIR",
    }
    assert names <= allowed | {"PYTHONDONTWRITEBYTECODE"} | {n for n in names if n.endswith("_NUM_THREADS")}


def test_the_folder_for_temporary_files_is_the_same():
    assert graded("import tempfile", "tempfile.TemporaryFile().write(b'x')", RIGHT).passed
    if not jail.PACKAGE.is_relative_to("/tmp"):
        assert graded("open('/tmp/x', 'w').write('x')", "open('x').read()", RIGHT).passed


def test_no_other_process_is_there():
    assert found("os.listdir('/proc'), os.getpid() < 5") == "([], True)"
    assert graded("import os", "os.kill(1, 9), os.kill(os.getppid(), 15)", RIGHT).passed  # the supervisor does not mind


def test_no_file_is_inherited_but_the_channel():
    lines = ("import os", "open_ones = []", "for d in range(3, 64):", "    try: os.fstat(d); open_ones.append(d)",
             "    except OSError: pass", "raise ValueError(f'<{len(open_ones)}>')")  # fmt: skip
    assert "<1>" in graded(*lines).text


@pytest.mark.parametrize("path", ["/usr/x", "/x", "/dev/x", "/dev/shm/x", str(jail.PACKAGE / "x")])
def test_nothing_but_the_work_folder_can_be_written(path):
    assert "Read-only file system" in graded(f"open({path!r}, 'w')").text


# --- what it may do ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "import os; os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.execv('/usr/bin/true', ['true'])",
        "import socket; socket.socket()",
        "import socket; socket.create_connection(('127.0.0.1', 80))",
        "import multiprocessing; multiprocessing.Process(target=print).start()",
    ],
)
def test_no_process_and_no_socket_is_to_be_had(line):
    assert "PermissionError: [Errno 1] Operation not permitted" in graded(line).text


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("unshare", "0x10000000"), ("ptrace", "16, 1, 0, 0"), ("memfd_create", "b'x', 0"), ("shmget", "1, 4096, 512"),
     ("mount", "b'x', b'.', b'tmpfs', 0, 0"), ("setns", "0, 0")],
)  # fmt: skip
def test_system_calls_that_no_answer_needs_are_refused(name, arguments):
    call = f"getattr(libc, {name!r})({arguments}), ctypes.get_errno()"
    lines = ("import ctypes", "libc = ctypes.CDLL(None, use_errno=True)", f"raise ValueError(({call}))")
    assert "ValueError: (-1, 1)" in graded(*lines).text


def test_a_listener_on_this_machine_hears_nothing():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.2)
        port = listener.getsockname()[1]
        graded(f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}')")
        with pytest.raises(TimeoutError):
            listener.accept()


def test_threads_may_start_and_end_with_their_process():
    assert graded("import threading, time", "threading.Thread(target=time.sleep, args=(60,)).start()", RIGHT).passed


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("[np.zeros(2**24) for _ in range(40)]", "asked for more memory than it gets"),
        ("open('x', 'wb').write(b'0' * 20 * 2**20)", "File too large"),
        ("[open(f'{i}', 'wb').write(b'0' * 2**20) for i in range(100)]", "No space left on device"),
        ("[open(f'{i}', 'w').close() for i in range(2_000)]", "No space left on device"),
        ("[open('/dev/null') for _ in range(100)][0]; kept = [open('/dev/null') for _ in range(100)]", "Too many open"),
    ],
)
def test_memory_files_and_their_sizes_have_limits(line, sentence):
    assert sentence in graded(line).text


def test_what_one_submission_writes_the_next_does_not_find():
    assert graded("open('left', 'w').write('for you')", RIGHT).passed
    assert found("os.listdir('.')") == "[]"


def test_two_submissions_at_once_do_not_see_each_other():
    both = [threading.Thread(target=graded, args=("import time; open('here', 'w'); time.sleep(0.2)",))]
    for thread in both:
        thread.start()
    time.sleep(0.5)
    assert found("os.listdir('.'), os.listdir('/proc')") == "([], [])"
    for thread in both:
        thread.join()


def test_nothing_is_left_over():
    graded("import threading, time", "threading.Thread(target=time.sleep, args=(600,)).start()", "while True: pass",
           seconds=0.5)  # fmt: skip
    for warm in filter(None, (sandbox._warm(torch, "bubblewrap").process for torch in (False, True))):
        family = psutil.Process(warm.pid)
        until = time.monotonic() + 5
        while (left := len(family.children(recursive=True))) > 2 and time.monotonic() < until:
            time.sleep(0.05)
        assert left == 2  # the first process of bubblewrap's namespace, and the warm interpreter


# --- from scratch ------------------------------------------------------------------------------------------------


def test_torch_is_not_there_where_numpy_is_the_exercise():
    assert found("__import__('importlib').util.find_spec('torch').origin") == "None"
    folder = Path(__import__("torch").__file__).parent
    assert found(f"os.listdir({str(folder)!r})") == "[]"


def test_naming_torch_is_no_fault_and_using_it_is_one():
    assert graded("import torch; from torch import nn; import torch.nn.functional as F", RIGHT).passed
    assert graded("import torch", "class Net(torch.nn.Module): pass", RIGHT).passed
    assert "calls torch (relu)" in graded("import torch.nn.functional as F; F.relu(x)").text


def test_torch_is_there_where_it_is_the_exercise():
    source = (
        "import torch\nfrom torch import nn\n\nclass Linear(nn.Module):\n"
        "    def __init__(self, in_features, out_features, bias=True):\n        super().__init__()\n"
        "        self.weight = nn.Parameter(torch.randn(out_features, in_features))\n"
        "        self.bias = nn.Parameter(torch.randn(out_features)) if bias else None\n"
        "    def forward(self, x):\n        y = x @ self.weight.T\n"
        "        return y if self.bias is None else y + self.bias\n"
    )
    assert examine_notebook([Cell("Linear", source)], ["Linear"], seed=1)["Linear"].passed


# --- the jail is tried before it is trusted -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weaken", "door"),
    [
        (("child.py", '"fork vfork', '"vfork'), "start a process"),
        (("child.py", "pidfd_send_signal socket bpf", "pidfd_send_signal bpf"), "use the network"),
        (("child.py", 'b"/proc", b"tmpfs"', 'os.environb[b"HOME"], b"tmpfs"'), "see other processes"),
    ],
)
def test_a_jail_with_an_open_door_is_not_used(weaken, door, tmp_path, monkeypatch):
    """Each protection taken away by itself, in a copy of the modules that the jail sees."""
    name, old, new = weaken
    modules = [module for module in jail.PLAYS if module.endswith(".py")]
    for module in modules:
        (tmp_path / module).write_text((jail.PACKAGE / module).read_text())
    text = (tmp_path / name).read_text()
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new).replace('"clone", pys', '"personality", pys'))
    intact = jail._bubblewrap
    words = {str(jail.PACKAGE / module): str(tmp_path / module) for module in modules}

    def with_the_copy(torch):
        options = intact(torch)
        return [words.get(word, word) if options[i - 1] == "--ro-bind" else word for i, word in enumerate(options)]

    monkeypatch.setattr(jail, "_bubblewrap", with_the_copy)
    ended()
    try:
        with pytest.raises(JailError, match=f"code in it can .*{door}"):
            graded(RIGHT)
    finally:
        ended()


# --- where it can't be had ---------------------------------------------------------------------------------------


@pytest.fixture
def without_bubblewrap(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    ended()
    yield
    ended()


def ended():
    for torch in (False, True):
        sandbox._warm(torch, "bubblewrap").end()


def test_without_bubblewrap_it_refuses_with_the_reason_and_the_remedy(without_bubblewrap):
    with pytest.raises(JailError, match=r"no program `bwrap` here. Install it .*apt install bubblewrap.*--jail none"):
        graded(RIGHT)


def test_on_another_system_it_refuses_with_the_reason_and_the_remedy(monkeypatch):
    monkeypatch.setattr(jail.sys, "platform", "darwin")
    with pytest.raises(JailError, match="needs Linux; this is darwin"):
        jail.refuse_unless_possible("bubblewrap")


def test_where_bubblewrap_does_not_start_its_own_words_are_shown(monkeypatch, tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    ended()
    try:
        with pytest.raises(JailError, match="bubblewrap says: bwrap: No permissions to create new namespace"):
            graded(RIGHT)
    finally:
        ended()


def test_no_jail_has_to_be_asked_for(without_bubblewrap):
    assert graded(RIGHT, jail="none").passed
    assert graded("import os; os.listdir('/proc')[0]", RIGHT, jail="none").passed


def test_there_is_no_third_kind():
    with pytest.raises(JailError, match="choose one of bubblewrap, none"):
        sandbox.start("docker")
