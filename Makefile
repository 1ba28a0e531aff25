# Two commands for a fresh machine with Python >= 3.11: `make quickstart` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: quickstart test check clean

INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.user: pyproject.toml | $(BIN)/python
	$(INSTALL) -e ".[talker,weights]"
	touch $@

$(VENV)/.test: $(VENV)/.user
	$(INSTALL) -e ".[test,talker,weights,classic,data]"
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(INSTALL) -e ".[dev]"
	touch $@

# Goes on where it stopped, if it was stopped.
quickstart: $(VENV)/.user
	$(BIN)/mmkp train recipes/quickstart.yaml --out runs/quickstart --resume

test: $(VENV)/.test
	$(BIN)/python -m pytest tests -n 2 --dist loadfile

check: $(VENV)/.dev
	$(BIN)/ruff check mmkp tests benchmarks
	$(BIN)/ruff format --check mmkp tests benchmarks
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info
