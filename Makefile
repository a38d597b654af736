# Needs Python 3.11 or newer and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv/bin/python

.PHONY: demo train test style quality clean

demo: .venv/ready
	$(VENV) examples/run_demo.py

train: .venv/ready
	$(VENV) examples/run_train.py examples/recipes/ldlm/addition.yaml

test: .venv/ready
	$(VENV) -m pytest tests

style: .venv/ready
	$(VENV) -m ruff check --fix ldlm_hf tests examples
	$(VENV) -m ruff format ldlm_hf tests examples

quality: .venv/ready
	$(VENV) -m ruff check ldlm_hf tests examples
	$(VENV) -m ruff format --check ldlm_hf tests examples

.venv/ready: setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"ldlm_hf needs Python 3.11 or newer, but {sys.executable} is {v[0]}.{v[1]}; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(VENV) -m pip install --quiet -c constraints.txt -e '.[train,test,quality]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info demo_output
