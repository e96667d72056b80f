# Every task of the project is one of these targets; `make help` lists them. Only python3, make and git are needed.
PYTHON ?= python3
VENV ?= .venv
PROFILE ?= laptop
BOOK_PROFILE ?= smoke
PORT ?= 8000
PYTEST_ARGS ?= -n auto

BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.installed
# Small arrays: one thread a process is faster than many threads that fight for two cores.
TEST_ENV := OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=2 MPLBACKEND=Agg

.DEFAULT_GOAL := help
.PHONY: help venv book check-site serve test lint format reproduce bench sync readme shots set-repository publish-colab clean distclean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

venv: $(STAMP) ## create .venv and install what constraints.txt pins

$(STAMP): requirements.txt constraints.txt pyproject.toml
	@sh book/_tools/check_python.sh "$(PYTHON)"
	@test -x $(PY) || { echo "Creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing the pinned packages (a few minutes the first time)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements.txt -e ".[book,dev,cluster,export]"
	@touch $(STAMP)

book: $(STAMP) ## execute every chapter and render _build/html, then check the site
	$(PY) book/_tools/build.py --profile $(BOOK_PROFILE)
	@$(MAKE) --no-print-directory check-site

check-site: $(STAMP) ## check the rendered site: pages, links, alt texts; in a browser: contrast, controls, a phone's width
	$(TEST_ENV) SQLIB_REQUIRE_SITE=1 $(PY) -m pytest -q tests/book/test_site.py tests/book/test_browser.py $(PYTEST_ARGS)

serve: $(STAMP) ## show _build/html at http://localhost:PORT (default 8000)
	@test -f _build/html/index.html || { echo "There is no _build/html yet: run 'make book' first"; exit 1; }
	$(PY) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

test: lint ## lint, type-check and run every test
	$(TEST_ENV) $(PY) -m pytest -q $(PYTEST_ARGS)

lint: $(STAMP) ## ruff (style and format), import-linter (the floors of sqlib) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/mypy

format: $(STAMP) ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reproduce: $(STAMP) ## run every chapter through papermill: make reproduce PROFILE=smoke|laptop|full
	$(PY) -m sqlib run-notebooks _build/reproduced --profile $(PROFILE)

bench: $(STAMP) ## run every benchmark: one table of ratios measured side by side
	$(PY) benchmarks

sync: $(STAMP) ## write the shared set-up cell into every notebook
	$(PY) book/_tools/setup_cell.py

readme: $(STAMP) ## write the measured figures and the pictures of README.md and the start page
	$(PY) book/_tools/pictures.py
	$(PY) book/_tools/readme.py

shots: $(STAMP) ## screenshots of every page at 1280 and 390 pixels (needs chromium)
	$(PY) book/_tools/shots.py _build/shots

set-repository: $(STAMP) ## write the repository's address everywhere: make set-repository URL=https://github.com/OWNER/NAME
	$(PY) book/_tools/repository.py "$(URL)"

publish-colab: ## push the Colab copies of the last `make book` to the branch colab
	@export GIT_DIR="$(CURDIR)/.git" GIT_INDEX_FILE="$(CURDIR)/_build/colab.index" && \
		cd _build/html/colab && rm -f "$$GIT_INDEX_FILE" && git --work-tree=. add --all --force . && \
		commit=$$(git -c user.name=sqlib -c user.email=sqlib@users.noreply.github.com \
			commit-tree -m "Copies of the chapters for Colab" "$$(git write-tree)") && \
		git push --quiet --force origin "$$commit:refs/heads/colab"

clean: ## remove what was built, keep .venv
	rm -rf _build .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find sqlib tests benchmarks book notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove .venv too
	rm -rf $(VENV)
