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
terraform() {
  scripts/terraform.sh check
  local code=$?
  # 3: there is none here, and it has said so.
  [ "$code" -eq 3 ] || return "$code"
}
# It takes longest and mostly waits; what it says is shown when its turn has come.
mkdir -p build
# Job control gives it a group of its own, so that whatever ends this script ends all of it.
set -m
terraform >build/terraform.said 2>&1 &
looked=$!
set +m
trap 'kill -- "-$looked" 2>/dev/null' EXIT
terraform_said() {
  wait "$looked"
  local code=$?
  trap - EXIT
  cat build/terraform.said
  return "$code"
}
step "ruff format" .venv/bin/ruff format --check .
step "ruff lint" .venv/bin/ruff check .
step "types" .venv/bin/mypy
step "import rules" .venv/bin/lint-imports
step "generated code" scripts/protos.sh --check
step "commits name their issue" .venv/bin/python scripts/commits.py
step "terraform" terraform_said
if [ ${#failed[@]} -gt 0 ]; then
  printf 'make check failed: %s\n' "$(IFS=,; echo "${failed[*]}")" >&2
  exit 1
fi
echo "make check passed"
