# make demo: environment, install, train, test, export and pictures on the built-in demo data
# make check: environment, install, the fast tests
# make test: environment, install, all tests
# make lint: environment, install, ruff and mypy
# make package: environment, install, dist/ with the wheel and the sources
# make docs: environment, install, the pages of docs/ as a site
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo check test lint package docs clean

demo: $(VENV)/installed
	$(BIN)/python examples/demo.py --out demo

check: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

package: $(VENV)/installed
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

docs: $(VENV)/installed
	$(BIN)/python -m mkdocs build

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo dist site
