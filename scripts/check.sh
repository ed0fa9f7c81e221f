#!/usr/bin/env bash
# Everything that can be said about the code without running it.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=()
step() {
  local name=$1
  shift
  printf '== %s\n' "$name"
  "$@" || failed+=("$name")
}
step "ruff format" .venv/bin/ruff format --check .
step "ruff lint" .venv/bin/ruff check .
step "types" .venv/bin/mypy
step "import rules" .venv/bin/lint-imports
step "generated code" scripts/protos.sh --check
terraform() {
  scripts/terraform.sh check
  local code=$?
  # 3: there is none here, and it has said so.
  [ "$code" -eq 3 ] || return "$code"
}
step "terraform" terraform
step "commits name their issue" .venv/bin/python scripts/commits.py
if [ ${#failed[@]} -gt 0 ]; then
  printf 'make check failed: %s\n' "$(IFS=,; echo "${failed[*]}")" >&2
  exit 1
fi
echo "make check passed"
