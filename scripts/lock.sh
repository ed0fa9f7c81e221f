#!/usr/bin/env bash
# Pins the latest stable releases: names, versions and hashes, no addresses.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() {
  local out=$1
  shift
  echo "Pinning $out …"
  .venv/bin/pip-compile --quiet --upgrade --generate-hashes --no-emit-index-url \
    --no-emit-trusted-host --no-emit-find-links --no-annotate --no-header --strip-extras \
    --allow-unsafe -o "$out" "$@"
}
compile requirements/lock.txt --all-extras pyproject.toml requirements/dev.in
# What it depends on is in the lock.
compile requirements/xds.txt requirements/xds.in --no-allow-unsafe --unsafe-package grpcio \
  --unsafe-package protobuf --unsafe-package typing-extensions
for source in requirements/protos.in requirements/flavor-*.in; do
  compile "${source%.in}.txt" "$source"
done
