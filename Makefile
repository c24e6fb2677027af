# SPDX-License-Identifier: Apache-2.0
# `make help` says what there is.
.DEFAULT_GOAL := help
.PHONY: help setup play test test-all bench lint docs clean

PUZZLE ?= read-me
ARGS ?=
BUGBOX := .venv/bin/bugbox

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## install what is missing; leaves .venv/bin/bugbox
	@tools/setup play

play: setup  ## boot a puzzle and give you a terminal (PUZZLE=read-me, ARGS=--demo needs no keyboard)
	@$(BUGBOX) play $(PUZZLE) $(ARGS)

test:  ## everything: linters, types, docs, units, real virtual machines
	@tools/setup test
	@tools/test $(ARGS)

test-all:  ## test, and what takes too long for every day (the whole catalogue three times, long soaks)
	@tools/setup test
	@BUGBOX_TEST_ALL=1 tools/test $(ARGS)

bench:  ## the promises in numbers, each beside what you would use instead (ARGS="cold --rounds 3")
	@tools/setup bench
	@.venv/bin/python -m bench $(ARGS)

lint:  ## linters, types and import rules only
	@tools/setup test
	@.venv/bin/python -m pytest -q tests/style $(ARGS)

docs: setup  ## write the generated pages again
	@.venv/bin/python tools/docs

clean:  ## remove what was built in this checkout (BUGBOX_HOME is left alone)
	rm -rf .venv guest/build bench/out .pytest_cache .mypy_cache .ruff_cache .hypothesis
