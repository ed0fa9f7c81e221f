#!/usr/bin/env bash
# All tests, three at a time: most of them wait for something. Arguments go to pytest:
# scripts/test.sh tests/balancer -k p2c; with -n 0 one at a time, and --pdb works.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/system.sh zookeeper
scripts/system.sh postgres || echo "Without PostgreSQL, the tests that need it are skipped."
scripts/system.sh curator || echo "Without Java's compiler and Curator, the tests that need them are skipped."
scripts/system.sh dig || echo "Without dig, the tests that ask with it are skipped."
scripts/system.sh boot || echo "Without these, the tests of hosts' shell fail."
scripts/system.sh chromium || echo "Without Chromium, the tests that look at the page are skipped."
# Containers are tested where an engine is there already; `make test-containers` installs one.
if [ "$(id -u)" -eq 0 ] && command -v dockerd >/dev/null 2>&1; then
  scripts/wheels.sh || echo "Without the image's wheels, the test of containers is skipped."
fi
# Tests start hundreds of processes. Where the environment keeps Python from writing bytecode, each
# of them would compile all of our code again.
.venv/bin/python -m compileall -q balancer sdk services protos/gen
# Who has nothing left takes from who has: some tests take a minute.
exec .venv/bin/python -m pytest -n 3 --dist worksteal --durations 15 "$@"
