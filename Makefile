# make demo   a real experiment on this machine's kernel, end to end        (under 5 minutes, root)
# make test   every check and every test                                    (what continuous integration runs)
# make help   the rest

# The first of these that is new enough; or say which: make PYTHON=/path/to/python3.12 test
ifndef PYTHON
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11; do \
    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
endif

VENV      := .venv
BIN       := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO_DB   := sqlite:///fleetexp-demo.db
SOURCES   := fleetexp agents analysis migrations tests
PYTEST    := $(BIN)/python -m pytest
# Each kind of test that does not belong to the quick suite.
LONG      := slow or ray or lab or postgresql or real_knobs
# Of these, the kinds that do not go beside others: clusters, and this machine's own knobs and pages.
APART     := ray or real_knobs
# Clusters wait more than they work: one for each file that wants one, and beside them the file that kills runs on this
# machine's own kernel. Only what counts this machine's pages has the machine to itself.
CLUSTERS  := -n 2 --dist loadfile -m "ray and not (lab or benchmark)"
ALONE     := -m "real_knobs and not (ray or lab or benchmark)"
# Guests take a core each: two beside each other, the tests of one guest in one process.
GUESTS    := -n 2 --dist loadfile -m "lab and not benchmark"
# The others share it, a process for each core: as many as four. The long ones wait as much as they work: always three.
SHARED    := -n auto --maxprocesses 4 --dist worksteal
LONGER    := -n 3 --dist worksteal
# Half an hour and more by themselves, so not in `make test`: `make mission`.
MISSION   := tests/lab/test_mission.py tests/lab/test_512m_switchback.py tests/lab/test_conform.py \
             tests/lab/test_conform_512m.py tests/lab/test_lab_boot.py tests/lab/test_rivals.py \
             tests/lab/test_traced_run.py
LONGEST   := $(MISSION:%=--ignore %)

export RAY_USAGE_STATS_ENABLED := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests start hundreds of Pythons: each would compile all sources anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup system demo check format quick long cluster mission test coverage bench constraints clean

help:  ## show this
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | column -t -s '|' 2>/dev/null \
	  || grep -E '^[a-z]+:.*##' $(firstword $(MAKEFILE_LIST))

setup: $(INSTALLED)  ## make .venv with everything, once

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer — install one, or: make PYTHON=/path/to/python3" >&2; exit 1; }
	@if ! test -x $(BIN)/python; then echo "making $(VENV) with $$($(PYTHON) -V)"; \
	  $(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { rm -rf $(VENV); \
	    if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
	      echo "this Python lacks venv: installing python3-venv"; \
	      apt-get update -qq >/dev/null; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null; fi; \
	    $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	      echo "error: $(PYTHON) can't make a virtual environment — install python3-venv" >&2; exit 1; }; }; fi
	@echo "installing fleetexp and its dependencies into $(VENV) (once)"
	@$(BIN)/python -m pip install --root-user-action=ignore -c constraints.txt -e '.[dev]' >$(VENV)/install.log 2>&1 \
	  || { tail -n 20 $(VENV)/install.log >&2; echo "error: pip could not install [$(VENV)/install.log] — see above" >&2; \
	       exit 1; }
	@# For axe-core's script alone: the package would bring a browser of its own.
	@$(BIN)/python -m pip install --root-user-action=ignore --no-deps -c constraints.txt axe-playwright-python \
	  >>$(VENV)/install.log 2>&1 || echo "no axe-core: the accessibility tests will skip"
	@touch $@

system:
	@.ci/system-packages

demo: $(INSTALLED)  ## a real experiment on this kernel: 2 MiB huge pages against 4 KiB pages
	@$(BIN)/fleetexp doctor --short
	@echo
	@$(BIN)/fleetexp run configs/thp-2m-demo.yaml --store $(DEMO_DB)

check: $(INSTALLED)  ## format, lint, types, import contracts
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(INSTALLED)  ## put the sources in the house format
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

quick: $(INSTALLED)  ## the quick tests
	$(PYTEST) -q $(SHARED) -m "not ($(LONG) or benchmark)"

long: $(INSTALLED) system  ## the rest: slow, Ray, PostgreSQL, guests of the lab
	$(PYTEST) -q --durations=10 $(LONGER) -m "($(LONG)) and not ($(APART) or lab or benchmark)"
	$(PYTEST) -q --durations=10 $(GUESTS) $(LONGEST)
	$(PYTEST) -q --durations=10 $(CLUSTERS) $(LONGEST)
	$(PYTEST) -q --durations=10 $(ALONE) $(LONGEST)

cluster: $(INSTALLED) system  ## the Ray cluster in network namespaces: what is killed, cut off, never comes back
	$(PYTEST) -v $(CLUSTERS) tests/cluster

mission: $(INSTALLED) system  ## experiments on guests' kernels: 1 GB pages over Ray, one that oopses, 512 MiB pages (FLEETEXP_LAB)
	$(PYTEST) -v $(MISSION)

# In this order: what fails fastest first; the last lines are pytest's summary.
test: system  ## everything: check, quick, long
	@$(MAKE) --no-print-directory check
	@$(MAKE) --no-print-directory quick
	@$(MAKE) --no-print-directory long

coverage: $(INSTALLED) system  ## every test, with line and branch coverage
	$(BIN)/coverage erase
	$(PYTEST) -q -m "not benchmark" --cov --cov-report=term-missing

bench: $(INSTALLED) system  ## the benchmarks: ratios against a named floor
	$(PYTEST) -q -s -m benchmark tests/benchmarks

constraints: $(INSTALLED)  ## write constraints.txt anew from what .venv holds
	@{ head -n 2 constraints.txt; \
	   $(BIN)/python -m pip freeze --all | grep -E '^[A-Za-z0-9._-]+==' | grep -viE '^(pip|setuptools|wheel|fleetexp)=='; \
	 } > constraints.new && mv constraints.new constraints.txt && touch $(INSTALLED)

clean:  ## remove what the tools wrote, the environment and the demo's results too
	rm -rf $(VENV) build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	rm -f .coverage .coverage.* fleetexp-demo.db fleetexp-demo.db-wal fleetexp-demo.db-shm
