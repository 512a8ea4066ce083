# Everything people do in a clone. `make` alone explains.
PYTHON ?= python3
SCENARIO ?= default
COMMAND ?= test
TOOLS := $(PYTHON) -m tools

.PHONY: help demo demo-clean test lint unit molecule audit audit-hosts bench env bed pins

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## A Flask app over HTTPS on this machine, from nothing
	@$(TOOLS) demo

demo-clean: ## Remove what `make demo` made
	@$(TOOLS) demo-clean

test: ## Every check there is
	@$(TOOLS) test

lint: ## Linters and types only
	@$(TOOLS) lint

unit: ## Tests that need no host
	@$(TOOLS) unit

molecule: ## One scenario: SCENARIO=nginx [COMMAND=converge|verify|login|destroy|test]
	@$(TOOLS) molecule $(SCENARIO) $(COMMAND)

audit: ## Auditors of TLS and configuration on every proxy and Debian; results go to docs/audits/
	@$(TOOLS) audit

audit-hosts: ## lynis and ssh-audit before and after the role hardening; the result goes to docs/audits/
	@$(TOOLS) audit-hosts

bench: env bed ## Benchmarks; results go to benchmarks/
	@.venv/bin/python -m benchmarks

env: ## The controller's virtual environment, .venv
	@$(TOOLS) env

bed: ## Docker engine and images of the test hosts
	@$(TOOLS) bed

pins: ## Compile requirements.txt, the pins of the auditors and of uv anew
	@$(TOOLS) pins
