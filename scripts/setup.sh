#!/usr/bin/env bash
# Makes .venv with everything that the project, its tests and its demo need.
# PYTHON names the interpreter (3.11 or newer; default python3).
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHON=${PYTHON:-python3}

scripts/system.sh python
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "Shoal needs Python 3.11 or newer; '$PYTHON' is $("$PYTHON" -V 2>&1)." >&2
  echo "Name another one: make setup PYTHON=/usr/bin/python3.12" >&2
  exit 1
fi

pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

# An environment whose interpreter has gone, or is of another version, can't be mended: make it anew.
want=$("$PYTHON" -c 'import sys; print(*sys.version_info[:2])')
have=$(.venv/bin/python -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null || true)
if [ "$want" != "$have" ]; then
  rm -rf .venv
  "$PYTHON" -m venv .venv
fi
# Side by side: both mostly wait for the network and the disk. Job control gives the flavors a group
# of their own, so that whatever ends this script ends pip there too.
set -m
scripts/flavors.sh &
flavors=$!
set +m
trap 'kill -- "-$flavors" 2>/dev/null || true' EXIT
echo "Installing the pinned dependencies into .venv …"
pip install --quiet --require-hashes -r requirements/lock.txt
scripts/xds.sh .venv
pip install --quiet --no-deps --no-build-isolation -e .
wait "$flavors"
trap - EXIT
touch .venv/.stamp
