# `make demo` and `make test` work on a machine that has only Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help setup demo test check format proto pictures clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

setup: $(STAMP)  ## install everything into .venv

$(STAMP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[cpu,dev]'
	@touch $@

demo: $(STAMP)  ## index photographs, serve them, search one with a box, draw the answer
	$(BIN)/python -m service.demo

test: $(STAMP)  ## run all tests
	$(BIN)/pytest

check: $(STAMP)  ## lint, formatting, types, migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m migrations.check

format: $(STAMP)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(STAMP)  ## generate service/rpc from proto/
	$(BIN)/python -m grpc_tools.protoc -Iservice/rpc=proto/whatwhere/v1 --python_out=. --pyi_out=. --grpc_python_out=. \
		service/rpc/image_search.proto

pictures: $(STAMP)  ## make the README's pictures
	$(BIN)/python .readme/make.py

clean:  ## remove what the targets made
	rm -rf .venv build demo *.egg-info
