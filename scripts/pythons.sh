#!/usr/bin/env bash
# Runs the unit and SDK tests under each supported Python that is here, against the built wheel.
# PYTHONS names versions: PYTHONS="3.12 3.13" scripts/pythons.sh [pytest's arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/system.sh zookeeper
tests=(tests/balancer tests/sdk)

interpreter() {
  local found
  for found in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
    if "$found" -c 'import sys; assert "%d.%d" % sys.version_info[:2] == sys.argv[1]' "$1" 2>/dev/null; then
      "$found" -c 'import sys; print(sys.executable)'
      return 0
    fi
  done
  return 1
}

rm -rf build/pythons/dist
.venv/bin/python -m build --wheel --no-isolation --outdir build/pythons/dist . >/dev/null
tried=() missing=() failed=()
for version in ${PYTHONS:-3.11 3.12 3.13}; do
  if ! python=$(interpreter "$version"); then
    missing+=("$version")
    continue
  fi
  place=build/pythons/$version
  if [ ! -f "$place/.stamp" ] || [ requirements/lock.txt -nt "$place/.stamp" ]; then
    echo "Making $place …"
    rm -rf "$place"
    "$python" -m venv "$place"
    "$place/bin/python" -m pip --disable-pip-version-check install --quiet --require-hashes \
      -r requirements/lock.txt
    scripts/xds.sh "$place"
    touch "$place/.stamp"
  fi
  "$place/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps \
    --force-reinstall build/pythons/dist/*.whl
  echo "== Python $("$place/bin/python" -V | cut -d' ' -f2)"
  if "$place/bin/python" -m pytest -q -n 2 "${tests[@]}" "$@"; then
    tried+=("$version")
  else
    failed+=("$version")
  fi
done
echo "passed: ${tried[*]:-none}; failed: ${failed[*]:-none}; not here: ${missing[*]:-none}"
[ ${#failed[@]} -eq 0 ] && [ ${#tried[@]} -gt 0 ]
