#!/usr/bin/env bash
# Looks for the system packages that the named purposes need, installs them where that is allowed
# (apt-get as root) and else says in one sentence what to install.  Usage: system.sh python|zookeeper|postgres|curator|dig|boot|docker|redis|haproxy|nginx|chromium …
set -euo pipefail

missing=()
for purpose in "$@"; do
  case "$purpose" in
    python)
      python=${PYTHON:-python3}
      command -v "$python" >/dev/null 2>&1 || missing+=(python3 python3-venv)
      if command -v "$python" >/dev/null 2>&1 && ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        missing+=(python3-venv)
      fi
      ;;
    zookeeper)
      command -v java >/dev/null 2>&1 || missing+=(default-jre-headless)
      [ -e "${ZOOKEEPER_JAR:-/usr/share/java/zookeeper.jar}" ] || missing+=(zookeeper)
      ;;
    postgres)
      # Debian keeps the server's programs off the path.
      [ -x "${POSTGRES_HOME:-/nonexistent}/bin/postgres" ] || command -v postgres >/dev/null 2>&1 ||
        compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing+=(postgresql)
      ;;
    curator)
      command -v javac >/dev/null 2>&1 || missing+=(default-jdk-headless)
      # The package with discovery does not ask for that with recipes, and needs it.
      for part in discovery recipes; do
        compgen -G "/usr/share/java/curator-*$part.jar" >/dev/null || missing+=("libcurator-$part-java")
      done
      ;;
    docker)
      command -v dockerd >/dev/null 2>&1 || [ -x /usr/sbin/dockerd ] || missing+=(docker.io)
      ;;
    redis)
      command -v redis-server >/dev/null 2>&1 || missing+=(redis-server)
      ;;
    haproxy | nginx)
      # Debian keeps them in /usr/sbin, which is not on everybody's path.
      command -v "$purpose" >/dev/null 2>&1 || [ -x "/usr/sbin/$purpose" ] || missing+=("$purpose")
      ;;
    chromium)
      command -v chromium >/dev/null 2>&1 || missing+=(chromium)
      command -v chromedriver >/dev/null 2>&1 || missing+=(chromium-driver)
      ;;
    dig)
      command -v dig >/dev/null 2>&1 || missing+=(bind9-dnsutils)
      ;;
    boot)
      # What the shell of user data calls.
      for each in curl jq openssl; do
        command -v "$each" >/dev/null 2>&1 || missing+=("$each")
      done
      command -v mkfs.ext4 >/dev/null 2>&1 || [ -x /usr/sbin/mkfs.ext4 ] || [ -x /sbin/mkfs.ext4 ] || missing+=(e2fsprogs)
      ;;
    *) echo "system.sh: unknown purpose '$purpose'" >&2; exit 2 ;;
  esac
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "Installing ${missing[*]} with apt-get …"
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  if apt-get update -qq >"$log" 2>&1 && apt-get install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1; then
    rm -f "$log"
    exit 0
  fi
  tail -n 15 "$log" >&2
  echo "apt-get could not install ${missing[*]} (its output: $log). Install them by hand and try again." >&2
  exit 1
fi
echo "Missing on this machine: ${missing[*]}. Install with: sudo apt-get install ${missing[*]}" >&2
exit 1
