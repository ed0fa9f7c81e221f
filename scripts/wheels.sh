#!/usr/bin/env bash
# Fills build/wheels with what the image's environment is made of, so that the test of containers
# builds it without a network.
set -euo pipefail
cd "$(dirname "$0")/.."
stamp=build/wheels/.stamp
extras=$(sed -n 's/^ARG EXTRAS=//p' Dockerfile)
# All that decides which wheels these are.
key=$({ .venv/bin/python -VV; uname -m; echo "$extras"; cat requirements/lock.txt pyproject.toml deploy/container/wanted.py; } | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null)" = "$key" ]; then
  exit 0
fi
echo "Fetching the wheels of the container image …"
rm -rf build/wheels
mkdir -p build/wheels
.venv/bin/python deploy/container/wanted.py extras pyproject.toml "$extras" > build/wheels/wanted.txt
.venv/bin/python -m pip --disable-pip-version-check download -qq -d build/wheels \
  -c requirements/lock.txt -r build/wheels/wanted.txt hatchling pip
printf '%s\n' "$key" > "$stamp"
