#!/usr/bin/env bash
# xds.sh ENVIRONMENT: puts the messages of xds-protos into ENVIRONMENT/xds, for tests (see
# requirements/xds.in), without its copies of other packages' messages.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf "$1/xds"
"$1/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes \
  --target "$1/xds" -r requirements/xds.txt
rm -rf "$1/xds/opentelemetry" "$1/xds/google"
