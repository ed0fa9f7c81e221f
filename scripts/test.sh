#!/usr/bin/env bash
# All tests. Arguments go to pytest: scripts/test.sh tests/balancer -k p2c
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/system.sh zookeeper
exec .venv/bin/python -m pytest "$@"
