# Everything sets itself up in .venv; the first call of a target installs what it needs.
#   make demo [CLIP=path]   the main job on one clip        make test    the test suite
#   make lint types docs    what else CI looks at           make wheel   build, check, install into an empty venv, try it
#   make notebooks          run them again, in place        make figures the pictures of the docs
#   make ray                the corpus example on Ray Data, which `make test` leaves out where it is not installed
#   make coverage           lines and branches that no test reaches
#   make check              all that CI runs                make clean   remove what was built
#   make release            checks, builds, and says what is left to do: it uploads nothing

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
OUT ?= demo.png

.PHONY: demo test coverage ray lint types docs notebooks figures wheel check release clean

demo: $(VENV)/.plot
	@$(BIN)/python examples/demo.py $(if $(CLIP),"$(CLIP)") --out "$(OUT)"

# Two processes of one thread each: more threads than cores would spend their time waiting for each other.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# Which lines and branches of the package no test reaches; slower than `make test` by a third.
coverage: $(VENV)/.dev
	$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -q -n 2 --dist worksteal
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=95

ray: $(VENV)/.dev $(VENV)/.ray
	$(BIN)/python -m pytest tests/test_corpus.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

notebooks: $(VENV)/.dev
	$(BIN)/python notebooks/run.py

figures: $(VENV)/.plot
	$(BIN)/python docs/figures.py

# The wheel is built from the sdist, so that both are known to be whole.
wheel: $(VENV)/.dev
	rm -rf dist build/empty
	$(BIN)/python -m build --outdir dist . > /dev/null
	$(BIN)/twine check --strict dist/*
	$(BIN)/python .ci/check_dist.py dist
	$(PYTHON) -m venv build/empty
	build/empty/bin/python -m pip --disable-pip-version-check --quiet install -c constraints.txt dist/*.whl
	cd build/empty && bin/python -W error ../../.ci/smoke.py
	rm -rf build/empty

check: lint types docs wheel test

release: $(VENV)/.dev
	@$(BIN)/python .ci/release.py
	@$(MAKE) --no-print-directory check
	@$(BIN)/python .ci/release.py --ready

clean:
	rm -rf dist build site .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# One stamp per extra: `make demo` need not wait for the tools of `make test`.
$(VENV)/.%: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "setting up $(VENV) with the extra '$*' (the first time takes a few minutes)"
	@$(PIP) install --constraint constraints.txt --editable ".[$*]"
	@touch $@
