# The text after `##` is a target's help. Each target first builds its requirements.
PY := .venv/bin/python
# The tests that neither wait nor use a database.
PURE := tests/gw/protocol tests/gw/call tests/gw/config tests/gw/test_bus.py tests/gw/test_errors.py tests/metrics tests/wire tests/fuzz

# Each test of processes starts dozens: compiling the gateway's modules at each start would take a third of the suite's time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup instruments test-setup demo bench unit test fuzz mutants coverage fix lint binary test-binary systemd vms faults hostile dashboards pictures hashes audit clean
.DEFAULT_GOAL := help

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.runtime ## build .venv with what the gateway needs
instruments: .venv/.instruments ## complete .venv with what draws the pictures of demo and bench
test-setup: .venv/.checks ## complete .venv with what the tests need

.venv/.runtime: requirements.txt
	@sh deploy/venv.sh requirements.txt
	@touch $@

.venv/.instruments: deploy/requirements-instruments.txt .venv/.runtime
	@sh deploy/venv.sh deploy/requirements-instruments.txt
	@touch $@

.venv/.checks: tests/requirements.txt deploy/requirements-instruments.txt .venv/.runtime
	@sh deploy/venv.sh tests/requirements.txt
	@touch $@ .venv/.instruments

demo: instruments ## place calls on a gateway of this machine, and judge the audio
	@exec $(PY) gateway.py demo

bench: instruments ## measure the gateway under load; options: BENCH="--calls 200"
	@exec $(PY) gateway.py bench $(if $(shell command -v cc),--floor) $(BENCH)

unit: test-setup ## run the pure tests with a tenth of the examples, in seconds
	@SUBMILLI_TEST_EXAMPLES=0.1 $(PY) tests/run.py $(PURE)

test: test-setup ## run all tests and proofs, or some: TESTS="tests/gw/call -k pacer"
	@$(PY) tests/run.py $(TESTS)

.venv/.fuzzer: tests/fuzz/requirements.txt .venv/.checks
	@sh deploy/venv.sh tests/fuzz/requirements.txt || { echo "make fuzz needs atheris: Linux on x86_64, Python 3.11 to 3.13" >&2; exit 1; }
	@touch $@

fuzz: .venv/.fuzzer ## explore the parsers with new inputs; FUZZ_SECONDS=30 each, FUZZ_TARGET=http_head,ai, FUZZ=--keep
	@$(PY) tests/fuzz/run.py $(if $(FUZZ_SECONDS),--seconds $(FUZZ_SECONDS)) $(if $(FUZZ_TARGET),--target $(FUZZ_TARGET)) $(FUZZ)

mutants: test-setup ## measure what share of random one-token mutants the tests catch; MUTANTS="--seed 2 --count 300 --paths gw/call"
	@$(PY) tests/mutants.py $(MUTANTS)

coverage: test-setup ## run the tests of modules, or TESTS=path, and list the lines without a test; html in out/coverage
	@$(PY) -m coverage erase
	@-$(PY) -m coverage run tests/run.py $(or $(TESTS),tests/gw tests/metrics tests/wire tests/fuzz)
	@$(PY) -m coverage combine --quiet
	@$(PY) -m coverage html --quiet --skip-covered
	@$(PY) -m coverage report --skip-covered

fix: test-setup ## apply ruff's fixes and format
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

lint: test-setup ## check style, types, imports, wording, spelling and the media path's purity
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) tests/lint/plain_english.py
	$(PY) -m codespell_lib
	$(PY) -m mypy
	.venv/bin/lint-imports --no-cache
	$(PY) gateway.py verify purity --static

binary: setup ## pack the gateway and its libraries into dist/submilli
	@$(PY) deploy/binary.py dist/submilli

test-binary: test-setup binary ## run the call tests on dist/submilli
	@SUBMILLI_BINARY=dist/submilli $(PY) tests/run.py tests/calls tests/gw/cli/operate/test_serve.py tests/gw/cli/test_demo.py

systemd: test-setup binary ## run the units under a real systemd in a container; needs root
	@$(PY) tests/deploy/systemd_soak.py

vms: test-setup ## two machines behind HAProxy, deployed and killed under calls; needs root; VMS="--calls 20 --on-lost goodbye"
	@exec $(PY) tests/vms/run.py $(VMS)

faults: test-setup ## random faults under calls, judged by laws: FAULT_SECONDS=1800 FAULT_SEED=word; ledger in out/faults
	@exec $(PY) tests/faults/soak.py soak $(if $(FAULT_SECONDS),--seconds $(FAULT_SECONDS)) $(if $(FAULT_SEED),--seed $(FAULT_SEED))

hostile: test-setup ## good calls beside each of 39 attacks, judged; options: HOSTILE="--only half-open --seconds 10"
	@exec $(PY) tests/hostile/run.py $(HOSTILE)

dashboards: test-setup ## write deploy/grafana/dashboards from metrics/dashboards
	@$(PY) -m metrics.dashboards deploy/grafana/dashboards

pictures: test-setup ## draw every dashboard panel into out/dashboards, and top and the talk page in deploy/pictures
	@$(PY) -m tests.dashboards
	@$(PY) -m tests.dashboards.top_picture deploy/pictures/top.svg
	@$(PY) -m tests.dashboards.talk_picture deploy/pictures/talk.png

hashes: setup ## renew the hashes in the requirements files, after a version was changed there
	@$(PY) deploy/hashes.py requirements.txt deploy/requirements-instruments.txt deploy/requirements-audit.txt tests/requirements.txt

audit: test-setup ## check licences and known vulnerabilities of all packages
	@$(PY) deploy/audit.py requirements.txt deploy/requirements-instruments.txt tests/requirements.txt

clean: ## remove .venv and everything that was built or measured
	rm -rf .venv out var build dist
