# Every target works from a fresh clone with nothing but Python 3.11 or newer and make.
PYTHON ?= python3
PORT ?= 8000
HOST ?= 127.0.0.1
DATA ?= data
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: serve test lint format bench model image clean

serve: .venv/.serve
	$(BIN)/pix2dslr serve --host $(HOST) --port $(PORT)

test: lint
	$(BIN)/python -m pytest

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.test
	$(BIN)/python -m benchmarks

# Trains the shipped generators; see "Train on DPED" in README.md for the data. Goes on where it was stopped.
model: .venv/.test
	$(BIN)/pix2dslr-export train model_export/configs/iphone.toml --data $(DATA) --out runs/iphone
	$(BIN)/pix2dslr-export export runs/iphone/checkpoint.pt service/models/iphone.onnx --tiles $(DATA)/dped/pairs/iphone/iphone

image:
	docker compose build

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with PYTHON=")'
	$(PYTHON) -m venv .venv

.venv/.serve: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

.venv/.test: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[train,test,lint]'
	@touch $@ .venv/.serve
