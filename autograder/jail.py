"""The jail: bubblewrap around a warm process, which sees an interpreter and nothing else of this machine.

Read-only: the system's libraries, the interpreter, its packages (without torch where torch is not to be had), and the
modules of ours that child.py needs, none of which holds an answer (lender.py's do: no student's code runs there). In
memory: everything that can be written. Not there: home folders, the course, the gradebook, submissions, the network,
other processes, our environment.
"""

import os
import shutil
import site
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from autograder.child import FOREIGN

JAILS = ("bubblewrap", "none")
PACKAGE = Path(__file__).parent
PLAYS = ("__init__.py", "builders.py", "wire.py", "play.py", "child.py", "scripts")  # of this package
LENDS = (*PLAYS[:4], "scripts", "exercise.py", "exercises", "cases.py", "lender.py")
HOME = "/student"  # the folder in memory; also /tmp, unless something that is needed lies below that
SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/ld.so.cache",
    "/etc/fonts",
    "/etc/localtime",
)
OTHERWISE = "To grade without a jail, ask for it with --jail none: then students' code runs with your rights."
UNJAILED = (
    "WARNING: --jail none. Students' code runs as you, with only limits on time and memory: it can read and change "
    "your files, the gradebook and other submissions, use the network, and leave programs running."
)

# What a student might try; run once in every new jail. x is an array of ones, to be cleared where a door is shut.
PROBE = """
def probe(x):
    import os, socket

    def opens(number, attempt):
        try:
            attempt()
        except OSError:
            x[number] = 0

    opens(0, lambda: os.fork() or os._exit(0))
    opens(1, lambda: socket.socket())
    opens(2, lambda: os.stat("/proc/1"))
    opens(3, lambda: os.stat({package!r} + "/exercises"))
    opens(4, lambda: os.stat({course!r}))
    opens(5, lambda: open({package!r} + "/probe", "w"))
    return x + 0
"""
DOORS = ("start a process", "use the network", "see other processes", "read the answers", "see the course's folder",
         "write outside its folder")  # fmt: skip


class JailError(RuntimeError):
    """Students' code can't be locked in here; the message says why, and what to do."""


def command(jail: str, program: str, descriptor: int) -> list[str]:
    """The command line of a warm process: "numpy" or "torch" plays students' code, "lender" answers it."""
    serve = f"child.serve({descriptor}, torch={program == 'torch'}, jailed={jail != 'none'})"
    code = f"from autograder import child; child.unmark(); {serve}"
    if program == "lender":
        code = f"from autograder import lender; lender.serve({descriptor})"
    python = [sys.executable, "-s", "-c", code]
    return python if jail == "none" else [*_bubblewrap(program), "--", *python]


def environment(jail: str) -> dict[str, str]:
    """Nothing of ours but what an interpreter needs: no tokens, no hint that a graded run is on."""
    home = tempfile.gettempdir() if jail == "none" else HOME
    kept = {key: os.environ[key] for key in ("LANG", "LC_ALL", "LC_CTYPE") if key in os.environ}
    one_thread = {key: "1" for key in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    return kept | one_thread | {
        "PATH": "/usr/bin:/bin", "HOME": home, "TMPDIR": home, "MPLBACKEND": "agg", "MPLCONFIGDIR": home,
        "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(PACKAGE.parent),
    }  # fmt: skip


def refuse_unless_possible(jail: str) -> None:
    """A JailError with the reason and the remedy where the jail can't be had."""
    if jail not in JAILS:
        raise JailError(f"there is no jail {jail!r}; choose one of {', '.join(JAILS)}")
    if jail == "none":
        return
    if sys.platform != "linux":
        raise JailError(
            f"Students' code is locked in with bubblewrap, which needs Linux; this is {sys.platform}. Grade on a Linux "
            f"machine or virtual machine (WSL 2 will do). {OTHERWISE}"
        )
    if not shutil.which("bwrap"):
        raise JailError(
            f"Students' code is locked in with bubblewrap, and there is no program `bwrap` here. Install it (Debian, "
            f"Ubuntu: apt install bubblewrap; Fedora: dnf install bubblewrap). {OTHERWISE}"
        )
    try:
        import pyseccomp  # noqa: F401
    except (ImportError, RuntimeError, OSError):
        raise JailError(
            f"The jail needs pyseccomp and libseccomp. Install them (pip install pyseccomp; Debian, Ubuntu: apt "
            f"install libseccomp2). {OTHERWISE}"
        ) from None


def explained(error: str) -> JailError:
    """What a jail that did not start has said, with the likely remedies."""
    return JailError(
        f"The jail does not start; bubblewrap says: {error.strip()[-500:] or 'nothing'}\nA server may forbid user "
        "namespaces to everyone but root (sysctl kernel.unprivileged_userns_clone=1, or on Ubuntu "
        "kernel.apparmor_restrict_unprivileged_userns=0, allows them; in Docker, --security-opt seccomp=unconfined "
        f"--security-opt systempaths=unconfined does). {OTHERWISE}"
    )


def probe(jail: str) -> str:
    """The source of a function that tries the doors of the jail; without one, of a function that just answers."""
    if jail == "none":
        return "def probe(x):\n    return x"
    return PROBE.format(package=str(PACKAGE), course=os.path.join(os.getcwd(), "nbgrader_config.py"))


def refuse_open_doors(tried: Sequence[float]) -> None:
    """A JailError that names what the code in the jail can do and should not; `tried` is what the probe returned."""
    if leaks := [door for door, is_open in zip(DOORS, tried, strict=True) if is_open]:
        raise JailError(
            f"The jail is not closed: code in it can {', '.join(leaks)}. Nothing was graded; please report it."
        )


def _bubblewrap(program: str) -> list[str]:
    binds = [option for path in SYSTEM for option in _like_here(path)]
    prefixes = dict.fromkeys(str(Path(path).resolve()) for path in (sys.base_prefix, sys.prefix))
    if not any(Path(path).is_relative_to("/tmp") for path in (*prefixes, str(PACKAGE))):
        binds += ["--symlink", HOME, "/tmp"]
    binds += [word for prefix in prefixes if prefix != "/usr" for word in ("--ro-bind", prefix, prefix)]
    binds += [word for folder in _covered(program) for word in ("--tmpfs", str(folder), "--remount-ro", str(folder))]
    binds += ["--tmpfs", str(PACKAGE)]
    binds += [word for name in _sees(program) for word in ("--ro-bind", *[str(PACKAGE / name)] * 2)]
    return [
        str(shutil.which("bwrap")), "--unshare-all", "--die-with-parent", "--new-session", "--hostname", "localhost",
        "--proc", "/proc", "--dev", "/dev", "--tmpfs", HOME, *binds, *_font_list(),
        "--remount-ro", str(PACKAGE), "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", HOME,
    ]  # fmt: skip


def _like_here(path: str) -> Sequence[str]:
    """A folder of the system as it is here: a link, or bound read-only; nothing where there is none."""
    if os.path.islink(path):
        return ["--symlink", os.readlink(path), path]
    return ["--ro-bind", path, path] if os.path.exists(path) else []


def _sees(program: str) -> Sequence[str]:
    return LENDS if program == "lender" else PLAYS


def _covered(program: str) -> Iterator[Path]:
    """The folders that are covered: foreign libraries in the jail of NumPy, another copy of this package in all."""
    hidden = FOREIGN if program == "numpy" else ()
    for packages in dict.fromkeys(
        [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    ):
        for name in (*hidden, "autograder", "course"):
            folder = Path(packages) / name
            if folder.is_dir() and folder != PACKAGE:
                yield folder


def _font_list() -> list[str]:
    """Matplotlib's list of fonts, which takes it seconds to make, where it has been made before."""
    cache = Path(
        os.environ.get("MPLCONFIGDIR")
        or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "matplotlib"
    )
    return [word for path in cache.glob("fontlist-*.json") for word in ("--ro-bind", str(path), f"{HOME}/{path.name}")]


def start_warm(jail: str, program: str, descriptor: int, errors) -> subprocess.Popen:
    """Starts a warm process that listens on an open descriptor; what bubblewrap says goes to the file `errors`."""
    return subprocess.Popen(
        command(jail, program, descriptor),
        pass_fds=[descriptor], env=environment(jail),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
    )  # fmt: skip
