# layout: what a developer does, one word each. Plain POSIX make; the work is in .ci/ and tests/.
.POSIX:

help:
	@printf '%s\n' \
	    'make demo   three jails, their read-only roots, a writable chroot each, and the proof; in a throw-away root' \
	    'make test   every test (those that mount run in a throw-away root, tests/box), then lint' \
	    'make e2e    BIND, OpenLDAP and Heimdal in jails of a real Debian, as root; takes a minute, the first time two' \
	    'make lint   ruff check, ruff format --check, mypy' \
	    'make fuzz   damaged inputs for all that reads words of others; ten minutes, or make fuzz SECONDS=60' \
	    'make bench  times against a floor measured in the same run' \
	    'make completion  what shells complete, made again after a command or option has changed' \
	    'make dist   wheel and source archive in ./dist' \
	    'make clean  remove what these made, except .venv'

# Everything here runs from .venv, which .ci/venv makes with nothing but Python 3.11 or newer.
.venv/.stamp: pyproject.toml .ci/venv
	@sh .ci/venv

demo: .venv/.stamp
	@PATH="$$PWD/.venv/bin:$$PATH" sh tests/demo.sh

test: .venv/.stamp
	@sh .ci/test

e2e: .venv/.stamp
	@sh .ci/e2e

lint: .venv/.stamp
	@sh .ci/lint

SECONDS = 600
fuzz: .venv/.stamp
	@.venv/bin/python -m tests.fuzz $(SECONDS)

bench: .venv/.stamp
	@.venv/bin/python -m tests.bench

dist: .venv/.stamp
	@.venv/bin/python -m hatchling build -d dist

completion: .venv/.stamp
	@.venv/bin/layout completion bash >layout/share/completion/layout.bash
	@.venv/bin/layout completion zsh >layout/share/completion/_layout
	@.venv/bin/layout completion fish >layout/share/completion/layout.fish

clean:
	@sh .ci/clean

.PHONY: completion help demo test e2e lint fuzz bench dist clean
