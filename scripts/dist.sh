#!/usr/bin/env bash
# An sdist and the wheel that is made of it, into dist/; checked by twine where it is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf dist
.venv/bin/python -m build --no-isolation --outdir dist .
if .venv/bin/python -c 'import twine' 2>/dev/null; then
  .venv/bin/python -m twine check --strict dist/*
else
  echo "Without twine, how the description looks on an index is not checked: pip install twine"
fi
ls -l dist
