# Three doors, each of which sets up what it needs: `make demo` shows the whole engine on embedded scenes, offline, and
# installs no torch; `make test` runs the tests; `make check` is what CI runs, and `make portable`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PACKAGE := build/package
PRISM := .cache/services/prism-2.77.0
GCS := .cache/services/fake-gcs-server-1.56.1
MOTO := .cache/services/moto-5.2.5
GCP := .cache/services/gcp-2.77
LAYERS := models pipeline runners tag_system transforms

.PHONY: demo setup links test pythons services portable dataflow cluster trust bench check format-check lint types package clean

demo: $(VENV)/demo
	$(BIN)/tagmill demo --workers 2

setup: $(VENV)/installed links

# Without compiling, a quarter of pip's time: Python does it itself with the modules that it imports.
INSTALL := PYTHONUNBUFFERED=1 $(BIN)/pip install --no-compile --progress-bar off --disable-pip-version-check

# Says which large packages come, and what is not as it should be: pip alone writes two lines for each of them.
WATCH := { failed=1; while IFS= read -r line; do case "$$failed $$line" in \
	*" ("[1-9][0-9]*" MB)") echo "$$line";; \
	*" Installing collected"*) echo "  ... now all is unpacked";; \
	*" Successfully installed"*) failed=0;; \
	*"ERROR: "* | *"error: "* | 2*) failed=2; echo "$$line";; \
	esac; done; exit $$failed; }

# The two are one environment: the second adds torch and what tests need to the first.
$(VENV)/demo: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tagmill needs Python 3.11 or newer: make PYTHON=/path/to/python3"; exit 2; }
	@echo "Setting up $(VENV): 85 packages, 0.3 GB to download, 0.9 GB when unpacked. The large ones:"
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --editable '.[demo]' 2>&1 | $(WATCH)
	@touch $@

$(VENV)/installed: $(VENV)/demo
	@echo "Adding torch and what the tests need to $(VENV): some gigabytes. The large ones:"
	@$(INSTALL) --editable '.[dev]' 2>&1 | $(WATCH)
	@touch $@

# Tools that read sources find tagmill here under its installed name.
links:
	rm -rf build/ns && mkdir -p build/ns/tagmill
	ln -s $(addprefix "$(CURDIR)"/,$(LAYERS) runners/face/__init__.py runners/face/py.typed) build/ns/tagmill

# Files go to the two processes in their order, whole runs of the engine first: by the number of tests in them,
# as is usual, the longest would come last, when there is nothing left to do beside them.
test: setup
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# The suite on every Python that pyproject.toml names and that is here (as pythonX.Y, by uv or by pyenv), each in an
# environment of its own.
PYTHONS := $(shell sed -n 's/.*:: Python :: \(3\.[0-9]*\)".*/\1/p' pyproject.toml)

pythons:
	@passed= failed= missing=; for version in $(PYTHONS); do \
		find() { for python in python$$version $$(uv python find $$version 2> /dev/null) \
			$$(ls -d "$$(pyenv root 2> /dev/null)"/versions/$$version.*/bin/python 2> /dev/null); do \
			test "$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null)" = $$version && \
				return; \
		done; false; }; \
		find || { missing="$$missing $$version"; continue; }; \
		echo "Python $$version: $$python"; \
		$(MAKE) --no-print-directory test PYTHON="$$python" VENV=.cache/pythons/$$version && \
			passed="$$passed $$version" || failed="$$failed $$version"; \
	done; echo "passed:$${passed:- none}; failed:$${failed:- none}; not here:$${missing:- none}"; \
	test -z "$$failed" && test -n "$$passed"

check: format-check lint types test package

format-check: setup
	$(BIN)/ruff format --check .

lint: setup
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

# Every way in which a run must come to no harm, more often than the tests try it: see docs/trust.md.
trust: setup
	PYTHONPATH=tests/support $(BIN)/python tests/support/trust.py

# What needs programs or a cluster: the site in a browser, Ray's nodes on this machine, runs on Prism, on a double of
# Dataflow and on object stores. Chromium comes from the system's packages, the programs in Go are built here, once.
services: setup .cache/services/installed $(PRISM) $(GCS) $(MOTO) $(GCP)
	NODE_PATH=.cache/services/node_modules $(BIN)/pytest -m services tests/services

# Runs on Beam's own portable runner alone, with a pool of workers.
portable: setup $(PRISM)
	$(BIN)/pytest -m services tests/services/test_prism.py

# Runs on a double of Dataflow alone, by Beam's own client.
dataflow: setup $(PRISM) $(GCS) $(GCP)
	$(BIN)/pytest -m services tests/services/test_dataflow.py

# The demo on a Ray cluster whose machines share nothing but an object store, while nodes, workers and the driver are
# killed; prints a table. The machines are namespaces of this one, which only root may make.
cluster: setup $(MOTO)
	@test "$$(id -u)" = 0 || { echo "make cluster needs root, who may make network namespaces"; exit 2; }
	@command -v ip > /dev/null || { echo "make cluster needs ip: install iproute2"; exit 2; }
	$(BIN)/pytest -m cluster tests/services/test_cluster.py

$(PRISM): PACKAGE_OF_GO := github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0
$(GCS): PACKAGE_OF_GO := github.com/fsouza/fake-gcs-server@v1.56.1

$(PRISM) $(GCS):
	@command -v go > /dev/null || { echo "make $(MAKECMDGOALS) needs Go: https://go.dev/dl"; exit 2; }
	GOBIN="$(CURDIR)/.cache/services/bin" go install $(PACKAGE_OF_GO)
	touch $@

# In an environment of its own: its botocore is not that of s3fs.
$(MOTO):
	$(PYTHON) -m venv --clear .cache/services/moto
	.cache/services/moto/bin/pip install --quiet 'moto[server]==5.2.5'
	touch $@

# Beam's client of Google Cloud in an environment of its own, which also sees what is in that of the tests: it is fifty
# packages, with which importing Beam takes half as long again. The name has the line read after those of packages that
# set up a part of `google`.
$(GCP): SITE := import site; print(site.getsitepackages()[0])
$(GCP):
	$(BIN)/python -m venv --clear .cache/services/gcp
	echo "import site; site.addsitedir('$$($(BIN)/python -c '$(SITE)')')" \
		> "$$(.cache/services/gcp/bin/python -c '$(SITE)')/zz-tests.pth"
	.cache/services/gcp/bin/pip install --quiet 'apache-beam[gcp]==2.77.*'
	touch $@

.cache/services/installed: tests/services/package.json
	command -v chromium || { apt-get update && apt-get install --yes --no-install-recommends chromium; }
	mkdir -p .cache/services && cp $< .cache/services
	npm install --no-audit --no-fund --prefix .cache/services
	touch $@

# All benchmarks in short forms, a quarter of an hour on two idle cores; the tables are in build/bench.
bench: setup
	$(BIN)/python tests/benchmarks/bench.py

# The artefact, not the checkout: sdist, wheel from it, installed aside, tested from a folder without sources.
package: setup
	rm -rf build/lib $(PACKAGE) && mkdir -p $(PACKAGE)
	$(BIN)/python -m build --no-isolation --outdir $(PACKAGE)/dist . > $(PACKAGE)/build.log 2>&1 || \
		{ cat $(PACKAGE)/build.log; exit 1; }
	$(BIN)/pip install --quiet --no-deps --target $(PACKAGE)/site $(PACKAGE)/dist/*.whl
	cp -r tests $(PACKAGE)/tests
	cd $(PACKAGE) && PYTHONPATH=site ../../$(BIN)/python -m pytest -c ../../pyproject.toml --rootdir . \
		-o cache_dir=cache -m package tests

clean:
	rm -rf .venv .cache build dist runs *.egg-info
