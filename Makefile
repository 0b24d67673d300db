# Every habit of the project is one verb; each sets up .venv by itself when it is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo hyperparameters test test-slow check format bench fuzz docs docs-serve notebooks clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    a program, a backdoor and a training told from weights, in seconds; a zoo and a meta-model in minutes"
	@echo "make test    the default test suite"
	@echo "make check   format, lint, types, floors, tests: exactly what CI runs"
	@echo "also: hyperparameters setup format test-slow bench fuzz docs docs-serve notebooks clean"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "weightspace needs Python 3.11 or newer; this is " + sys.version.split()[0] + ": run make PYTHON=python3.11 setup")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: setup
	$(BIN)/weightspace demo --out demo

hyperparameters: setup
	$(BIN)/weightspace zoo make eilertsen-varied $(if $(IMAGES),--images $(IMAGES)) $(if $(DATA),--data $(DATA))
	$(BIN)/weightspace compare zoos/eilertsen-varied --methods all

test: setup
	$(BIN)/python -m pytest -n auto --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest -m slow

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(MAKE) test

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python -m benchmarks

fuzz: setup
	$(BIN)/python -m fuzz $(if $(SECONDS),--seconds $(SECONDS)) $(if $(ONLY),--only $(ONLY)) $(if $(SEED),--seed $(SEED))

docs: setup
	$(BIN)/python docs/list_files.py
	$(BIN)/python -m pytest tests/test_docs.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html"

docs-serve: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

notebooks: setup
	$(BIN)/python docs/run_notebooks.py

clean:
	rm -rf .venv demo site build dist .pytest_cache .ruff_cache
