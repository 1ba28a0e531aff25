# Two commands for a fresh machine with Python >= 3.11: `make quickstart` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: test check install clean

$(VENV)/.test: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,weights,talker]"
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

install: $(VENV)/.test

test: $(VENV)/.test
	$(BIN)/python -m pytest tests

check: $(VENV)/.dev
	$(BIN)/ruff check mmkp tests benchmarks
	$(BIN)/ruff format --check mmkp tests benchmarks
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info
