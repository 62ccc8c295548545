# `make` needs Python 3.11 or newer and nothing else: the first target that needs packages puts them into .venv,
# and every later one reuses them until pyproject.toml or constraints.txt changes.

# Another interpreter: make PYTHON=/path/to/python3.12 (a .venv that exists keeps its own; remove it to change).
PYTHON ?= $(shell command -v python3.11 || command -v python3 || command -v python)
# `make run` needs the library and its compiled kernels; every other target the notebooks', the exports' and the cluster's
# packages too, for the tests use them, and adds them to what is there. With Core ML: make EXTRAS=all run
EXTRAS ?= $(if $(filter-out run,$(MAKECMDGOALS)),dev,fast)
RECIPE ?= lite
# Processes that share the tests: each has one thread, and up to 3 GB.
PROCESSES ?= 2
ARGS ?=

VENV := .venv
ifeq ($(OS),Windows_NT)
PY := $(VENV)/Scripts/python.exe
else
PY := $(VENV)/bin/python
endif
STAMP := $(VENV)/.ready
WANTED := $(EXTRAS) in $(CURDIR)
# The stamp must be readable by the environment's own interpreter and name this folder: so a .venv whose Python went
# away, or that was moved or copied along with the folder, is set up again. Where EXTRAS is not given, more than is
# needed is good too.
READY := $(shell $(PY) -c "print(open('$(STAMP)').read(), end='')" 2>/dev/null)
GOOD := $(EXTRAS) $(if $(filter file,$(origin EXTRAS)),dev all)
ifeq (,$(findstring |$(READY)|,$(foreach extras,$(GOOD),|$(extras) in $(CURDIR)|)))
STALE := stale
endif

# Without this, two processes that share the cores slow torch down 20 to 40 times: idle OpenMP threads spin.
export OMP_WAIT_POLICY := passive
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup run test soak notebooks clean-notebooks book publish playground lab lint bench stale

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## make or repair .venv (every other target does it when needed)

run: $(STAMP) ## the whole way at recipe lite, into runs/lite/report.html (RECIPE=tiny for a minute's version)
	$(PY) -m mobileclip2_lite run --recipe $(RECIPE) $(ARGS)

# A file's tests stay together in one process, because they share what is slow to make.
test: $(STAMP) ## all tests, the notebooks at recipe tiny included (ARGS="-k pairs" for some; PROCESSES=0 for one process)
	$(PY) -m pytest -n $(PROCESSES) --dist loadfile $(ARGS)

soak: $(STAMP) ## a quarter of an hour of random faults, then the paper's recipe with whole ViT-L/14s (8 GB of memory)
	$(PY) -m pytest -m soak tests/work tests/seams $(ARGS)

notebooks: $(STAMP) ## run all notebooks at recipe lite, into runs/notebooks/
	@mkdir -p runs/notebooks
	@for file in notebooks/*.ipynb; do \
	  echo "$$file" && $(PY) -m papermill --log-level WARNING --cwd notebooks -p recipe $(RECIPE) \
	    "$$file" "runs/$$file" || exit 1; \
	done

clean-notebooks: $(STAMP) ## the notebooks without prose and outputs, to work through a second time, into runs/bare/
	$(PY) -m mobileclip2_lite.notebook.copies notebooks runs/bare

book: $(STAMP) ## the course as HTML pages with contents, into runs/book/index.html
	$(PY) -m mobileclip2_lite.notebook.book . runs/book

# For authors: the outputs that readers see on the web, without papermill's cells, times and widget states.
publish: $(STAMP) ## run all notebooks at recipe lite and keep the outputs in notebooks/
	$(PY) -m nbconvert --to notebook --execute --inplace --log-level WARN --ExecutePreprocessor.record_timing=False \
	  --ExecutePreprocessor.store_widget_state=False notebooks/*.ipynb
	$(PY) -m mobileclip2_lite.notebook.published notebooks

# The page's runtime comes from npm, which nothing else here needs: two files of 14 MB, checked by npm.
ORT_WEB := onnxruntime-web-1.30.0
MODEL ?= $(if $(wildcard runs/lite/student-seed0/manifest.json),runs/lite/student-seed0,lite-teacher-conv)
playground: $(STAMP) ## the student in your browser: draw, name, search (MODEL=... ARGS="--album FOLDER"); needs npm once
	@mkdir -p runs/npm
	@test -f runs/npm/package/dist/ort.wasm.bundle.min.mjs || { \
	  command -v npm > /dev/null || { echo "npm is needed to fetch onnxruntime-web: install Node.js"; exit 1; }; \
	  cd runs/npm && npm pack --silent onnxruntime-web@$(ORT_WEB:onnxruntime-web-%=%) && \
	  tar -xzf $(ORT_WEB).tgz package/dist/ort.wasm.bundle.min.mjs package/dist/ort-wasm-simd-threaded.wasm; }
	$(PY) -m mobileclip2_lite playground $(MODEL) runs/playground --serve $(ARGS)

lab: $(STAMP) ## open JupyterLab on the notebooks
	$(PY) -m jupyter lab notebooks

lint: $(STAMP) ## check style and form with ruff
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

bench: $(STAMP) ## run the programs in benchmarks/ and print their tables
	@for file in $(filter-out %/harness.py %/inputs.py,$(wildcard benchmarks/*.py)); do echo "$$file" && $(PY) "$$file" $(ARGS) || exit 1; done

# A set-up that was killed leaves its mark behind, and the next one starts from an empty folder: a package that is half
# on disk can look complete to pip. pip compiles one file after another, which takes longer than to download and unpack
# them all; what cannot be compiled are templates in the syntax of other versions (.venv/compiled.log).
$(STAMP): pyproject.toml constraints.txt $(STALE)
	@test -n "$(PYTHON)" || { echo "no Python found: install Python 3.11, or say make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  f"{sys.executable} is Python {sys.version.split()[0]}; 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	@rm -f $(STAMP)
	@if [ -e $(VENV)/.unfinished ] || ! $(PY) -c 'import pip' 2>/dev/null; then rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(VENV)/.unfinished
	@$(PY) -c 'import pip' 2>/dev/null || { echo "making $(VENV)" && $(PYTHON) -m venv $(VENV); }
	$(PY) -m pip install $(if $(CI),--quiet) --no-compile -c constraints.txt hatchling editables
	$(PY) -m pip install $(if $(CI),--quiet) --no-compile -c constraints.txt --no-build-isolation -e '.[$(EXTRAS)]'
	@echo "compiling the packages on all cores"
	@$(PY) -m compileall -q -j 0 -x '[/\\]tests?[/\\]' "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	  > $(VENV)/compiled.log 2>&1 || true
	@printf '%s' "$(WANTED)" > $(STAMP)
	@rm -f $(VENV)/.unfinished

stale:
