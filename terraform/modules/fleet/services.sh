# A host of services. Terraform says:
#   FLEET, GROUP, REGION       whose it is
#   SERVICES                   what runs here: "registry api scheduler appmanager@local"
#   LAUNCH_HOOK, DRAIN_HOOK    the lifecycle hooks that wait for this host to serve, and to drain
#   DRAIN_SECONDS              how long that may take
#   REQUIREMENT, INDEX_URL, WHEELHOUSE   what pip installs, and from where
#   ZOOKEEPER, BUCKET          where the directory and objects are
#   STORE_URL                  the registry's store, empty where there is no registry
#   SECRET, PASSFILE_PREFIX    PostgreSQL's password in Secrets Manager, and who it is for
#   CA_BUNDLE                  URL of the certificates that PostgreSQL's is signed by
#   VOLUME                     SQLite's volume
#   SLOTS, SETTINGS            jobs at once; lines for all services' environment
#   CERTIFICATES               the services here, each with its certificate's secret; empty: none
# and defines write_units, which writes systemd's units below its argument.
# shellcheck shell=bash
# shellcheck disable=SC2153 # names in capitals come from Terraform

: "${ETC:=/etc/shoal}" "${UNITS:=/etc/systemd/system}" "${OPT:=/opt/shoal}"
: "${STATE:=/var/lib/shoal}" "${SBIN:=/usr/local/sbin}"
: "${CERTIFICATES:=}" "${READERS:=shoal}"

runs() {
  [[ " $SERVICES " == *" $1"[\ @]* ]]
}

# Flavors of the app managers here, one a line.
flavors() {
  local service
  for service in $SERVICES; do
    [[ "$service" == appmanager@* ]] && printf '%s\n' "${service#appmanager@}"
  done
  return 0
}

pip_install() {
  local python=$1
  shift
  # Boot must not hang on a question, nor depend on what some package index says of pip itself.
  local options=(--no-input --disable-pip-version-check --quiet)
  if [ -n "$WHEELHOUSE" ]; then
    options+=(--no-index --find-links /var/cache/shoal-wheels)
  elif [ -n "$INDEX_URL" ]; then
    options+=(--index-url "$INDEX_URL")
  fi
  "$python" -m pip install "${options[@]}" "$@"
}

install_python() {
  dnf install -y python3.11 python3.11-pip ${CERTIFICATES:+openssl}
}

# What users may run: catalogue/*.toml, apps/NAME/…, and requirements-FLAVOR.txt for their imports.
fetch_applications() {
  aws s3 sync --only-show-errors --delete "s3://$BUCKET/applications/catalogue" "$ETC/catalogue" &&
    aws s3 sync --only-show-errors --delete "s3://$BUCKET/applications/apps" "$STATE/host/apps" &&
    aws s3 sync --only-show-errors --exclude '*' --include 'requirements-*.txt' \
      "s3://$BUCKET/applications" "$ETC"
}

install_shoal() {
  local flavor environment
  if [ -n "$WHEELHOUSE" ]; then
    aws s3 sync --only-show-errors "$WHEELHOUSE" /var/cache/shoal-wheels || return 1
  fi
  python3.11 -m venv "$OPT/venv" && pip_install "$OPT/venv/bin/python" "$REQUIREMENT" || return 1
  for flavor in $(flavors); do
    environment=$OPT/flavors/$flavor
    python3.11 -m venv "$environment" &&
      pip_install "$environment/bin/python" "$REQUIREMENT" || return 1
    if [ -e "$ETC/requirements-$flavor.txt" ]; then
      pip_install "$environment/bin/python" --requirement "$ETC/requirements-$flavor.txt" || return 1
    fi
  done
}

# The settings of all services, and of each. Fixed ports, for security groups name them.
write_environment() {
  local flavor each port=7404
  cat >"$ETC/shoal.env" <<ENV
SHOAL_ZOOKEEPER=$ZOOKEEPER
SHOAL_ADVERTISE=
SHOAL_PLACEMENT=ec2
SHOAL_HOST=
SHOAL_OBJECTS=s3://$BUCKET/objects
AWS_REGION=$REGION
AWS_DEFAULT_REGION=$REGION
$SETTINGS
ENV
  printf '%s\n' 'SHOAL_BIND=0.0.0.0:7401' "SHOAL_STORE=$STORE_URL" >"$ETC/registry.env"
  printf '%s\n' 'SHOAL_BIND=0.0.0.0:7402' "SHOAL_CATALOGUE=$ETC/catalogue" >"$ETC/api.env"
  printf '%s\n' 'SHOAL_BIND=0.0.0.0:7403' >"$ETC/scheduler.env"
  printf '%s\n' "SHOAL_SLOTS=$SLOTS" >"$ETC/appmanager.env"
  for flavor in $(flavors); do
    printf '%s\n' "SHOAL_BIND=0.0.0.0:$port" >"$ETC/appmanager-$flavor.env"
    port=$((port + 1))
  done
  # Each shows its own certificate, and none another's.
  for each in $CERTIFICATES; do
    printf '%s\n' "SHOAL_TLS=$TLS/${each%%=*}" >>"$ETC/${each%%=*}.env"
  done
  printf '%s\n' "SHOAL_UNITS=$(units)" "SHOAL_LIFECYCLE_HOOK=$DRAIN_HOOK" \
    "SHOAL_DRAIN_TIMEOUT=$DRAIN_SECONDS" >"$ETC/lifecycle.env"
}

units() {
  local service found=()
  for service in $SERVICES; do
    found+=("shoal-$service.service")
  done
  printf '%s\n' "${found[*]}"
}

# Secrets Manager changes the password every week. libpq reads the file at each new connection, so
# a fresh file is all that a change takes; connections that are open stay open.
password_script() {
  cat <<SCRIPT
#!/bin/bash
set -euo pipefail
umask 077
secret=\$(aws secretsmanager get-secret-value --region $REGION --secret-id '$SECRET' --query SecretString --output text)
new=\$(mktemp "\$RUNTIME_DIRECTORY/pgpass.XXXXXX")
trap 'rm -f "\$new"' EXIT
SECRET_STRING=\$secret PREFIX='$PASSFILE_PREFIX' python3 -c '
import json, os
password = json.loads(os.environ["SECRET_STRING"])["password"]
for special in ("\\\\", ":"):
    password = password.replace(special, "\\\\" + special)
print(os.environ["PREFIX"] + ":" + password)
' >"\$new"
mv -f "\$new" "\$RUNTIME_DIRECTORY/pgpass"
SCRIPT
}

install_password() {
  password_script >"$SBIN/shoal-store-password"
  chmod 755 "$SBIN/shoal-store-password"
  cat >"$UNITS/shoal-store-password.service" <<UNIT
[Unit]
Description=Current password of Shoal's store
Wants=network-online.target
After=network-online.target
Before=shoal-registry.service

[Service]
Type=oneshot
User=shoal
RuntimeDirectory=shoal-store
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
ExecStart=$SBIN/shoal-store-password

[Install]
WantedBy=multi-user.target
UNIT
  cat >"$UNITS/shoal-store-password.timer" <<'UNIT'
[Timer]
OnActiveSec=60s
OnUnitActiveSec=60s
AccuracySec=1s

[Install]
WantedBy=timers.target
UNIT
  systemctl daemon-reload
  systemctl enable shoal-store-password.service
  retry 900 systemctl start shoal-store-password.service &&
    systemctl enable --now shoal-store-password.timer
}

# launched RESULT: CONTINUE puts this host into service, ABANDON has it replaced.
launched() {
  aws autoscaling complete-lifecycle-action --auto-scaling-group-name "$GROUP" \
    --lifecycle-hook-name "$LAUNCH_HOOK" --lifecycle-action-result "$1" --instance-id "$INSTANCE"
}

boot() {
  local -
  set -euo pipefail
  install -d -m 755 "$ETC" "$ETC/catalogue" "$OPT" "$OPT/flavors"
  id shoal >/dev/null 2>&1 || useradd --system --home-dir "$STATE" --shell /sbin/nologin shoal
  install -d -m 750 -o shoal -g shoal "$STATE" "$STATE/host" "$STATE/host/apps"
  retry 600 install_python
  if [ -n "$VOLUME" ]; then
    mount_volume "$VOLUME" "$INSTANCE" "$STATE/store"
    chown shoal:shoal "$STATE/store"
  fi
  if runs api || runs appmanager; then retry 300 fetch_applications; fi
  retry 600 install_shoal
  if [ -n "$CA_BUNDLE" ] && runs registry; then retry 300 fetch "$CA_BUNDLE" "$ETC/rds.pem"; fi
  (
    umask 027
    write_environment
  )
  chgrp shoal "$ETC"/*.env
  chown -R shoal:shoal "$STATE/host"
  write_units "$UNITS"
  systemctl daemon-reload
  if [ -n "$SECRET" ]; then install_password; fi
  # Not by all hosts at once. Services read them again by themselves.
  if [ -n "$CERTIFICATES" ]; then
    install_certificates $'OnCalendar=*:0/5\nRandomizedDelaySec=240s'
  fi
  # Units say when they are ready: in the directory, and so found by callers.
  # shellcheck disable=SC2046
  retry 900 systemctl enable --now $(units)
  systemctl enable --now shoal-lifecycle.service
}

main() {
  set -euo pipefail
  export AWS_REGION=$REGION AWS_DEFAULT_REGION=$REGION
  INSTANCE=$(imds instance-id)
  local failed=0
  # In a process of its own: where "if" or "||" looks at a function, set -e is off inside it.
  set +e
  (boot)
  failed=$?
  set -e
  if [ "$failed" -ne 0 ]; then
    log "this host does not serve; autoscaling replaces it"
    launched ABANDON
    exit 1
  fi
  retry 300 launched CONTINUE
  log "serving: $SERVICES"
}
