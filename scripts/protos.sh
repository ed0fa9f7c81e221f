#!/usr/bin/env bash
# Generates protos/gen/shoal_protos from protos/shoal_protos. With --check it only compares.
#
# The code is made with the oldest grpcio-tools that we support, in an environment of its own:
# generated code refuses a grpcio or protobuf older than the one it was made with.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=build/protos-venv
stamp=$tools/.stamp
if [ ! -f "$stamp" ] || [ requirements/protos.txt -nt "$stamp" ]; then
  rm -rf "$tools"
  "${PYTHON:-python3}" -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r requirements/protos.txt
  touch "$stamp"
fi
out=protos/gen
if [ "${1:-}" = --check ]; then
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
else
  rm -rf protos/gen/shoal_protos
fi
mapfile -t files < <(cd protos && find shoal_protos -name '*.proto' | LC_ALL=C sort)
PATH="$PWD/$tools/bin:$PATH" "$tools/bin/python" -m grpc_tools.protoc -I protos \
  --python_out="$out" --grpc_python_out="$out" --mypy_out=quiet:"$out" --mypy_grpc_out=quiet:"$out" \
  "${files[@]}"
find "$out/shoal_protos" -type d -exec touch '{}/__init__.py' ';'
touch "$out/shoal_protos/py.typed"
if [ "${1:-}" = --check ]; then
  if ! diff -r -q -x __pycache__ "$out/shoal_protos" protos/gen/shoal_protos; then
    echo "protos/gen is not what the protos say: run 'make protos' and commit the result." >&2
    exit 1
  fi
fi
