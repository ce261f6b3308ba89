"""The command `autograder`. Each command is a function: its docstring is its help, its return value the exit status."""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

Command = Callable[[argparse.Namespace], int]
COMMANDS: dict[str, tuple[Command, Sequence[tuple[tuple, dict]]]] = {}


def argument(*names, **options) -> tuple[tuple, dict]:
    """One argument of a command, as argparse's add_argument takes it."""
    return names, options


def command(*arguments: tuple[tuple, dict]) -> Callable[[Command], Command]:
    """Makes a function a command of its own name."""

    def register(function: Command) -> Command:
        COMMANDS[function.__name__.rstrip("_").replace("_", "-")] = function, arguments
        return function

    return register


LESSONS = argument("lessons", nargs="*", metavar="LESSON", help="such as 01_linear; default: all")


@command(LESSONS, argument("--force", action="store_true", help="execute lessons again that have not changed"))
def build(args) -> int:
    """Write the solved and the released notebooks from solutions/*.py."""
    from autograder import build as builder

    failed = 0
    for lesson in _chosen(args.lessons):
        print(f"{lesson.name:26}", end="", flush=True)
        try:
            print(builder.build(lesson, args.force))
        except builder.LessonError as error:
            failed += 1
            print(f"failed\n{error}")
    _write_start_page()
    return 1 if failed else 0


def _write_start_page() -> None:
    from autograder import build as builder

    text = builder.start_page(Path.cwd())
    if text is not None:
        Path("course/start.ipynb").write_text(text, encoding="utf-8")


@command(LESSONS)
def sync(args) -> int:
    """Prove that the committed notebooks are what a rebuild gives, and that they score 100 % and 0."""
    from autograder import build as builder

    root = Path.cwd()
    failures = [] if args.lessons else builder.strays(root)
    for lesson in _chosen(args.lessons):
        try:
            problems = builder.differences(lesson) or builder.unfair(lesson)
        except builder.LessonError as error:
            problems = [str(error)]
        verdict = "differs" if problems else "in step, older outputs" if builder.is_stale(lesson) else "in step"
        print(f"{lesson.name:26}{len(lesson.exercises):3} exercises, {verdict}")
        failures += problems
    page = root / "course" / "start.ipynb"
    if builder.start_page(root) != (page.read_text(encoding="utf-8") if page.exists() else None):
        failures.append("course/start.ipynb: not what solutions/start.py gives")
    if failures:
        print("\n" + "\n\n".join(failures) + "\n\nRun `make build` and commit what it writes.")
    return 1 if failures else 0


@command(argument("notebook", type=Path, help="your notebook: a lesson with your answers"))
def check(args) -> int:
    """Check every exercise in a notebook, as the grader does, and print the reports."""
    from autograder import notebooks
    from autograder.sandbox import examine_notebook

    try:
        nb = notebooks.parse_notebook(args.notebook.read_bytes())
        exercises = notebooks.exercises_in(nb)
    except OSError as error:
        return _refuse(f"{args.notebook}: {error.strerror or error}.")
    except notebooks.NotebookError as error:
        return _refuse(f"{args.notebook}: {error}")
    submission = notebooks.Submission(nb, notebooks.template(nb, exercises))
    for problem in notebooks.problems_of(submission):
        print(problem)
    names = [exercise.name for exercise in exercises]
    results = examine_notebook(notebooks.cells_of(submission), names, jail="none")  # it runs in their kernel, too
    for result in results.values():
        print(f"\n{result.text}")
    total, most = sum(r.points for r in results.values()), sum(r.max_points for r in results.values())
    print(f"\nTotal: {total:g} of {most} points")
    return 0 if all(result.passed for result in results.values()) else 1


@command()
def list_(args) -> int:
    """List the exercises of every lesson with their points, minutes and difficulty."""
    from autograder.build import lessons
    from autograder.exercise import load_registry

    order = {lesson.module: lesson.name for lesson in lessons(Path.cwd())}
    lesson = None
    for entry in sorted(load_registry().values(), key=lambda entry: order.get(entry.lesson, entry.lesson)):
        if entry.lesson != lesson:
            lesson = entry.lesson
            print(f"\n{lesson}")
        points = f"{entry.points} point{'s' * (entry.points != 1)}"
        print(f"  {entry.name:34}{entry.kind:10}{points:>10}{entry.minutes:>5} min   {'●' * entry.difficulty}")
    return 0


LESSON = argument("lesson", metavar="LESSON", help="such as 01_linear")
JAIL = argument(
    "--jail", choices=("bubblewrap", "none"), help="what students' code is locked into; default: as configured"
)


@command(
    LESSON,
    argument("--student", nargs="+", default=[], metavar="NAME", help="only these; default: everybody"),
    argument("--force", action="store_true", help="grade everybody again, not only what has come in since"),
    argument("--json", action="store_true", help="print the result as JSON"),
    argument("--workers", type=int, metavar="N", help="processes that examine; default: one more than there are cores"),
    JAIL,
    argument("--cluster", default="", metavar="ADDRESS", help="a Dask scheduler, such as tcp://host:8786"),
    argument("--audit", default="0%", metavar="SHARE", help="examine this share a second time here, such as 2%%"),
)
def grade(args) -> int:
    """Autograde what was handed in for a lesson, write the feedback, and say how the class stands."""
    from autograder.audit import share

    try:
        audited = share(args.audit)
    except ValueError as error:
        return _refuse(f"--audit: {error}")
    _warm(args)
    from autograder import batch

    return batch.grade(
        args.lesson, students=args.student, force=args.force, as_json=args.json, cores=args.workers,
        cluster=args.cluster, share=audited, **_jail(args),
    )  # fmt: skip


@command(
    LESSON,
    argument("--student", required=True, metavar="NAME", help="whose submission"),
    argument("--why", action="store_true", help="explain every point, with the expected values"),
    JAIL,
)
def regrade(args) -> int:
    """Grade a submission again with its recorded seed, and say what comes out otherwise."""
    _warm(args)
    from autograder import batch

    return batch.regrade(args.lesson, args.student, why=args.why, **_jail(args))


def _jail(args: argparse.Namespace) -> dict[str, str]:
    return {"jail": args.jail} if args.jail else {}


def _warm(args: argparse.Namespace) -> None:
    """Has the jailed processes import what they need while this one imports nbgrader."""
    from autograder import sandbox

    # jsonschema, which comes with nbgrader, would compile a grammar of web addresses: 0.9 seconds, for no notebook.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    if not vars(args).get("cluster"):
        with suppress(sandbox.JailError):  # comes again, once the configuration is known
            sandbox.start(args.jail or "bubblewrap")


@command(JAIL)
def demo(args) -> int:
    """Grade a sample class end to end, in the folder demo/."""
    from autograder.demo import demo as run

    return run(**_jail(args))


def _chosen(names: Sequence[str]):
    """The lessons of these names, or all of them."""
    from autograder.build import lessons

    known = {lesson.name: lesson for lesson in lessons(Path.cwd())}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(
            f"no lesson {', '.join(unknown)} in {Path.cwd() / 'solutions'}; there are {', '.join(known) or 'none'}"
        )
    return [known[name] for name in names] if names else list(known.values())


def _percent(function: Command) -> str:
    """A command's docstring as argparse takes it: a bare % means something there."""
    return (function.__doc__ or "").replace("%", "%%")


def _refuse(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command."""
    parser = argparse.ArgumentParser(
        prog="autograder", description="Builds, checks and grades the lessons of Layer by Layer."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (function, arguments) in COMMANDS.items():
        own = commands.add_parser(name, help=_percent(function), description=_percent(function))
        for names, options in arguments:
            own.add_argument(*names, **options)
        own.set_defaults(run=function)
    args = parser.parse_args(argv)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
