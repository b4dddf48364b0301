# Each target sets up what it needs by itself: Python 3.11+ with venv, git and make are enough.
#
#   make demo    serve the demo app          SESSIONSTORE_URL, GRADIO_SERVER_PORT choose where
#   make test    lint, types and all tests   ARGS="-k names" goes to pytest, JOBS=4 uses 4 processes instead of 3
#   make gradio5 the adapter's tests with the newest Gradio 5, in an environment of their own
#   make gradio-next  the adapter's behaviour with the newest pre-release of Gradio, if there is one
#   make lint    ruff and mypy alone
#   make matrix  the fast half of the tests on Python 3.11, 3.12 and 3.13 (VERSIONS="3.13" for one)
#   make lowest  the tests of the extras, with the lowest version of each that pyproject.toml allows
#   make coverage  the tests of the core and the backends; fails under 95 % of the branches
#   make types   whether the public types are complete, by pyright
#   make dist    sdist and wheel into dist/, built twice with equal bytes, checked and installed
#   make docs    build the documentation's site into site/; a warning is an error
#   make s3      serve a bucket with SeaweedFS, and print the settings for it
#   make bench   measure beside peers, in under 15 minutes; make bench-full: growth and the rest
#   make campaigns  kills, faults, flipped bits, half an hour of visitors: what is left after them
#   make explore try 100,000 schedules of the object protocol, and each broken variant
#   make apps    some 120 small Gradio apps, plain and attached, as a table of what differs
#   make replicas      one Gradio app on two replicas, with attach and without, as a table
#   make large   5 GB uploaded through Chromium to two replicas, cut 20 times, one replica killed
#   make gradio-suite  Gradio's own tests, with attach and without: both fail in the same places
#   make clean   remove what these made, the demo's files too
#
# PYTHON=python3.12 chooses the interpreter.

BIN := .venv/bin
DEMO := .venv-demo
GRADIO5 := .venv-gradio5
GRADIO_NEXT := .venv-gradio-next
SITE := .venv-docs
INSTALLS := pyproject.toml scripts/venv scripts/constraints.txt
VERSIONS ?= 3.11 3.12 3.13
# Not browsers, servers, Gradio, machines of hypothesis: what tests Python's own differences.
FAST := -m "not browser and not server" tests/core tests/cli tests/local tests/objects tests/asgi
ARGS ?=
# On two cores: half of the time a test waits for a server, a browser or another process.
JOBS ?= 3
comma := ,
LOWEST := s3,fsspec,obstore,asgi,cli,image,blake3,metrics

ifeq ($(strip $(SESSIONSTORE_URL)),)
SESSIONSTORE_URL := file:.demo-data
endif

# An s3:// store needs one extra more; the stamp's name keeps the two apart.
DEMO_EXTRAS := gradio,image$(if $(filter s3://%,$(SESSIONSTORE_URL)),$(comma)s3)

.PHONY: help demo test gradio5 gradio-next lint matrix lowest coverage types dist docs bench bench-full campaigns explore apps replicas large gradio-suite s3 clean

help:
	@sed -n 's/^#   //p' Makefile

demo: export SESSIONSTORE_URL := $(SESSIONSTORE_URL)
demo: export SESSIONSTORE_LINGER := $(or $(SESSIONSTORE_LINGER),5s)
demo: export SESSIONSTORE_RESTART := $(or $(SESSIONSTORE_RESTART),drop)
demo: $(DEMO)/.ready-$(DEMO_EXTRAS)
	@$(DEMO)/bin/python -u examples/state_cleanup.py

test: lint
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	    echo "SKIPPED: the browser tests, for want of Chromium (Debian: apt-get install chromium)"
	@PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || \
	    echo "SKIPPED: the tests behind a real proxy, for want of nginx (apt-get install nginx)"
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

# What differs between the two is how files pass through and are served, not how long they are kept.
gradio5: $(GRADIO5)/.ready-test
	$(GRADIO5)/bin/python -m pytest -n $(JOBS) --dist loadfile $(ARGS) tests/gradio/test_attach.py \
	    tests/gradio/test_components.py tests/gradio/test_probe.py tests/gradio/test_programs.py \
	    tests/gradio/test_serving.py tests/gradio/test_upload_pieces.py

gradio-next: .venv/.ready-test
	@newest=$$($(BIN)/python -m pip index versions --pre gradio 2>/dev/null | sed -n '1s/.*(\(.*\))/\1/p'); \
	case "$$newest" in \
	*[!0-9.]*) \
	    scripts/venv $(GRADIO_NEXT) all test "gradio==$$newest" && \
	    $(GRADIO_NEXT)/bin/python -m pytest -n0 $(ARGS) tests/gradio/test_probe.py ;; \
	*) echo "Gradio has no newer pre-release: the newest version is $$newest." ;; \
	esac

lint: .venv/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

matrix: $(VERSIONS:%=matrix-%)

matrix-%: .venv-py%/.ready-test
	.venv-py$*/bin/python -m pytest -n $(JOBS) --dist loadfile $(ARGS) $(FAST)

# Old releases beside a new click or fastapi warn; that is not an error here.
lowest: .venv-lowest/.ready-test
	.venv-lowest/bin/python -m pytest -W default -n $(JOBS) --dist loadfile $(ARGS) tests/cli \
	    tests/asgi/test_app.py tests/asgi/test_upload.py tests/core/test_content.py \
	    tests/core/test_images.py tests/core/test_metrics.py tests/fsspec/test_backend.py \
	    tests/s3/test_options.py tests/s3/test_requests.py tests/s3/test_obstore_client.py

COVERED := tests/core tests/local tests/objects tests/fsspec tests/s3 tests/testing tests/cli tests/asgi
coverage: .venv/.ready-test
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --cov --cov-report= $(ARGS) $(COVERED) \
	    tests/test_memory_backend.py
	$(BIN)/python scripts/branches.py

# Pyright looks for the package in the environment of the first python on the PATH.
types: export PATH := $(CURDIR)/.venv-types/bin:$(PATH)
types: .venv-types/.ready-types
	@pyright --verifytypes sessionstore --ignoreexternal > .types.txt || { cat .types.txt; exit 1; }
	@grep -E "exported by|type: |score" .types.txt

dist: .venv-dist/.ready-dist
	@.venv-dist/bin/python scripts/dist.py

# Material tells of a fork in mkdocs' future at each build otherwise.
docs: export NO_MKDOCS_2_WARNING := 1
docs: $(SITE)/.ready-docs
	@$(SITE)/bin/mkdocs build
	@$(SITE)/bin/python scripts/check_search.py site/search/search_index.json
	@echo "The site is in site/: open site/index.html."

bench: .venv-bench/.ready-bench
	@PATH="$(CURDIR)/.venv-bench/bin:$$PATH" .venv-bench/bin/python -m benchmarks $(ARGS)

bench-full: .venv-bench/.ready-bench
	@PATH="$(CURDIR)/.venv-bench/bin:$$PATH" .venv-bench/bin/python -m benchmarks --full $(ARGS)

campaigns: .venv/.ready-test
	$(BIN)/python -m tests.campaigns.kill_local --kills 400
	$(BIN)/python -m tests.campaigns.kill_s3 --writes 3000 --skew 600
	$(BIN)/python -m tests.campaigns.kill_s3 --engine obstore --writes 3000
	$(BIN)/python -m tests.campaigns.kill_s3 --engine fsspec --writes 500
	$(BIN)/python -m tests.campaigns.kill_s3 --server rclone --writes 1000
	$(BIN)/python -m pytest -n0 tests/campaigns/contract_s3fs.py tests/campaigns/contract_rclone.py
	$(BIN)/python -m tests.campaigns.faults_local
	$(BIN)/python -m tests.campaigns.full_disk --kind ext4 # by root: it mounts a file system
	$(BIN)/python -m tests.campaigns.power_loss --states 5000
	$(BIN)/python -m tests.campaigns.power_loss --catch
	$(BIN)/python -m tests.campaigns.power_loss --ext4 100 # by root
	$(BIN)/python -m tests.campaigns.faults_s3
	$(BIN)/python -m tests.campaigns.stops_s3
	$(BIN)/python -m tests.campaigns.sleeps_s3
	$(BIN)/python -m tests.campaigns.copy_kills
	$(BIN)/python -m tests.campaigns.rivals
	$(BIN)/python -m tests.campaigns.rivals --server --kills 0 --seconds 200
	$(BIN)/python -m tests.campaigns.bit_flips
	$(BIN)/python -m tests.campaigns.soak --minutes 30
	$(BIN)/python -m tests.campaigns.differential
	$(BIN)/python -m tests.campaigns.differential --catch --steps 60 --seeds 1 2 3 4 5 6 7 8

explore: .venv/.ready-test
	$(BIN)/python -m tests.explorer --schedules 100000
	$(BIN)/python -m tests.explorer --catch
	$(BIN)/python -m tests.campaigns.explore_engines --engine obstore --schedules 1000
	$(BIN)/python -m tests.campaigns.explore_engines --engine boto3 --schedules 200
	$(BIN)/python -m tests.campaigns.explore_engines --engine fsspec --schedules 100
	$(BIN)/python -m tests.campaigns.explore_engines --server rclone --schedules 200

apps: .venv/.ready-test
	$(BIN)/python -m tests.campaigns.apps --catch
	$(BIN)/python -m tests.campaigns.apps $(ARGS)
	$(BIN)/python -m tests.campaigns.apps --store s3 $(ARGS)

replicas: .venv/.ready-test
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.replicas --write docs/gradio-replicas.md

large: .venv/.ready-test
	$(BIN)/python -m tests.replicas.large --size 5000 --cuts 20

gradio-suite: .venv/.ready-test
	$(BIN)/python -m tests.gradio_suite

s3: .venv/.ready-test
	@$(BIN)/python -u -m tests.support.seaweed

clean:
	rm -rf .venv .venv-bench .venv-dist .venv-lowest .venv-py* .venv-types $(DEMO) $(GRADIO5) $(GRADIO_NEXT) $(SITE) site .demo-data .gradio-suite build dist *.egg-info .hypothesis
	rm -rf .mypy_cache .pytest_cache .ruff_cache

.venv/.ready-test: $(INSTALLS)
	@scripts/venv .venv all test
	@touch $@

# Else make takes the stamp for an intermediate file and removes it, and the next run installs again.
.PRECIOUS: .venv-py%/.ready-test
.venv-py%/.ready-test: $(INSTALLS)
	@PYTHON='$*' scripts/venv .venv-py$* all test
	@touch $@

.venv-lowest/.ready-test: $(INSTALLS) scripts/lowest.py .venv/.ready-test
	@$(BIN)/python scripts/lowest.py $(subst $(comma), ,$(LOWEST)) > .lowest.txt
	@scripts/venv .venv-lowest '$(LOWEST)' test --constraint .lowest.txt
	@touch $@

# Pyright follows no editable install, so this is one of the wheel.
.venv-types/.ready-types: $(INSTALLS) FORCE
	@[ -f $@ ] || scripts/venv .venv-types all types
	@.venv-types/bin/python -m pip install --quiet --no-deps --force-reinstall .
	@touch $@

.venv-dist/.ready-dist: $(INSTALLS)
	@scripts/venv .venv-dist '' dist 'setuptools>=77' wheel
	@touch $@

FORCE:

.venv-bench/.ready-bench: $(INSTALLS)
	@scripts/venv .venv-bench gradio,s3,obstore,blake3 bench
	@touch $@

$(GRADIO5)/.ready-test: $(INSTALLS)
	@scripts/venv $(GRADIO5) all test 'gradio<6'
	@touch $@

$(DEMO)/.ready-%: $(INSTALLS)
	@scripts/venv $(DEMO) '$*' ''
	@touch $@

$(SITE)/.ready-docs: $(INSTALLS)
	@scripts/venv $(SITE) cli docs
	@touch $@
