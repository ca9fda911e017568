# One environment (.venv) for every target, made from requirements.txt on first use.
# PYTHON: the interpreter to make it with; the first of the list that is 3.11 or newer is taken.
PYTHON ?= python3 python3.12 python3.11 python3.13 python
PYTEST_ARGS ?=
TORTURE_ARGS ?=

# The torch of PyPI for Linux brings 3 GB of CUDA's libraries and does not load without them. The
# lock leaves both out; a build for CPUs (200 MB) is taken from where pip looks, or else by uv.
TORCH := 2.13.0
OF_CUDA := ^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z-]+)==

EXTRAS := ray hf browser tpu-aot
VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
LOCK_ARGS := --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate
PIP_INSTALL := $(PY) -m pip install --quiet --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help quickstart test slow test-slurm test-ray test-hf test-browser tpu-aot test-aot torture bench results docs-figures lint format types env lock clean

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

quickstart: $(INSTALLED) ## install once, train the small grid, fit the laws, draw the figures
	@$(PY) launch.py run quickstart

test: $(INSTALLED) ## run the tests, without the slow ones
	$(PY) -m pytest --numprocesses auto --dist loadfile $(PYTEST_ARGS)

slow: $(INSTALLED) ## run the slow tests
	$(PY) -m pytest -m slow $(PYTEST_ARGS)

test-slurm: $(INSTALLED) ## test the SLURM executor on a SLURM made for it (Debian, as root)
	tests/slurm/run.sh $(PY) -m pytest -m slow -v -n0 tests/slurm $(PYTEST_ARGS)

test-ray: $(VENV)/.installed-ray ## install Ray, test the Ray executor on a cluster of this machine
	$(PY) -m pytest -m slow -n0 tests/experiments/test_ray.py $(PYTEST_ARGS)

test-hf: $(VENV)/.installed-hf ## install transformers and torch, compare GPT-2's logits with theirs
	$(PY) -m pytest -m slow -n0 tests/model/test_transformers.py $(PYTEST_ARGS)

test-browser: $(VENV)/.installed-browser ## drive the report in Chromium (installs it on Debian, as root)
	@tests/browser/chromium.sh
	$(PY) -m pytest -m slow -n0 tests/browser $(PYTEST_ARGS)

tpu-aot: $(VENV)/.installed-tpu-aot ## install the TPU's compiler, for `launch.py aot` (no TPU needed)

test-aot: $(VENV)/.installed-tpu-aot ## install the TPU's compiler, compile small steps for real slices
	$(PY) -m pytest -m slow -n0 tests/experiments/test_aot.py $(PYTEST_ARGS)

bench: $(INSTALLED) ## run the benchmarks
	@set -e; for script in benchmarks/bench_*.py; do echo "$$script"; $(PY) "$$script"; done

torture: $(INSTALLED) ## kill, starve and damage small sweeps for half an hour; prints a table
	@PYTHONPATH=.:tests $(PY) -m torture $(TORTURE_ARGS)

results: $(INSTALLED) ## draw the pages of docs/results again from the kept records
	@$(PY) launch.py results

docs-figures: $(INSTALLED) ## draw the figures of docs/analysis.md (DATA=folder of the published points)
	$(PY) docs/draw_analysis.py $(if $(DATA),--data "$(DATA)")

lint: $(INSTALLED) ## check format and lint rules
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

format: $(INSTALLED) ## rewrite the files in the project's format
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

types: $(INSTALLED) ## check types
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(PY) -m pyright --pythonpath $(PY)

env: $(INSTALLED) ## make .venv with the pinned packages

lock: $(INSTALLED) ## pin anew: requirements*.txt from pyproject.toml, for every Python from 3.11
	$(VENV)/bin/uv pip compile $(LOCK_ARGS) --extra dev --output-file requirements.txt pyproject.toml
	@set -e; for extra in $(EXTRAS); do \
		$(VENV)/bin/uv pip compile $(LOCK_ARGS) --extra $$extra --constraint requirements.txt \
			--output-file requirements-$$extra.txt pyproject.toml; done
	awk '/^[a-z]/ { is_kept = !/$(OF_CUDA)/ } is_kept' requirements-hf.txt > $(VENV)/requirements-hf.txt
	mv $(VENV)/requirements-hf.txt requirements-hf.txt

clean: ## remove .venv and caches; results in out/ stay
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The mark of a finished installation is removed first and set last, so that an interrupted one
# starts again from an empty environment.
$(INSTALLED): requirements.txt pyproject.toml
	@if [ -f $@ ]; then rm $@; else \
		for python in $(PYTHON); do \
			if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
				2>/dev/null; then found=$$python; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "No Python 3.11 or newer with venv among: $(PYTHON). Install one, or give its path: make PYTHON=PATH" >&2; \
			exit 2; \
		fi; \
		echo "Making $(VENV) with $$("$$found" --version) ($$found)"; \
		"$$found" -m venv --clear $(VENV); \
	fi
	@echo "Installing the pinned packages into $(VENV) (once, a few minutes)"
	@$(PIP_INSTALL) --require-hashes --requirement requirements.txt
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# An extra that only some tests need has a lock of its own beside the common one.
$(VENV)/.installed-%: requirements-%.txt $(INSTALLED)
	@$(PIP_INSTALL) --require-hashes --requirement $<
	@touch $@

$(VENV)/.installed-hf: requirements-hf.txt $(INSTALLED)
	@$(PIP_INSTALL) --require-hashes --requirement $<
	@$(PIP_INSTALL) --no-deps torch==$(TORCH)+cpu 2> $(VENV)/torch.log \
		|| $(VENV)/bin/uv pip install --quiet --python $(PY) --no-deps --torch-backend cpu torch==$(TORCH) \
		|| { cat $(VENV)/torch.log >&2; exit 1; }
	@touch $@
