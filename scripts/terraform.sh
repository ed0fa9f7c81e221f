#!/usr/bin/env bash
# Looks at terraform/: format, validity, and its own tests with a mocked provider.
#   terraform.sh check     all of it, unless nothing changed since it last passed
#   terraform.sh plugins   prints the directory that providers are in, for terraform init -plugin-dir
# Without terraform or the AWS provider on this machine it says so, and leaves with 3.
set -euo pipefail
cd "$(dirname "$0")/.."

plugins() {
  local place
  command -v terraform >/dev/null 2>&1 || {
    echo "terraform is not installed (https://developer.hashicorp.com/terraform/install)" >&2
    return 3
  }
  for place in "${TF_PLUGIN_DIR:-}" "${TF_PLUGIN_CACHE_DIR:-}" ~/.terraform.d/plugins \
    /usr/share/terraform /usr/share/terraform/* /usr/local/share/terraform /usr/local/share/terraform/* \
    /opt/* /opt/*/* /usr/local/lib/* /usr/local/share/*; do
    if [ -n "$place" ] && [ -d "$place/registry.terraform.io/hashicorp/aws" ]; then
      printf '%s\n' "$place"
      return 0
    fi
  done
  echo "No folder here holds registry.terraform.io/hashicorp/aws. Name one by TF_PLUGIN_DIR; \`terraform -chdir=terraform/modules/store providers mirror DIR\` makes it." >&2
  return 3
}

# What could change the outcome. Not asked of git: an archive of the sources has none.
state() {
  {
    find terraform deploy/systemd examples/nap \( -name '.terraform*' -o -name __pycache__ \) -prune \
      -o -type f ! -name '*.tfstate*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    terraform version
  } | sha256sum
}

# look_at DIRECTORY MIRROR: says nothing but its outcome in a line, or all of it when it failed.
look_at() {
  local log=build/terraform-${1##*/}.log
  if terraform -chdir="$1" init -plugin-dir="$2" -input=false -backend=false -no-color >"$log" 2>&1 &&
    terraform -chdir="$1" validate -no-color >>"$log" 2>&1 &&
    terraform -chdir="$1" test -no-color >>"$log" 2>&1; then
    printf '%s: %s\n' "$1" "$(tail -n 1 "$log")"
  else
    printf -- '-- %s\n%s\n' "$1" "$(cat "$log")"
    return 1
  fi
}

check() {
  local mirror now failed=()
  # Tests must read the mirror and no file that leads elsewhere.
  unset TF_CLI_CONFIG_FILE
  mirror=$(plugins) || return $?
  now=$(state)
  if [ "$(cat build/terraform.passed 2>/dev/null)" = "$now" ]; then
    echo "terraform/ has not changed since it passed"
    return 0
  fi
  terraform fmt -check -recursive -diff terraform || failed+=("format")
  # Two at a time: each starts the provider many times, and waits for it.
  export -f look_at
  # shellcheck disable=SC2016 # it is the inner shell's to expand
  printf '%s\0' terraform/modules/* terraform/environments/* |
    xargs -0 -n 1 -P 2 bash -c 'look_at "$1" "$0"' "$mirror" || failed+=("modules")
  if command -v shellcheck >/dev/null 2>&1; then
    shellcheck terraform/*.sh terraform/shared/*.sh terraform/modules/*/*.sh || failed+=("shellcheck")
  else
    echo "Without shellcheck, the shell of user data is only parsed, by tests/terraform."
  fi
  if [ ${#failed[@]} -gt 0 ]; then
    printf 'terraform check failed: %s\n' "$(IFS=,; echo "${failed[*]}")" >&2
    return 1
  fi
  printf '%s\n' "$now" >build/terraform.passed
}

mkdir -p build
case "${1:-}" in
  check) check ;;
  plugins) plugins ;;
  *) sed -n '2,5p' "$0" >&2; exit 2 ;;
esac
