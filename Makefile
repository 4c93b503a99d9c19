# make demo and make test need Python 3.11 or later and make. Both install into .venv: demo what the command needs, test
# the tools as well.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TARGETS := .venv-targets
PEERS := .venv-peers
LOWEST := .venv-lowest
RELEASE := .venv-release
PROGRAMS := .venv-integrations
SOURCES := pyproject.toml setup.py segment_fetch/wire/_scanner.c

# Making an environment takes seconds longer with a pip of its own, so the pip of $(PYTHON) serves it. Some distributions
# ship a Python without pip: there the environment gets one.
PIP = $(shell test -x $(BIN)/pip && echo $(BIN)/python -m pip || echo $(PYTHON) -m pip --python $(BIN)/python)
INSTALL = $(PIP) install --quiet --disable-pip-version-check

.PHONY: install man docs pictures browser demo test check bench bench-peers bench-all lint types contracts workflows format clean test-lowest test-integrations test-ray release-check fuzz-scanner

install: $(VENV)/.installed $(TARGETS)/.installed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "segment-fetch needs Python 3.11 or later; run: make PYTHON=python3.12")'
	$(PYTHON) -m venv $$($(PYTHON) -m pip --version >/dev/null 2>&1 && echo --without-pip) $(VENV)

# Python compiles a module when it is first imported; compiling all of them here would take longer than the demo needs.
$(BIN)/segment-fetch: $(SOURCES) | $(BIN)/python
	$(INSTALL) --no-compile --editable '.[progress]'
	touch $@

$(VENV)/.installed: $(SOURCES) | $(BIN)/python
	$(INSTALL) --editable '.[dev]'
	touch $(BIN)/segment-fetch $@

# The loaders that the Singer tap is tested with need other versions of the project's dependencies.
$(TARGETS)/.installed: tests/integrations/singer/requirements.txt | $(VENV)/.installed
	$(PYTHON) -m venv --without-pip $(TARGETS)
	$(BIN)/python -m pip --python $(TARGETS)/bin/python install --quiet --disable-pip-version-check --requirement $<
	touch $@

demo: $(BIN)/segment-fetch
	$(BIN)/segment-fetch demo --out demo-out

test: check

# The tests of the report's page need a Chromium. As root on Debian it is installed; elsewhere they are skipped, unless
# CI is set.
browser:
	@command -v chromium-headless-shell chromium google-chrome >/dev/null 2>&1 \
	|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq \
	     && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends chromium-headless-shell >/dev/null; } \
	|| echo "no Chromium here: the tests of the report's page will be skipped"

check: lint types contracts workflows browser
	$(BIN)/python -m pytest --numprocesses=auto --cov --cov-report=term

# Slow tests against whole programs, each in an environment of its own: a folder of tests/integrations_slow that has a
# requirements.txt gets one. LibreOffice, which no such file can name, is used where it is installed.
test-integrations: install $(patsubst tests/integrations_slow/%/requirements.txt,$(PROGRAMS)/%/.installed,$(wildcard tests/integrations_slow/*/requirements.txt))
	$(BIN)/python -m pytest -p no:cacheprovider tests/integrations_slow

$(PROGRAMS)/%/.installed: tests/integrations_slow/%/requirements.txt | $(VENV)/.installed
	$(PYTHON) -m venv --without-pip --clear $(@D)
	$(BIN)/python -m pip --python $(@D)/bin/python install --quiet --disable-pip-version-check --requirement $<
	touch $@

# Proves the lower bounds in pyproject.toml: the tests with the lowest version of each dependency. The slow proofs, the
# documentation, the benchmarks and the loaders of the Singer tap are left to `make test`.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -p no:cacheprovider --numprocesses=auto tests --ignore=tests/chaos \
		--ignore=tests/integrations/singer --ignore=tests/integrations_slow --ignore=tests/test_docs.py \
		--ignore=tests/test_benchmarks.py

$(LOWEST)/.installed: $(SOURCES) | $(VENV)/.installed
	$(PYTHON) -m venv --without-pip --clear $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable '.[test]'
	touch $@

# The fleet on Ray, which takes 600 MB: the newest release with a worker that is killed. The oldest: make test-ray OLDEST=1.
RAY := .venv-ray$(if $(OLDEST),-oldest)
test-ray: $(RAY)/.installed
	$(RAY)/bin/python -m pytest -p no:cacheprovider --confcutdir=tests/ray tests/ray

$(RAY)/.installed: $(SOURCES) | $(BIN)/python
	$(PYTHON) -m venv $(RAY)
	$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[arrow]' pytest pytest-asyncio \
		'ray[data]$(if $(OLDEST),==2.40.0)'
	touch $@

# Builds sdist and wheels of HEAD into dist/ and checks them; uploads nothing.
release-check: $(RELEASE)/.installed
	$(RELEASE)/bin/python -m release.check --out dist

$(RELEASE)/.installed: $(SOURCES) | $(BIN)/python
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[release]'
	touch $@

# The scanner under the sanitizers, which end it at the first byte read where none is to be read: its tests, and a million
# damaged pages. The usual build is restored afterwards, whatever happens. Needs gcc.
fuzz-scanner: install
	@trap '$(BIN)/python setup.py --quiet build_ext --inplace --force' EXIT; set -e; \
	CFLAGS='-g -fsanitize=address,undefined -fno-sanitize-recover=undefined' SEGMENT_FETCH_SCANNER=require \
		$(BIN)/python setup.py --quiet build_ext --inplace --force; \
	export PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0; \
	sanitizers="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)"; \
	LD_PRELOAD="$$sanitizers" $(BIN)/python -m pytest -q -p no:cacheprovider tests/wire/test_raw_rows.py; \
	LD_PRELOAD="$$sanitizers" $(BIN)/python -m tests.chaos.fuzz --answers $(or $(ANSWERS),1000000)

bench: install
	$(BIN)/python -m benchmarks.extract

bench-peers: $(PEERS)/.installed
	$(PEERS)/bin/python -m benchmarks.peers

# Writes every table and plot of docs/benchmarks.md anew: twenty-five minutes, on a machine that has nothing else to do.
# A goal that is missed does not end it.
bench-all: install $(PEERS)/.installed
	-$(BIN)/python -m benchmarks.startup --write
	-$(BIN)/python -m benchmarks.fleet --write
	-$(BIN)/python -m benchmarks.extract --write
	-$(PEERS)/bin/python -m benchmarks.peers --write
	-$(BIN)/python -m benchmarks.growth --write

$(PEERS)/.installed: $(SOURCES) benchmarks/peers/requirements.txt
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

# The workflow files cannot run here; what can be checked without the host is.
workflows: install
	$(BIN)/zizmor --offline --no-progress --quiet .
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The manual page, from the parser itself.
man: install
	mkdir -p build
	$(BIN)/argparse-manpage --module segment_fetch.cli.parser --function whole --prog segment-fetch --project-name segment-fetch --format single-commands-section --output build/segment-fetch.1

# The pictures of docs/handle-time.md, from made-up segments.
pictures: install
	$(BIN)/python docs/_handle_time_pictures.py

# The site, in build/site: open build/site/index.html. A warning, such as one of a broken link, ends it.
docs: install
	$(BIN)/sphinx-build -W --keep-going --quiet --builder html docs build/site

clean:
	rm -rf build segment_fetch/wire/*.so $(VENV) $(TARGETS) $(PEERS) $(LOWEST) $(RELEASE) $(PROGRAMS) .venv-ray .venv-ray-oldest dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis demo-out
