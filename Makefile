# Every target that needs an environment makes it: `.venv`, with the exact versions of `constraints/`.
PYTHON ?= python3
ARGS ?=
# More than two cores, since tests of processes wait for them.
WORKERS ?= 3

VENV := .venv
RUN := $(VENV)/bin/python

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo report-demo lab test test-fast lint format constraints clean gone

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 22
	@echo 'PYTHON=python3.12 picks the interpreter, ARGS="…" passes flags to the demo or to pytest.'

ifneq ($(filter demo report-demo lab test test-fast lint format,$(MAKECMDGOALS)),)

# "3.12 3.12.1-1a2b3c4d": the minor version, then what marks this interpreter used in this folder.
DESCRIBE := import os, sys, zlib; v = sys.version_info; \
  at = getattr(sys, "base_prefix", "") + os.getcwd(); \
  print("%d.%d %d.%d.%d-%08x" % (v[:2] + v[:3] + (zlib.crc32(at.encode()) & 0xFFFFFFFF,)))
describe = $(shell $(1) -c '$(DESCRIBE)' 2>/dev/null)

# Without an explicit PYTHON an environment that was made here and works is kept, whatever its version.
PRESENT := $(call describe,$(RUN))
FOUND := $(if $(filter file,$(origin PYTHON)),$(PRESENT))
ifeq ($(wildcard $(VENV)/.$(word 2,$(FOUND))-venv),)
FOUND := $(call describe,$(PYTHON))
endif
MINOR := $(word 1,$(FOUND))
MARK := $(VENV)/.$(word 2,$(FOUND))

ifeq ($(filter 3.11 3.12 3.13,$(MINOR)),)
$(error gtpo_jax needs Python 3.11, 3.12 or 3.13 and PYTHON=$(PYTHON) is $(or $(MINOR),not there); name another with PYTHON=…)
endif

CONSTRAINTS := constraints/$(if $(filter 3.11,$(MINOR)),py311,py312).txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# With -qq pip prints errors only. The build backend comes first, pinned like the rest, so that no
# isolated build fetches another.
PIP_INSTALL := $(RUN) -m pip install -qq --constraint $(CONSTRAINTS)
INSTALL := $(PIP_INSTALL) --no-build-isolation

$(MARK)-venv: $(if $(PRESENT),,gone)
	@echo "Creating $(VENV) with Python $(MINOR)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) setuptools
	@touch $@

$(MARK)-demo: $(MARK)-venv pyproject.toml $(CONSTRAINTS)
	@echo "Installing gtpo_jax"
	@$(INSTALL) -e .
	@touch $@

$(MARK)-test: $(MARK)-venv pyproject.toml $(CONSTRAINTS)
	@echo "Installing gtpo_jax and what its tests need"
	@$(INSTALL) -e ".[test]"
	@touch $@

$(MARK)-lint: $(MARK)-venv pyproject.toml $(CONSTRAINTS)
	@echo "Installing gtpo_jax and what its checks need"
	@$(INSTALL) -e ".[test,lint]"
	@touch $@

endif

# As it stands the demo has to end better than it began; flags of one's own may shorten it.
demo: $(MARK)-demo  ## train a small model from nothing: cold start, then GTPO
	@$(RUN) -m launch.demo $(or $(ARGS),--require-gain)

report-demo: $(MARK)-demo  ## a page of what the demo did: every trajectory, turn by turn
	@test -d runs/demo/train/trajectories || $(RUN) -m launch.demo $(ARGS)
	@$(RUN) -m launch.report runs/demo

lab: $(MARK)-demo  ## compare methods in small worlds over many seeds: tables and pictures in runs/lab
	@$(RUN) -m launch.lab $(or $(ARGS),suite --seeds 64 --updates 100)

# By file: the programs that one file compiles are compiled once. In their order: long files have few
# tests, and would come last.
test: $(MARK)-test  ## all tests that need no accelerator
	@$(RUN) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not gpu and not long" $(ARGS)

test-fast: $(MARK)-test  ## the tests that take no more than seconds
	@$(RUN) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow and not gpu and not long and not hf" $(ARGS)

lint: $(MARK)-lint  ## ruff and pyright, changing nothing
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m pyright

format: $(MARK)-lint  ## let ruff mend and format
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

constraints:  ## resolve the newest versions anew, for Python 3.11 and 3.12
	@constraints/refresh.sh $(PYTHON311) $(PYTHON312)

clean:  ## remove the environment, caches and build leftovers; `runs/` stays
	@rm -rf $(VENV) .cache .hypothesis build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
