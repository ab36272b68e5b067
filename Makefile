# `make demo` and `make test` work on a machine that has only Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
APT_INSTALL := DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends
# What is checked for spelling and for words to avoid: documents, and the code with its messages.
SPELLED := $(wildcard *.md) .github indexer service migrations $(wildcard deploy/*.md tests/*.md)
AVOIDED = $(shell sed -n 's/->.*//p' tests/words.txt | paste -sd '|')
YAMLLINT := {extends: default, rules: {document-start: disable, line-length: {max: 120}, octal-values: {forbid-implicit-octal: false}}}

.PHONY: help setup links demo test browser postgresql proxies check check-deploy check-github docs-check spelling bench audit constraints lowest release format proto release-proto pictures clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

setup: $(STAMP)  ## install everything into .venv

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[cpu,dev]'
	$(MAKE) --no-print-directory links
	@touch $@

# mypy and import-linter follow folders, not setuptools' mapping of them: links show them the package as it is imported.
links:  ## lay links of the packages into build/typing, for tools that follow folders
	rm -rf build/typing && mkdir -p build/typing/whatwhere
	ln -s ../../../service/public/__init__.py ../../../service/public/py.typed build/typing/whatwhere/
	ln -s ../../../indexer ../../../migrations ../../../service build/typing/whatwhere/

demo: $(STAMP)  ## index photographs, serve them, search one with a box, draw the answer, open the page (WEB=0: not)
	$(BIN)/whatwhere demo $(if $(filter 0,$(WEB)),--no-web)

# Each computes on one core, or waits for servers and other processes: one more than two cores. Files stay together, for
# what they make once, and come in the order of tests/conftest.py: what takes longest first. Every process imports what
# is compiled once, also where containers switch that off.
JOBS ?= 3
SIDE_BY_SIDE = OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder \
	--max-worker-restart 0

test: $(STAMP)  ## run all tests, three at once (JOBS=1: one by one)
	$(if $(filter-out 1,$(JOBS)),$(SIDE_BY_SIDE),$(BIN)/pytest)

browser:  ## install Chromium, which tests of the page drive (Debian, as root); without it they skip
	command -v chromium || $(APT_INSTALL) chromium || { apt-get update && $(APT_INSTALL) chromium; }

postgresql:  ## install PostgreSQL, which tests of the catalogue start (Debian, as root); without it they skip
	ls /usr/lib/postgresql/*/bin/initdb || $(APT_INSTALL) postgresql || { apt-get update && $(APT_INSTALL) postgresql; }

proxies:  ## install nginx and Caddy, which tests put in front of servers (Debian, as root); without them they skip
	{ command -v nginx && command -v caddy; } || $(APT_INSTALL) nginx-light caddy || { apt-get update && $(APT_INSTALL) nginx-light caddy; }

check: $(STAMP) links check-deploy check-github spelling docs-check  ## lint, formatting, types, layers, spelling, documents, migrations, deploy/
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=build/typing $(BIN)/lint-imports --no-logo
	$(BIN)/python -m whatwhere.migrations.check

check-deploy: $(STAMP)  ## parse what deploy/ holds, each by a validator of its own (patches applied, where there is kubectl)
	$(BIN)/yamllint --strict --config-data '$(YAMLLINT)' deploy
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml deploy/compose.big.yaml
	$(BIN)/kubernetes-validate --strict --quiet $(filter-out %/kustomization.yaml,$(wildcard deploy/kubernetes/*.yaml deploy/kubernetes/*/*.yaml))
	if command -v kubectl; then for shape in deploy/kubernetes deploy/kubernetes/big; do \
		objects="$$(kubectl kustomize $$shape)" && printf '%s\n' "$$objects" \
		| $(BIN)/kubernetes-validate --strict --quiet /dev/stdin || exit 1; done; fi
	$(BIN)/hadolint deploy/Containerfile deploy/Containerfile.cuda
	$(BIN)/python -m json.tool deploy/grafana/dashboard.json /dev/null

check-github: $(STAMP)  ## parse what .github/ holds
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows $(wildcard .github/workflows/*.yml)
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/proposal.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml

spelling: $(STAMP)  ## look for misspelled words, and for those of tests/words.txt
	$(BIN)/codespell $(SPELLED)
	$(BIN)/codespell --dictionary tests/words.txt --regex '(?i:\b(?:$(AVOIDED))\b)' $(filter-out %/words.txt,$(SPELLED))

docs-check: $(STAMP)  ## compare commands, links and examples of the documents with the program
	$(BIN)/python -m tests.check_docs

bench: $(STAMP)  ## measure what indexing and searching cost beside the network, compare with an earlier run
	$(BIN)/python -m tests.measure_speed --json build/speed.json --compare tests/speed.json
	$(BIN)/python -m tests.measure_formats --json build/formats.json --compare tests/formats.json

audit: $(STAMP)  ## look for known vulnerabilities of what is installed
	$(BIN)/pip-audit --local --skip-editable

constraints:  ## install the newest versions that are allowed into build/newest and write them to constraints.txt
	$(PYTHON) -m venv --clear build/newest
	build/newest/bin/pip install --quiet --editable '.[cpu,dev,gcs]'
	{ grep '^#' constraints.txt; build/newest/bin/pip freeze --exclude-editable; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

lowest:  ## install the lowest versions that are allowed into build/lowest and run the tests with them
	$(PYTHON) -m venv --clear build/lowest
	build/lowest/bin/pip install --quiet --constraint constraints-lowest.txt --editable '.[cpu,dev,gcs]'
	OMP_NUM_THREADS=1 build/lowest/bin/pytest --numprocesses 2 --dist loadfile --max-worker-restart 0

release: $(STAMP)  ## build sdist and wheel into build/dist, check them, install the wheel elsewhere and use it
	rm -rf build/dist
	$(BIN)/python -m build --outdir build/dist
	$(BIN)/twine check --strict build/dist/*
	$(BIN)/pytest tests/integration/test_wheel.py

format: $(STAMP)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(STAMP)  ## generate service/rpc from proto/
	$(BIN)/python proto/generate.py code service/rpc

release-proto: $(STAMP)  ## take the contract as released: from here on a test refuses what would break its callers
	$(BIN)/python proto/generate.py descriptors proto/released.binpb

pictures: $(STAMP)  ## make the README's pictures
	$(BIN)/python .readme/make.py

clean:  ## remove what the targets made
	rm -rf .venv build demo *.egg-info
