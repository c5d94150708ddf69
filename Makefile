# Everything lives in .venv; nothing is installed outside it. Each target sets up what it needs.
.DEFAULT_GOAL := help
.PHONY: help setup setup-all run test test-slow serve serve-stop serve-status serve-backup serve-restore serve-test fuzz faults audit docs references lint format repro bench pretrained clean

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.setup-done
ALL    := $(VENV)/.all-done
COMMA  := ,
UV     := 0.13.9

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(STAMP)  ## make .venv with the cmass command

setup-all: $(ALL)  ## the same with all that tests, documentation and the service need

# The second line is for Debian without python3-venv: there pip itself fills the environment.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "cmass needs Python 3.11 or newer; say which with PYTHON=…" >&2; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
	  || { $(PYTHON) -m venv --without-pip --clear $(VENV) \
	       && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } \
	  || { rm -rf $(VENV); echo "neither venv nor pip works: apt-get install python3-venv" >&2; exit 1; }

# uv installs in a quarter of pip's time; where it cannot be had, pip does the same.
define install
	@echo "setting up $(VENV): $(1) (some minutes the first time)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV)" \
	  && UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy $(BIN)/uv pip install --quiet \
	     --python $(BIN)/python --constraint constraints.txt --editable '.[$(2)]' \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	     --constraint constraints.txt --editable '.[$(2)]'
	@touch $@
endef

$(STAMP): pyproject.toml constraints.txt | $(BIN)/pip
	$(call install,what cmass needs,rivals$(COMMA)site)

$(ALL): pyproject.toml constraints.txt | $(BIN)/pip
	$(call install,what tests$(COMMA) documentation and the service need as well,dev)
	@touch $(STAMP)

run: setup  ## the main job: embedded survey to a released catalogue
	$(BIN)/cmass run $(ARGS)

# One process more than the two cores that it is meant for: many tests wait for a server.
test: setup-all  ## the tests, without the slow ones
	$(BIN)/python -m pytest -m "not slow and not network" -n 3 --dist loadgroup $(ARGS)

test-slow: setup-all  ## the slow tests: whole pipelines, real servers
	$(BIN)/python -m pytest -m slow $(ARGS)

serve: setup-all  ## the service: PostgreSQL, S3, Prefect, MLflow, Dask and a worker on this machine
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m flows.service start

serve-stop: setup-all  ## stop the service; what it keeps stays
	$(BIN)/python -m flows.service stop

serve-status: setup-all  ## how every program of the service is
	$(BIN)/python -m flows.service status

serve-backup: setup-all  ## databases and objects of the running service into a new folder: TO=DIR
	$(BIN)/python -m flows.service backup "$(or $(TO),$(error say where: make serve-backup TO=DIR))"

serve-restore: setup-all  ## a new service with what a backup holds: FROM=DIR
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m flows.service restore "$(or $(FROM),$(error say from where: make serve-restore FROM=DIR))"

serve-test: serve  ## a scheduled run, a source that changes and two releases, through the service
	$(BIN)/python -m pytest tests/service -m slow $(ARGS)

fuzz: setup-all  ## ten thousand damaged files for every reader; ARGS='--inputs 500': fewer
	$(BIN)/python -m tests.fuzz $(ARGS)

faults: setup-all  ## kills, full disks, bad files, clocks, networks, servers on the real pipeline; hours
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.faults --docs docs/reliability.md $(ARGS)

audit: setup-all  ## pinned versions against known faults, licences; ONLINE=1: pip-audit asks its database
	@if test -n "$(ONLINE)"; then $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip-audit; fi
	$(BIN)/python -m tests.audit $(if $(ONLINE),--online)

docs: setup-all  ## the documentation site, into build/docs: a broken link or tutorial ends it
	$(BIN)/python -m sphinx -M html . build/docs -c docs/sphinx -d build/doctrees -j 2 -q -W --keep-going
	$(BIN)/python -m tests.docs.offline build/docs/html

references: setup-all  ## docs/reference/ from the code; names what lacks words
	$(BIN)/python -m tests.docs

lint: setup-all  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup-all  ## format the code
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

repro: setup  ## dvc repro: make every product again where params.yaml changed
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro $(ARGS)

bench: setup-all  ## hot paths against their references, into docs/performance.md; ARGS=--small: a minute
	$(BIN)/python -m benchmarks $(or $(ARGS),--docs docs/performance.md)

pretrained: setup  ## the model that ships, of the latest release in DATA (data/)
	$(BIN)/python -m cmass.pretrained $(or $(DATA),data)

clean:  ## remove .venv, caches and build leftovers; data/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
