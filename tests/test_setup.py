"""Versions stand in pyproject.toml; what repeats them must agree. And imports run one way."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = {r.name: r for r in map(Requirement, [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["lab"]])}
LOCKED = [Requirement(line) for line in (ROOT / "requirements.lock").read_text().splitlines() if line[0] != "#"]

# Each module imports from those before it only.
LAYERS = (
    "builders wire play child exercise cases lender compare diagnose report kept grade jail sandbox workers audit "
    "cluster notebooks release build start gradebook feedback nbgrader batch demo cli"
).split()


def conda():
    lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    requirements = [Requirement(line.replace("pytorch", "torch")) for line in lines if isinstance(line, str)]
    return {requirement.name: requirement for requirement in requirements}


def test_environment_yml_states_the_bounds_of_pyproject():
    stated = conda()
    assert str(stated.pop("python").specifier) == str(Requirement(f"python{PROJECT['requires-python']}").specifier)
    stated.pop("pip")
    for name, requirement in stated.items():
        assert requirement.specifier == DECLARED[name].specifier, name
    assert set(stated) >= {Requirement(line).name for line in PROJECT["dependencies"]}


def test_the_lock_file_lies_within_the_bounds():
    locked = {}
    for requirement in LOCKED:
        locked.setdefault(requirement.name, []).append(requirement)
    for name, requirement in DECLARED.items():
        for pin in locked[name]:
            (version,) = [s.version for s in pin.specifier]
            assert requirement.specifier.contains(version), f"{pin} is outside {requirement}"
    assert [str(pin) for pin in locked["torch"]] == ["torch==2.13.0"]


def test_the_declared_ranges_contain_colabs_versions():
    colab = {
        "torch": "2.11.0",
        "numpy": "2.1.3",
        "matplotlib": "3.10.0",
        "ipywidgets": "7.7.1",
        "scikit-learn": "1.6.1",
    }
    for name, version in colab.items():
        assert DECLARED[name].specifier.contains(version), name
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains("3.13.5")


def imported(path: Path) -> set[str]:
    """The top-level names and the autograder modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path) if name.startswith("autograder.")} & {*LAYERS, "exercises"}


def test_every_module_has_its_place():
    modules = {path.stem for path in (ROOT / "autograder").glob("*.py")} - {"__init__"}
    assert modules == set(LAYERS)


@pytest.mark.parametrize("module", LAYERS)
def test_imports_run_one_way(module):
    upward = ours(ROOT / "autograder" / f"{module}.py") - set(LAYERS[: LAYERS.index(module)])
    assert not upward, f"autograder/{module}.py imports upward: {sorted(upward)}"


def test_declarations_import_the_exercise_module_only():
    for path in (ROOT / "autograder/exercises").glob("*.py"):
        assert ours(path) <= {"exercise"}, path.name


def test_scripts_import_nothing_of_ours():
    for path in (ROOT / "autograder/scripts").glob("*.py"):
        assert not ours(path), path.name


def test_what_runs_beside_students_code_knows_no_reference():
    for module in ("play", "child", "wire", "builders"):
        assert ours(ROOT / "autograder" / f"{module}.py") <= {"play", "wire", "builders"}


def test_course_and_autograder_do_not_import_each_other():
    for path in (ROOT / "course").rglob("*.py"):
        assert not any(name.split(".")[0] == "autograder" for name in imported(path)), path
    for path in (ROOT / "autograder").rglob("*.py"):
        assert not any(name.split(".")[0] == "course" for name in imported(path)), path


def test_the_top_level_holds_what_the_readme_names():
    expected = {
        "course", "solutions", "autograder", "tests", "environment.yml", "README.md", "CONTRIBUTING.md", "Makefile",
        "pyproject.toml", "requirements.lock", "LICENSE", "nbgrader_config.py",
    }  # fmt: skip
    tracked = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    ignored = {"build", "demo", "dist", "submitted", "autograded", "feedback", "gradebook.db", "exchange"}
    extra = {name for name in tracked - expected - ignored if not re.search(r"\.egg-info$|^gradebook\.db", name)}
    assert not extra
    assert expected <= tracked


def test_python_is_one_of_those_declared():
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(
        ".".join(map(str, sys.version_info[:3]))
    )
