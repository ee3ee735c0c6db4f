# make demo: environment, install, train, test, export and pictures on the built-in demo data
# make test: environment, install, tests
# make docs: environment, install, the pages of docs/ as a site
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# glibc returns every large tensor to the system and faults it in again; keep the memory instead
KEEP_MEMORY := MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184

.PHONY: demo test lint docs clean

demo: $(VENV)/installed
	$(KEEP_MEMORY) $(BIN)/python examples/demo.py --out demo

test: $(VENV)/installed
	$(KEEP_MEMORY) $(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/installed
	$(BIN)/python -m mkdocs build

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo site
