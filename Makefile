.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# nbgrader starts other programs (alembic, jupyter) by name
export PATH := $(CURDIR)/$(BIN):$(PATH)
LESSON ?=
NB ?=
ARGS ?=
PIP_ARGS ?=

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv; the first time this takes a few minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

setup: $(READY)  ## create .venv with the locked packages (every other target does this first)

lab: $(READY)  ## open JupyterLab on the course's first page (ARGS=--no-browser prints the address)
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/course/start.ipynb $(ARGS)

test: $(READY)  ## run every test, the notebooks included
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --nbval-lax --nbval-current-env tests solutions $(ARGS)

demo: $(READY)  ## grade a sample class end to end, with nbgrader
	$(BIN)/autograder demo $(ARGS)

build: $(READY)  ## make the solved and the released notebooks from solutions/*.py (LESSON=01_linear for one)
	$(BIN)/autograder build $(LESSON)

check: $(READY)  ## prove that what is committed is what a rebuild gives; lint; types
	$(BIN)/autograder sync
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy autograder course

check-notebook: $(READY)  ## check your own notebook (NB=course/01_linear/01_linear.ipynb)
	$(BIN)/autograder check $(NB)

grade: $(READY)  ## grade the collected submissions of a lesson (LESSON=01_linear)
	$(BIN)/autograder grade $(LESSON)

bench: $(READY)  ## race stock nbgrader on the same class, and time the check of every exercise (ARGS=--growth=2000)
	$(BIN)/pytest -q -s tests/test_speed.py
	$(BIN)/python -m tests.bench $(ARGS)

fuzz: $(READY)  ## damage notebooks for ten minutes and see each get its row
	$(BIN)/python -m tests.fuzz --minutes 10 $(ARGS)

weights: $(READY)  ## train the networks of lesson 11 anew (some five minutes)
	$(BIN)/python -m course.data.make_scene_cnn

pictures: $(READY)  ## photograph the pictures of README.md in JupyterLab
	$(BIN)/python -m tests.pictures

# Torch brings its own CUDA packages, or none: which ones is the platform's business, so the lock leaves them out.
lock:  ## renew requirements.lock from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-header --no-annotate \
		--no-emit-package layer-by-layer --constraint <(echo torch==2.13.0) $(ARGS) pyproject.toml > requirements.all
	(echo "# Made by make lock from pyproject.toml: what CI and graders use."; echo torch==2.13.0; \
		grep -Ev '^(cuda-|nvidia-|torch==|triton)' requirements.all) > requirements.lock
	rm requirements.all

clean:  ## remove what grading, tests and the set-up have made (notebooks stay)
	rm -rf .venv build demo *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -exec rm -rf {} +

.PHONY: help setup lab test demo build check check-notebook grade bench fuzz weights pictures lock clean
