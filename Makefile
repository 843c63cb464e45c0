# The doors. Everything runs in a local environment, .venv; `make demo` and `make test` set it up themselves.
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
NATIVE := $(shell find engine -name '*.cc' -o -name '*.h' -o -name '*.inc' -o -name CMakeLists.txt 2>/dev/null) CMakeLists.txt
CMAKE = $(abspath $(BIN))/cmake
# The C++ tests are built where the module was, from the same objects.
BUILD = $(firstword $(wildcard build/cp*-*))
PAR ?= 2

.PHONY: help setup demo test slow lint format types unit ctest sanitize fuzz-coverage tables docs notebook wheel bench clean

help:
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## make .venv with the pinned tools and the package (editable)

$(VENV)/.tools: requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=..."; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "Python's venv module is missing; on Debian: apt install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) -r requirements-dev.lock
	@touch $@

$(STAMP): $(VENV)/.tools pyproject.toml $(NATIVE)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

demo: $(STAMP)  ## compress a digits CNN, print before/after and the report's path
	$(BIN)/secateur compress examples/digits.yaml -o runs/demo-$$(date +%Y%m%d-%H%M%S)

test: lint types ctest unit sanitize  ## everything CI runs: lint, types, C++ tests, Python tests with coverage, fuzzers

lint: $(STAMP)  ## format and lint checks
	$(BIN)/ruff format --check -q src tests examples benchmarks docs
	$(BIN)/ruff check -q src tests examples benchmarks docs
	$(BIN)/clang-format --dry-run -Werror $(filter %.cc %.h,$(NATIVE))
	@awk 'length > 120 { print FILENAME ":" FNR ": longer than 120 columns"; n = 1 } END { exit n }' $(filter engine/%,$(NATIVE))
	$(BIN)/python docs/tables.py --check

format: $(STAMP)  ## format the code
	$(BIN)/ruff format -q src tests examples benchmarks docs
	$(BIN)/ruff check -q --fix src tests examples benchmarks docs
	$(BIN)/clang-format -i $(filter %.cc %.h,$(NATIVE))

types: $(STAMP)  ## strict type check of src
	$(BIN)/python -m mypy

# In the order of collection: xdist's own puts files of few tests last, and those are often the longest of all.
unit: $(STAMP)  ## Python tests, doctests, coverage of src; without the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest src tests -n $(PAR) --dist loadfile --no-loadscope-reorder -m "not slow" --cov=secateur --cov-report=term:skip-covered --cov-fail-under=85 --durations=15

slow: $(STAMP)  ## the tests marked slow: tutorials and whole trainings, minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -n $(PAR) --dist loadfile --no-loadscope-reorder -m slow

ctest: $(STAMP)  ## the engine's own tests, at every ISA this machine has
	PATH="$(abspath $(BIN)):$$PATH" cmake -S . -B $(BUILD) -DSECATEUR_BUILD_TESTS=ON >/dev/null
	PATH="$(abspath $(BIN)):$$PATH" cmake --build $(BUILD) -j$(PAR)
	PATH="$(abspath $(BIN)):$$PATH" ctest --test-dir $(BUILD) --output-on-failure

sanitize: $(STAMP)  ## readers' fuzzers under AddressSanitizer and UBSan, time-boxed
	PATH="$(abspath $(BIN)):$$PATH" cmake -S . -B build/sanitize -G Ninja -DCMAKE_BUILD_TYPE=Debug -DSECATEUR_BUILD_FUZZERS=ON -DSECATEUR_BUILD_PYTHON=OFF -DSECATEUR_SANITIZE=address,undefined -DSECATEUR_PORTABLE=ON >/dev/null
	PATH="$(abspath $(BIN)):$$PATH" cmake --build build/sanitize -j$(PAR)
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 PATH="$(abspath $(BIN)):$$PATH" ctest --test-dir build/sanitize --output-on-failure -R fuzz

SECONDS_OF_FUZZ ?= 600
fuzz-coverage: $(STAMP)  ## what the model fuzzer reaches of readers and passes, with clang and llvm-cov
	PATH="$(abspath $(BIN)):$$PATH" cmake -S . -B build/coverage -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_CXX_FLAGS="-O1 -fprofile-instr-generate -fcoverage-mapping" -DSECATEUR_BUILD_FUZZERS=ON -DSECATEUR_BUILD_PYTHON=OFF >/dev/null
	PATH="$(abspath $(BIN)):$$PATH" cmake --build build/coverage -j$(PAR) --target plan_onnx_fuzz_test
	cd build/coverage && SECATEUR_FUZZ_SECONDS=$(SECONDS_OF_FUZZ) LLVM_PROFILE_FILE=fuzz.profraw engine/plan_onnx_fuzz_test && llvm-profdata merge fuzz.profraw -o fuzz.profdata
	cd build/coverage && llvm-cov report engine/plan_onnx_fuzz_test -instr-profile=fuzz.profdata $(filter-out %test.cc,$(wildcard $(CURDIR)/engine/graph/*.cc $(CURDIR)/engine/graph/passes/*.cc)) $(CURDIR)/engine/plan/partition.cc

tables: $(STAMP)  ## regenerate the pages that are made from code: docs/methods.md, docs/design/index.md
	$(BIN)/python docs/tables.py

$(VENV)/.docs: requirements-docs.lock $(STAMP)
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-docs.lock
	@touch $@

docs: $(VENV)/.docs  ## the documentation as a site in build/site; a link that leads nowhere fails
	$(BIN)/python docs/tables.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo build/site/index.html

notebook: $(VENV)/.docs  ## run the tutorial's notebook again and keep what comes out
	$(BIN)/python docs/notebook.py

wheel: $(STAMP)  ## build a wheel into dist/
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pip wheel -q --disable-pip-version-check --no-build-isolation --no-deps -w dist .

bench: $(STAMP)  ## speed of the engine's kernels on real layer shapes, beside other runtimes
	$(BIN)/python benchmarks/speed/run.py --what layers

clean:  ## remove builds and caches (not .venv)
	rm -rf build dist .mypy_cache .ruff_cache .hypothesis .coverage
