# make setup | demo | bench | binary | test-binary | systemd | vms | faults | dashboards | pictures | test | lint ; each builds what it needs first.
PY := .venv/bin/python

.PHONY: setup test-setup demo bench binary test-binary systemd faults vms dashboards pictures test lint clean

setup: .venv/.runtime
test-setup: .venv/.checks

.venv/.runtime: requirements.txt
	@sh deploy/venv.sh requirements.txt
	@touch $@

.venv/.checks: tests/requirements.txt .venv/.runtime
	@sh deploy/venv.sh tests/requirements.txt
	@touch $@

demo: setup
	@exec $(PY) gateway.py demo

bench: setup
	@exec $(PY) gateway.py bench $(if $(shell command -v cc),--floor) $(BENCH)

binary: setup
	@$(PY) deploy/binary.py dist/submilli

# every call test on the gateway and the libraries in the binary
test-binary: test-setup binary
	@SUBMILLI_BINARY=dist/submilli $(PY) tests/run.py tests/calls tests/gw/cli/test_serve.py tests/gw/cli/test_demo.py

# the units under a real systemd in a container; needs root
systemd: test-setup binary
	@$(PY) tests/deploy/systemd_soak.py

# FAULT_SECONDS=1800 FAULT_SEED=word: random faults, replayable, a ledger at the end in out/faults
faults: test-setup
	@exec $(PY) tests/faults/soak.py soak $(if $(FAULT_SECONDS),--seconds $(FAULT_SECONDS)) $(if $(FAULT_SEED),--seed $(FAULT_SEED))

# Two machines behind HAProxy, deployed and killed under calls; needs root. VMS="--calls 20 --on-lost goodbye"
vms: test-setup
	@exec $(PY) tests/vms/run.py $(VMS)

dashboards: test-setup
	@$(PY) -m metrics.dashboards deploy/grafana/dashboards

pictures: test-setup
	@$(PY) -m tests.dashboards

test: test-setup
	@$(PY) tests/run.py
	@$(PY) gateway.py verify guard
	@$(PY) gateway.py verify budget --quick

lint: test-setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports --no-cache
	$(PY) gateway.py verify purity --static

clean:
	rm -rf .venv out var build dist
