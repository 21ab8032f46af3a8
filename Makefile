# make demo    installs, trains on the built-in data set, shows recall and matches
# make test    installs, then lint, the quick tests, and types beside them
# make test-all  the slow ones too: many processes, whole trainings, benchmarks
# make package   builds wheel and sdist, installs each away from here, trains there
#
#   PYTHON=python3.12   another Python (3.11 or 3.12)
#   TORCH=1             installs PyTorch too, for the live comparison with it
#   LEAVE_OUT="once or first_python"   test-all runs no tests with these markers, no lint, no types: for a second Python
#   JAX=cpu|cuda12|cuda13   which JAX to install (default: cuda12 where an NVIDIA driver is seen)

PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ifeq ($(filter $(VERSION),3.11 3.12),)
$(error PYTHON=$(PYTHON) is Python "$(VERSION)"; expected 3.11 or 3.12, for example: make demo PYTHON=python3.12)
endif

JAX ?= $(if $(wildcard /proc/driver/nvidia/version /dev/nvidiactl),cuda12,cpu)
EMPTY :=
SPACE := $(EMPTY) $(EMPTY)
COMMA := ,
EXTRAS := $(subst $(SPACE),$(COMMA),$(strip dev $(filter cuda12 cuda13,$(JAX)) $(if $(TORCH),torch)))
VENV := .venv-$(VERSION)-$(subst $(COMMA),-,$(EXTRAS))
BIN := $(VENV)/bin
DEMO := runs/demo

# Packages are compiled when they are first imported, not when they are installed: Python must keep what it compiles.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all package lint style install clean

demo: install
	rm -rf $(DEMO)
	$(BIN)/python -m mhcvse_jax.main --config configs/demo.py --workdir $(DEMO)
	@echo "to search its pictures in the browser:"
	@echo "  $(BIN)/mhcvse index --workdir $(DEMO) --out $(DEMO)/index"
	@echo "  $(BIN)/mhcvse serve $(DEMO)/index"

PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal --durations=10
TYPES := $(BIN)/basedpyright --pythonpath $(BIN)/python

# Runs a command with the types checked beside it, shows what they are found to be after it, and fails if either does.
define beside_types
$(TYPES) >$(VENV)/types.txt & types=$$!; $(1); code=$$?; wait $$types || code=$$?; cat $(VENV)/types.txt; exit $$code
endef

test: style
	$(call beside_types,$(PYTEST) -m "not slow and not once")

test-all: $(if $(LEAVE_OUT),install,style)
	$(if $(LEAVE_OUT),$(PYTEST) -m "not ($(LEAVE_OUT))",$(call beside_types,$(PYTEST)))

package: install
	.ci/package $(BIN)/python

lint: style
	$(TYPES)

style: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv --upgrade-deps $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile --editable ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf .venv-* runs build *.egg-info
