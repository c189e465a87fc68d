# Everything runs in a virtual environment of its own, made from PYTHON on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# In two processes, each with tests that follow one another and share what is compiled.
TWO := -n 2 --dist worksteal
# Some of the tests alone: make test TESTS=tests/examples
TESTS ?=

.PHONY: demo test pytest test-thorough test-library test-slow lint format docs notebooks dist \
	test-dist clean

# Five optimizers on handwritten digits: a table, and quickstart.png.
demo: $(VENV)/examples
	$(BIN)/python -m examples.quickstart

# Lint and types beside the quick tests.
test: $(VENV)/tests
	$(MAKE) --no-print-directory --jobs=2 lint pytest

pytest: $(VENV)/tests
	$(BIN)/python -m pytest $(TWO) $(TESTS)

# What they leave out: further cases, and whole programs.
test-thorough: $(VENV)/tests
	$(BIN)/python -m pytest $(TWO) -m "thorough and not slow" $(TESTS)

# All of the library's, quick and thorough.
test-library: $(VENV)/tests-library
	$(BIN)/python -m pytest $(TWO) -m "not slow" tests/library lookbehind_optax

# Everything, with ten times the random examples, and those that take minutes.
test-slow: $(VENV)/tests
	$(BIN)/python -m pytest $(TWO) -m "not accelerator" --hypothesis-profile=thorough $(TESTS)

lint: $(VENV)/tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/tests
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, in build/site. It needs no network; a warning is an error.
docs: $(VENV)/docs
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going docs build/site
	$(BIN)/python docs/links.py build/site

# The tutorials as notebooks, for Jupyter and Colab.
notebooks: $(VENV)/tests
	$(BIN)/python docs/notebooks.py

# A wheel and an sdist, with metadata that PyPI accepts.
dist: $(VENV)/release
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

# The library's tests with each of them, installed into an empty environment. A few
# files: make test-dist TESTS="tests/library/test_public.py"
test-dist: dist
	for file in dist/*; do PYTHON=$(BIN)/python .ci/test-dist $$file $(TESTS) || exit; done

clean:
	rm -rf $(VENV) build dist docs/reference/generated *.egg-info .pytest_cache .ruff_cache .hypothesis

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; $(PYTHON) is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/release: $(VENV)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "build>=1.2" "twine>=6.1"
	@touch $@

# One stamp for each extra that has been installed.
$(VENV)/docs $(VENV)/examples $(VENV)/tests $(VENV)/tests-library: $(VENV)/%: $(VENV)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@
