# Two commands do everything from a bare checkout: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
SYNCED := .venv/.synced
PROTOS := $(shell find proto -name '*.proto') proto/build_hook.py

.PHONY: demo test test-slow check docs lock clean

demo: $(SYNCED)
	$(BIN)/simsearch demo

test: check
	$(BIN)/pytest -m "not slow and not gpu"

test-slow: $(SYNCED)
	$(BIN)/pytest -m slow --timeout=1800

check: $(SYNCED)
	$(BIN)/ruff check .
	$(BIN)/mypy

# Third-party packages first, at the hashes in requirements.txt; then the project, with what it
# was just given. uv itself comes through pip, so nothing but Python is needed beforehand.
$(SYNCED): pyproject.toml requirements.txt $(PROTOS)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/pip install --quiet uv
	$(BIN)/uv pip install --no-deps --require-hashes -r requirements.txt
	$(BIN)/uv pip install --no-deps --no-build-isolation --editable .
	touch $@

# The pages that are made from the code; tests hold them against their generators.
docs: $(SYNCED)
	for page in commands configuration errors grpc metrics; do \
	  $(BIN)/python docs/generate_$$page.py > docs/reference/$$page.new && \
	  mv docs/reference/$$page.new docs/reference/$$page.md || exit 1; done
	$(BIN)/python docs/generate_architecture.py

# After a change of dependencies in pyproject.toml. Without triton, a gigabyte that torch asks for
# and that nothing here calls: it compiles kernels for GPUs.
lock:
	$(BIN)/uv pip compile pyproject.toml --extra cpu --extra demo --extra dev --extra lists --extra plots --extra train --no-emit-package triton \
	  --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet -o requirements.txt

clean:
	rm -rf .venv simsearch/v1 simsearch/storage
