# `make bench` and `make test` work in a fresh clone; everything lives in .venv.
PYTHON ?= python3
PIP = .venv/bin/python -m pip --disable-pip-version-check -q
SOURCES = $(shell find csrc -type f 2>/dev/null) setup.py CMakeLists.txt constraints.txt pyproject.toml

# Tests run in this many processes, each with one thread (tests/conftest.py).
JOBS ?= 2
PYTEST = .venv/bin/python -m pytest
PARALLEL = -n $(JOBS) --dist worksteal -p no:benchmark

.PHONY: bench test test-fast test-long lint clean

bench: .venv/ready
	.venv/bin/ecamp bench --tasks cls,seg,det --run runs/bench

test: .venv/ready
	$(PYTEST) $(PARALLEL) -m "not long"

# Without what takes a second or more.
test-fast: .venv/ready
	$(PYTEST) $(PARALLEL) -m "not slow and not long"

# The kernels built and run under sanitizers.
test-long: .venv/ready
	$(PYTEST) -m long

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/typos
	.venv/bin/validate-pyproject pyproject.toml plugins/*/pyproject.toml

# Build tools and torch first: the extension is built against the torch that it will run with.
.venv/ready: $(SOURCES)
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	$(PIP) install -c constraints.txt "setuptools>=77" cmake ninja pybind11 torch torchvision
	$(PIP) install -c constraints.txt --no-build-isolation -e ".[dev]"
	touch $@

clean:
	rm -rf .venv build runs ecamp/_C.so
