# The commands people type. Each sets up what it needs in an empty clone.

PYTHON ?= python3
BIN := .venv/bin
RUN_TESTS = OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# File by file in their order: xdist would begin with the files of most tests, and those of one long test would come
# last, when one worker has nothing left to do.
ON_TWO_CORES = -n 2 --dist loadfile --no-loadscope-reorder

# without byte code every training process compiles torch and diffusers anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo up test test-slow test-gpu lint audit format assets reproduction clean

demo: .venv/ready  ## align the demo model through the API and show the proof
	$(BIN)/attune demo

up: .venv/ready  ## the API and a worker on the embedded defaults
	$(BIN)/attune up

test: .venv/ready  ## the default test suite
	$(RUN_TESTS) $(ON_TWO_CORES)

test-slow: .venv/ready  ## minutes of CPU: the science, and a short rebuild of the demo model
	$(RUN_TESTS) -m "slow and not gpu" $(ON_TWO_CORES)

test-gpu: .venv/ready
	$(RUN_TESTS) -m gpu

lint: .venv/ready
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright
	$(BIN)/lint-imports

audit: build/audit/ready  ## known vulnerabilities of the pinned packages; asks pypi.org, and fails too where a package is not audited
	@rm -f build/audit/found.txt
	build/audit/bin/pip-audit -r constraints.txt --no-deps --disable-pip --progress-spinner off --timeout 10 --output build/audit/found.txt
	@cat build/audit/found.txt
	@if grep -q 'could not be audited' build/audit/found.txt; then \
		echo "$$(grep -c 'could not be audited' build/audit/found.txt) of the pinned packages are not audited" >&2; exit 2; fi

format: .venv/ready
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

assets: .venv/ready  ## train the demo model again (about twelve minutes of CPU)
	$(BIN)/python -m demo.build --out build/assets

reproduction: .venv/ready  ## the tables of docs/reproduction.md (hours of CPU; goes on where it was stopped)
	$(BIN)/python -m benchmarks.reproduction

# --no-compile halves the time: Python keeps the byte code of what is imported, and of nothing else. constraints.txt is
# the set that the tests ran on.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Attune needs Python 3.11 or newer")'
	@echo "installing into .venv: about 2 GB of packages (torch is the most of it), a minute or two on a fast connection"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	touch $@

# In an environment of its own: what the auditor needs is not what the tests ran on.
build/audit/ready: Makefile constraints.txt
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet --timeout 10 -c constraints.txt pip-audit==2.10.1
	touch $@

clean:
	rm -rf .venv build .attune
