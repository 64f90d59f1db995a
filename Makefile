# Two commands for a newcomer: `make train` and `make test`. `make check` is what CI runs besides.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test check clean

train: .venv/installed
	$(BIN)/stepwell train

test: .venv/tested
	$(BIN)/python -m pytest

check: .venv/tested
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

# constraints.txt holds the versions that the tests were run with.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/tested: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,onnx]'
	touch $@

clean:
	rm -rf .venv build dist src/*.egg-info
