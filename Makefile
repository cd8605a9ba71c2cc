# Each target does all of its own set-up: a virtual environment in the checkout, Python packages, test peers.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
ROUNDS ?= 200
MINUTES ?= 30
MESSAGES ?= 100000
# Bytecode is kept, as an installed bridge keeps it: each process that a test starts would compile all of its modules anew.
unexport PYTHONDONTWRITEBYTECODE

LOCKS := $(wildcard locks/*.txt)

.PHONY: help demo test test-long fuzz faults faults-selftest soak bench lint types layers unit coverage peers lock sbom audit clean format

help:
	@echo "make demo       three simulated EMSs, a stand-in for SMP and the bridge, live in the terminal (Ctrl-C ends it)"
	@echo "make test       everything a change must pass: lint, types, layers, tests (needs Debian's mosquitto, libmodbus5, libedit2, nodejs, npm, postgresql-15, softhsm2, systemd, chromium, chromium-driver)"
	@echo "make test-long  the long tests: fuzz, soak, timing"
	@echo "make fuzz       MESSAGES=$(MESSAGES) mutated messages at the end point and a twentieth of it as examples of each property of the gate, from a seed that is printed (SEED=N draws the same again)"
	@echo "make faults     every fault injected at length, and the table of what became of each record (ROUNDS=$(ROUNDS); about half an hour)"
	@echo "make faults-selftest  plants defects one at a time: each must turn that table red"
	@echo "make soak       all faults at random for MINUTES=$(MINUTES), with a seed that is printed (SEED=N draws the same again)"
	@echo "make bench      latency, rate, CPU and memory beside two reference scripts in the same run (ARGS=\"--only mqtt --runs 3 --seconds 10\")"
	@echo "make coverage   the tests with line and branch coverage"
	@echo "make lock       choose the newest packages that pyproject.toml lets in, with the hashes of their files, into locks/ (ARGS=--keep: only what pyproject.toml changed)"
	@echo "make sbom       a software bill of materials of the service (CycloneDX) in dist/"
	@echo "make audit      known vulnerabilities of everything that is locked (needs the network; 1: there are some, 3: nobody answered)"
	@echo "make format     let the formatter tidy the code"

$(VENV)/.demo: pyproject.toml tests/setup/venv.sh $(LOCKS)
	@sh tests/setup/venv.sh $(PYTHON) $(VENV) demo
	@touch $@

$(VENV)/.dev: pyproject.toml tests/setup/venv.sh $(LOCKS)
	@sh tests/setup/venv.sh $(PYTHON) $(VENV) dev
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	@$(BIN)/smp-bridge demo $(ARGS)

peers: $(VENV)/.dev
	@sh tests/setup/peers.sh

lint: $(VENV)/.dev
	$(BIN)/ruff check bridge adapters tests
	$(BIN)/ruff format --check bridge adapters tests

types: $(VENV)/.dev
	$(BIN)/mypy

layers: $(VENV)/.dev
	$(BIN)/lint-imports

unit: peers
	sh tests/setup/scratch.sh $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not long" $(ARGS)

test: lint types layers unit

test-long: peers
	$(BIN)/pytest -m long $(ARGS)
	$(BIN)/pytest -m "hypothesis and not long" --hypothesis-profile drawn

fuzz: $(VENV)/.dev
	$(BIN)/pytest tests/conformance/test_row_40.py tests/conformance/test_row_40_properties.py -m long -s --fuzz-messages $(MESSAGES) $(if $(SEED),--fuzz-seed $(SEED)) $(ARGS)

faults: peers
	$(BIN)/pytest tests/faults --fault-rounds $(ROUNDS) $(ARGS)

faults-selftest: peers
	$(BIN)/python tests/support/faults_selftest.py

soak: peers
	$(BIN)/pytest tests/long/test_soak_processes.py -s --soak-minutes $(MINUTES) $(if $(SEED),--fault-seed $(SEED)) $(ARGS)

bench: peers
	$(BIN)/python tests/bench/bench.py $(ARGS)

coverage: peers
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not long" $(ARGS)
	$(BIN)/coverage combine
	$(BIN)/coverage report

# The tool of the lock lives in an environment of its own, so that a lock that no longer installs can be renewed.
lock:
	@[ -x .venv-lock/bin/uv ] || { $(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9' 'packaging>=25'; }
	@.venv-lock/bin/python tests/setup/lock.py $(ARGS)

sbom: $(VENV)/.dev
	@$(BIN)/python tests/setup/sbom.py $(ARGS)

audit: $(VENV)/.dev
	@$(BIN)/python tests/setup/audit.py $(ARGS)

format: $(VENV)/.dev
	$(BIN)/ruff format bridge adapters tests
	$(BIN)/ruff check --fix bridge adapters tests

clean:
	rm -rf $(VENV) .venv-lock .mypy_cache .ruff_cache .pytest_cache .import_linter_cache tests/peers/*/node_modules screenshots
