#!/usr/bin/env bash
# All tests. Arguments go to pytest: scripts/test.sh tests/balancer -k p2c
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/system.sh zookeeper
scripts/system.sh postgres || echo "Without PostgreSQL, the tests that need it are skipped."
exec .venv/bin/python -m pytest "$@"
