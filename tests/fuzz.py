"""Damaged notebooks by the thousand: `python -m tests.fuzz --minutes 10 [--seed N]`.

A seed is one file: a valid notebook to which a few things have happened that editors, programs, disks and students do.
Whatever it holds, reading it must neither raise nor take long, the file must get its row, points must stand beside a
right answer only, and what has not touched an answer must not cost a point. A file that breaks this is kept.
"""

import argparse
import copy
import json
import random
import resource
import string
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nbformat

from autograder.grade import examine as checked
from autograder.nbgrader import Handed, Lesson, Paper, understood
from autograder.release import release
from autograder.workers import Task, examine
from tests.attacks.course import Hall, config_of_ours, our_lesson, points
from tests.test_nbgrader import FULL, LESSON, NO_BIAS, NONE, RIGHT, adds, answers, file_of

SECONDS = 3.0  # of CPU, to read one file
MEMORY = 2 * 2**30  # bytes, for all of them
CLASS = 60  # files that are graded together by the command
KEPT = Path(tempfile.gettempdir()) / "fuzz"
Damage = Callable[[random.Random, Any], Any]


class Broken(AssertionError):
    """A file on which one of the promises does not hold."""


# --- what happens to a notebook ----------------------------------------------------------------------------------


def odd(rng: random.Random) -> Any:
    """A value that nobody expects."""
    return rng.choice([
        None, True, -1, 0, 1e308, float("nan"), 10**400, "", "x" * 3000, "\ud800", "\0", "<script>", "../..", [], {},
        [[[]]], {"a": {"b": {}}}, ["x", 1, None], {"nbgrader": []}, {"nbgrader": {"grade_id": ["x"]}}, "linear_forward",
    ])  # fmt: skip


def some_cell(rng: random.Random, nb: dict) -> dict:
    cells = [cell for cell in nb["cells"] if isinstance(cell, dict)] if isinstance(nb.get("cells"), list) else []
    return rng.choice(cells) if cells else {}


def deletes(rng: random.Random, nb: dict) -> None:
    nb["cells"].remove(some_cell(rng, nb))


def doubles(rng: random.Random, nb: dict) -> None:
    nb["cells"].insert(rng.randrange(len(nb["cells"]) + 1), copy.deepcopy(some_cell(rng, nb)))


def swaps(rng: random.Random, nb: dict) -> None:
    rng.shuffle(nb["cells"])


def swaps_sources(rng: random.Random, nb: dict) -> None:
    one, other = some_cell(rng, nb), some_cell(rng, nb)
    one["source"], other["source"] = other.get("source"), one.get("source")


def retypes(rng: random.Random, nb: dict) -> None:
    some_cell(rng, nb)["cell_type"] = rng.choice(["markdown", "raw", "code", "heading", odd(rng)])


def renames(rng: random.Random, nb: dict) -> None:
    cell = some_cell(rng, nb)
    cell["metadata"] = {"nbgrader": {"grade_id": rng.choice([*RIGHT, *(f"{name}_answer" for name in RIGHT), odd(rng)])}}
    cell["id"] = rng.choice([cell.get("id"), *RIGHT, "cell-00", odd(rng)])


def nests(rng: random.Random, nb: dict) -> None:
    nb["cells"].append(rng.choice([copy.deepcopy(nb["cells"]), {"cells": nb["cells"][:2]}, odd(rng)]))


def odd_source(rng: random.Random, nb: dict) -> None:
    cell = some_cell(rng, nb)
    lines = str(cell.get("source")).splitlines(keepends=True)
    cell["source"] = rng.choice([[*lines, odd(rng)], lines[::-1], odd(rng), "x = 1\n" * rng.choice([10, 50_000])])


def odd_field(rng: random.Random, nb: dict) -> None:
    cell = some_cell(rng, nb)
    cell[rng.choice([*cell, "x", "outputs"])] = odd(rng)


def odd_notebook(rng: random.Random, nb: dict) -> None:
    nb[rng.choice([*nb, "x"])] = odd(rng)


def types(rng: random.Random, nb: dict) -> None:
    """A slip of the finger in a cell."""
    cell = some_cell(rng, nb)
    source = str(cell.get("source"))
    place = rng.randrange(len(source) + 1)
    cell["source"] = source[:place] + rng.choice(string.printable) + source[place + rng.choice([0, 1]) :]


# What leaves every answer as it is.


def more_cells(rng: random.Random, nb: dict) -> None:
    texts = [
        "",
        "# A thought",
        "1 / 0",
        "x = 3",
        "%matplotlib inline",
        "def helper(:",
        "'" * 7,
        "\t",
        "print('a' * 99)",
    ]
    cell = {"cell_type": rng.choice(["code", "markdown", "raw", "x"]), "metadata": {}, "source": rng.choice(texts)}
    nb["cells"].insert(rng.randrange(len(nb["cells"]) + 1), cell)


def odd_metadata(rng: random.Random, nb: dict) -> None:
    """The cell keeps its id, or its name in nbgrader's metadata."""
    cell = some_cell(rng, nb)
    name = cell.get("metadata", {}).get("nbgrader", {}).get("grade_id")
    if rng.random() < 0.5 and "id" in cell:
        cell["metadata"] = odd(rng) if cell["id"] == name else cell["metadata"]
    elif name and isinstance(cell["metadata"], dict):
        cell["metadata"] = {
            "nbgrader": {"grade_id": name, "points": odd(rng), "schema_version": odd(rng)},
            "tags": odd(rng),
        }


def odd_outputs(rng: random.Random, nb: dict) -> None:
    cell = some_cell(rng, nb)
    cell["outputs"], cell["execution_count"] = rng.choice([odd(rng), [odd(rng)] * 3]), odd(rng)


def odd_surroundings(rng: random.Random, nb: dict) -> None:
    nb[rng.choice(["metadata", "nbformat", "nbformat_minor", "worksheets", "x"])] = odd(rng)


def lines(rng: random.Random, nb: dict) -> None:
    cell = some_cell(rng, nb)
    if isinstance(cell.get("source"), str):
        cell["source"] = cell["source"].splitlines(keepends=True)


def loses_check(rng: random.Random, nb: dict) -> None:
    nb["cells"] = [cell for cell in nb["cells"] if cell.get("id") != rng.choice(list(RIGHT))]


INTACT: tuple[Damage, ...] = (more_cells, odd_metadata, odd_outputs, odd_surroundings, lines, loses_check)
STRUCTURE: tuple[Damage, ...] = (
    *INTACT, deletes, doubles, swaps, swaps_sources, retypes, renames, nests, odd_source, odd_field, odd_notebook,
    types,
)  # fmt: skip


# What happens to bytes.


def flips(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 30])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cuts(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    return rng.choice([data[:start], data[start:], data[:start] + data[start + rng.randrange(1, 200) :]])


def inserts(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    strange = rng.choice([
        b"\0", b"\xff", b"\xef\xbb\xbf", b"[" * 3000, b'{"a":' * 3000, b"9" * 6000, b"1e999999", b"NaN", b"-Infinity",
        b'"\\ud800"', b'"cells": [],', b"\\u0000", b"\x1b[31m", rng.randbytes(20),
    ])  # fmt: skip
    return data[:start] + strange + data[start:]


def doubles_key(rng: random.Random, data: bytes) -> bytes:
    key = rng.choice([b'"cells": ', b'"source": ', b'"metadata": ', b'"id": '])
    places = [i for i in range(len(data)) if data.startswith(key, i)]
    place = rng.choice(places) if places else 0
    return data[:place] + key + rng.choice([b"[]", b'""', b"{}", b"null", b"3"]) + b", " + data[place:]


def recodes(rng: random.Random, data: bytes) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(rng.choice(["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "cp1252", "utf-7"]), "replace")


def blows_up(rng: random.Random, data: bytes) -> bytes:
    filler = rng.choice([b" ", b"\n", b"[", b"{}"]) * rng.choice([10**4, 10**6])
    return rng.choice([data + filler, filler + data, data.replace(b"{", b"{" + filler, 1)])


BYTES: tuple[Damage, ...] = (flips, cuts, inserts, doubles_key, recodes, blows_up)


# --- one file ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutant:
    """A file, and whether all its answers are still there and right."""

    seed: int
    data: bytes
    intact: bool
    damage: str  # the names of what happened


@cache
def released() -> nbformat.NotebookNode:
    return nbformat.reads(release(our_lesson()), as_version=4)


@cache
def lesson() -> Lesson:
    return Lesson(copy.deepcopy(released()))


@cache
def starts() -> tuple[tuple[bytes, bool], ...]:
    """Notebooks to begin with, and whether all is right in them."""
    helped = adds("SHIFT = 0", linear_forward="def linear_forward(x, w, b):\n    return x @ w.T + b + SHIFT")
    edits = [(answers(), True), (helped, True), (answers(linear_forward=NO_BIAS), False), (lambda nb: None, False)]
    return tuple((file_of(edit, released()), right) for edit, right in edits)


def mutant(seed: int) -> Mutant:
    """The file of a seed: always the same."""
    rng = random.Random(seed)
    data, right = rng.choice(starts())
    nb, happened = json.loads(data), []
    kind = rng.choice(["intact", "structure", "bytes", "both"])
    if kind != "bytes":
        for damage in rng.choices(INTACT if kind == "intact" else STRUCTURE, k=rng.choice([1, 2, 3, 8])):
            try:
                damage(rng, nb)
            except (AttributeError, IndexError, KeyError, TypeError, ValueError):
                continue  # what came before has left nothing to damage
            happened.append(damage.__name__)
        data = json.dumps(nb).encode()
    if kind in ("bytes", "both"):
        for damage in rng.choices(BYTES, k=rng.choice([1, 1, 2, 4])):
            data = damage(rng, data) if data else data
            happened.append(damage.__name__)
    return Mutant(seed, data, right and kind == "intact", " ".join(happened))


def read(mutant: Mutant) -> Handed:
    """What the grader understands of a file; Broken where that fails or takes long."""
    start = time.process_time()
    handed = understood(Paper("fuzz", mutant.data, {}, ""), f"{LESSON}.ipynb", lesson().released)
    if handed.failure:
        raise Broken(f"reading fails: {handed.failure}")
    if (took := time.process_time() - start) > SECONDS:
        raise Broken(f"reading takes {took:.1f} s")
    if mutant.intact and handed.unreadable:
        raise Broken(f"a notebook with all its answers is refused: {handed.unreadable}")
    nbformat.validate(nbformat.reads(lesson().text(handed.cells, {}, handed.problems, {}), as_version=4))
    return handed


def graded(handed: Handed) -> dict[str, float]:
    """The points of a file that has been read."""
    if handed.unreadable:
        return NONE
    outcome = examine(Task("fuzz", handed.cells, tuple(FULL), 1, 2.0))
    if isinstance(outcome, str):
        raise Broken(f"grading fails: {outcome}")
    return {name: verdict.points for name, verdict in outcome.items()}


def judge(mutant: Mutant, scores: Mapping[str, float | None]) -> None:
    """Broken unless every point stands beside a right answer, and no untouched answer has lost one."""
    if set(scores) != set(FULL) or None in scores.values():
        raise Broken(f"no row, or one without points: {scores}")
    if mutant.intact and scores != FULL:
        raise Broken(f"points are lost although no answer was touched: {scores}")
    for name, score in scores.items():
        assert score is not None
        if score > deserved(mutant.data, name):
            raise Broken(f"{name} gets {score:g} points, but no such answer stands in the file")


def deserved(data: bytes, name: str) -> float:
    """The most that any cell of the file, as a reader sees it, is worth as an answer to an exercise."""
    try:
        cells = json.loads(data.decode("utf-8-sig"))["cells"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return 0.0
    listed = cells if isinstance(cells, list) else []
    sources = [_text(cell.get("source")) for cell in listed if isinstance(cell, dict)]
    return max((_worth(source, name) for source in sources if name in source), default=0.0)


def _text(source: Any) -> str:
    lines = source if isinstance(source, list) else [source]
    return "".join(line for line in lines if isinstance(line, str))


@cache
def _worth(source: str, name: str) -> float:
    import numpy as np

    namespace: dict[str, Any] = {"np": np, "SHIFT": 0}
    try:
        exec(source, namespace)
    except Exception:
        return 0.0
    return float(checked(namespace[name], name, seed=1).points) if name in namespace else 0.0


# --- many --------------------------------------------------------------------------------------------------------


def fuzz(seeds: Iterable[int], every: int = 10) -> tuple[Counter[str], list[str]]:
    """Reads the files of these seeds, and grades those whose answers changed, and every tenth of the others.

    Returns how many were read, refused and graded, and a sentence for each that breaks a promise.
    """
    counts: Counter[str] = Counter()
    failures = []
    usual = {read(Mutant(0, data, right, "")).source for data, right in starts()}
    for seed in seeds:
        made = mutant(seed)
        try:
            handed = read(made)
            counts["unreadable" if handed.unreadable else "read"] += 1
            if handed.source not in usual or seed % every == 0:
                judge(made, graded(handed))
                counts["graded"] += 1
        except Exception as error:
            failures.append(keep(made, error))
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > MEMORY:
        failures.append(f"reading took more than {MEMORY / 2**30:g} GB")
    return counts, failures


def fuzz_class(seeds: Iterable[int], folder: Path) -> tuple[Counter[str], list[str]]:
    """The same files handed in as one class and graded by the command: every file gets its row."""
    hall, failures = Hall(folder), []
    hall.root.mkdir(parents=True)
    hall.open(our_lesson(), config_of_ours())
    made = {f"fuzz_{seed}": mutant(seed) for seed in seeds}
    for student, each in made.items():
        path = hall.root / "submitted" / student / LESSON / f"{LESSON}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_bytes(each.data)
    if not hall.run(["autograder.cli", "grade", LESSON], 300):
        failures.append("the command did not come to its end")
    rows = points(hall.root)
    for student, each in made.items():
        try:
            judge(each, rows.get(student, {}))
        except Broken as error:
            failures.append(keep(each, error))
    return Counter(rows=len(rows)), failures


def keep(mutant: Mutant, error: Exception) -> str:
    """Saves a file that breaks a promise; a sentence about it."""
    KEPT.mkdir(exist_ok=True)
    path = KEPT / f"{mutant.seed}.ipynb"
    path.write_bytes(mutant.data)
    return f"seed {mutant.seed} ({mutant.damage}): {type(error).__name__}: {str(error)[:500]}; kept in {path}"


def batches(seed: int, minutes: float) -> Iterator[range]:
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        yield range(seed, seed + 10 * CLASS)
        seed += 10 * CLASS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Damaged notebooks by the thousand.")
    parser.add_argument("--minutes", type=float, required=True, help="how long")
    parser.add_argument("--seed", type=int, default=0, help="of the first file (default: 0)")
    args = parser.parse_args()
    total: Counter[str] = Counter()
    failures: list[str] = []
    for seeds in batches(args.seed, args.minutes):
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            runs = [fuzz(seeds), fuzz_class(seeds[:CLASS], Path(folder) / "class")]
        for counts, failed in runs:
            total += counts
            failures += failed
            print(*failed, sep="\n", end="\n" if failed else "")
        print(
            f"to seed {seeds[-1]}: " + ", ".join(f"{count} {what}" for what, count in sorted(total.items())), flush=True
        )
    print(f"{len(failures)} files broke a promise")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
