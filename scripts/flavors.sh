#!/usr/bin/env bash
# Makes build/flavors/<flavor>: an environment for each flavor of app managers and their jobs.
#
# The flavors hold conflicting versions of one library (numpy 1 and 2), which is why they are
# environments of their own. Our code is reached through a .pth file: it is the same for all.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
for pins in requirements/flavor-*.txt; do
  flavor=$(basename "$pins" .txt)
  flavor=${flavor#flavor-}
  environment=build/flavors/$flavor
  stamp=$environment/.stamp
  # The stamp names this checkout: a copy or a moved one would run the code of the old place.
  if [ "$(cat "$stamp" 2>/dev/null)" = "$root" ] && [ ! "$pins" -nt "$stamp" ] &&
    "$environment/bin/python" -c '' 2>/dev/null; then
    continue
  fi
  echo "Making the environment of flavor $flavor …"
  rm -rf "$environment"
  mkdir -p build/flavors
  "${PYTHON:-python3}" -m venv "$environment"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$pins"
  site=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  printf '%s\n' "$root/balancer" "$root/sdk" "$root/services" "$root/protos/gen" > "$site/shoal.pth"
  # Bytecode and font cache are made once here, so that the first jobs on each host don't all do it.
  XDG_CACHE_HOME=$root/$environment/cache "$environment/bin/python" -c \
    'import matplotlib.figure, matplotlib.backends.backend_agg, matplotlib.font_manager' >/dev/null
  echo "$root" > "$stamp"
done
