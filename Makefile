# Everything here sets itself up: it needs Python 3.11 or newer with pip, and nothing else.
#   make run [DATA=folder]   make lab   make test   make check   make attack   make help

VENV := .venv
PY := $(VENV)/bin/python
OUT := build
NOTEBOOKS := $(wildcard notebooks/*.ipynb) $(wildcard notebooks/solutions/*.ipynb)

.PHONY: help run lab test attack check bench site slides figures browser notebooks clean
.DEFAULT_GOAL := help

help: ## say what there is
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /	/' | while IFS="$$(printf '\t')" read -r name what; do \
		printf '  make %-10s %s\n' "$$name" "$$what"; done

# The shell is given what was typed as variables, so that spaces, quotes and $ in it stay what they are.
run: export NASEDU_RUN_DATA := $(value DATA)
run: export NASEDU_RUN_OUT := $(value OUT)
run: $(VENV)/.run ## search a cell and write it, drawn, to build/ (DATA=folder: on your own images)
	$(PY) -m nasedu run $(if $(value DATA),--data="$$NASEDU_RUN_DATA") --out="$$NASEDU_RUN_OUT"

lab: $(VENV)/.lab ## open the notebooks in JupyterLab
	$(PY) -m jupyterlab notebooks

# A cell that hangs ends after 120 s; conftest.py ends a notebook that takes too long as a whole. A process for
# each core, of one thread: two that have to share a core can be many times slower than one. A file's tests, and
# a notebook's cells, stay in one process. SPREAD= (nothing) runs all in this one, as a debugger wants it.
SPREAD := -n auto --maxprocesses 8 --dist loadfile
test: $(VENV)/.dev ## run the tests and every notebook, in the ci profile
	NASEDU_PROFILE=ci OMP_NUM_THREADS=1 $(PY) -m pytest $(SPREAD) tests notebooks \
		--nbval-lax --nbval-current-env --nbval-cell-timeout=120 --nbval-sanitize-with tests/nbval.cfg

# The same tests as in `make test`, with 20,000 inputs in place of 1,000 and 100 kills in place of a few.
attack: $(VENV)/.dev ## attack the package: broken files, odd arguments, kills, full disks (an hour)
	NASEDU_PROFILE=ci OMP_NUM_THREADS=1 NASEDU_ATTACK=20000 NASEDU_KILLS=100 $(PY) -m pytest $(SPREAD) tests/attack -o timeout=7200

check: $(VENV)/.dev ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: $(VENV)/.run ## time the steps of all searches, with the machine's limits beside them, in build/bench (2 min)
	$(PY) benchmarks/steps.py --out "$(OUT)/bench"

notebooks: $(VENV)/.dev ## run every notebook in place, in the laptop profile (for maintainers)
	NASEDU_PROFILE=laptop $(PY) tools/notebooks.py execute $(NOTEBOOKS)

slides: $(VENV)/.slides ## a deck of slides from each notebook, in build/slides (needs no network)
	$(PY) tools/decks/slides.py "$(OUT)/slides"

figures: $(VENV)/.dev ## every figure as SVG, PDF and PNG, in build/figures (runs all notebooks)
	$(PY) tools/figures.py "$(OUT)/figures"

site: $(VENV)/.site ## the course as pages, in build/site (a folder that needs no network)
	$(PY) tools/pages/make_site.py "$(OUT)/site"

browser: $(VENV)/.dev ## open every page and slide, and three notebooks in JupyterLab, in a real browser (needs Chromium)
	NASEDU_BROWSER=all NASEDU_PROFILE=ci $(PY) -m pytest tests/browser

clean: ## remove what runs leave behind; the environment in .venv stays
	rm -rf build notebooks/build notebooks/solutions/build .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find nasedu tests tools notebooks benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# ---- set-up: one environment, grown as far as a target needs it

$(VENV)/.run: EXTRAS :=
$(VENV)/.lab: EXTRAS := [notebooks]
$(VENV)/.slides: EXTRAS := [slides]
$(VENV)/.site: EXTRAS := [site]
$(VENV)/.dev: EXTRAS := [dev,notebooks,slides,site,browser]

$(VENV)/.run $(VENV)/.lab $(VENV)/.slides $(VENV)/.site $(VENV)/.dev: pyproject.toml
	@sh tools/setup.sh "$(VENV)" ".$(EXTRAS)"
	@touch $@
