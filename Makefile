# make demo and make test need nothing but Python 3.11+ and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TARGETS := .venv-targets
PEERS := .venv-peers

.PHONY: install demo test check bench bench-peers bench-all lint types contracts format clean

install: $(VENV)/.installed $(TARGETS)/.installed

$(VENV)/.installed: pyproject.toml setup.py segment_fetch/wire/_scanner.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "segment-fetch needs Python 3.11 or later; run: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# What the Singer tap is tested with needs other versions of what the project needs.
$(TARGETS)/.installed: tests/integrations/singer/requirements.txt | $(VENV)/.installed
	$(PYTHON) -m venv --without-pip $(TARGETS)
	$(BIN)/python -m pip --python $(TARGETS)/bin/python install --quiet --disable-pip-version-check --requirement $<
	touch $@

demo: $(VENV)/.installed
	$(BIN)/segment-fetch demo --out demo-out

test: check

check: lint types contracts
	$(BIN)/python -m pytest --numprocesses=auto --cov --cov-report=term

bench: install
	$(BIN)/python -m benchmarks.extract

bench-peers: $(PEERS)/.installed
	$(PEERS)/bin/python -m benchmarks.peers

# Writes every table and plot of docs/benchmarks.md anew: twenty-five minutes, on a machine that has nothing else to do.
# A goal that is missed does not end it.
bench-all: install $(PEERS)/.installed
	-$(BIN)/python -m benchmarks.startup --write
	-$(BIN)/python -m benchmarks.extract --write
	-$(PEERS)/bin/python -m benchmarks.peers --write
	-$(BIN)/python -m benchmarks.growth --write

$(PEERS)/.installed: pyproject.toml setup.py segment_fetch/wire/_scanner.c benchmarks/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --editable . -r benchmarks/peers/requirements.txt
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build segment_fetch/wire/*.so $(VENV) $(TARGETS) $(PEERS) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis demo-out
