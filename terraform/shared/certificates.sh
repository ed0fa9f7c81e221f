# Certificates of the services on a host, from Secrets Manager; only hosts of a fleet that has some
# get this file, between common.sh and the role's own. Terraform says:
#   CERTIFICATES   what runs here, each with its secret: "registry=arn:… api=arn:…"
#   REGION         where the secrets are
# and the role's own script READERS, the group that may read them. A secret is a JSON object
# {"tls.crt": …, "tls.key": …, "ca.crt": …}, as put-certificates.sh puts it there.
# shellcheck shell=bash
# shellcheck disable=SC2153 # names in capitals come from Terraform

: "${TLS:=/etc/shoal/tls}" "${UNITS:=/etc/systemd/system}" "${SBIN:=/usr/local/sbin}"

# unpack SERVICE SECRET DIRECTORY: what the secret holds, as files. The key passes through pipes
# only, never through a command line or an environment, which others may see.
unpack() {
  local said
  said=$(aws secretsmanager get-secret-value --region "$REGION" --secret-id "$2" \
    --query SecretString --output text) || return 1
  printf '%s' "$said" | python3 -c '
import json, pathlib, sys
try:
    secret = json.load(sys.stdin)
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (pathlib.Path(sys.argv[1]) / name).write_text(secret[name])
except (LookupError, TypeError, ValueError) as error:
    sys.exit(f"the secret must be a JSON object of tls.crt, tls.key and ca.crt: {error}")
' "$3" || return 1
  # Java wants key and certificate in one file, and the key in PKCS 8.
  if [ "$1" = zookeeper ]; then
    { openssl pkey -in "$3/tls.key" && cat "$3/tls.crt"; } >"$3/zookeeper.pem" || return 1
  fi
}

# sound SERVICE DIRECTORY: whether the certificate holds today, by these authorities and for this
# service, and the key is its. What is not so must not take the place of what works.
sound() {
  openssl verify -no-CApath -no-CAstore -CAfile "$2/ca.crt" -untrusted "$2/tls.crt" \
    -verify_hostname "$1.shoal.internal" "$2/tls.crt" >/dev/null || return 1
  if [ "$(openssl x509 -in "$2/tls.crt" -noout -pubkey)" != \
    "$(openssl pkey -in "$2/tls.key" -pubout)" ]; then
    log "tls.key is not the key of tls.crt"
    return 1
  fi
}

# take_certificate SERVICE SECRET: $TLS/SERVICE leads to the files of the moment. All of them are
# replaced at once, by a link that is put in the place of another.
take_certificate() {
  local place=$TLS/$1 new each
  new=$(mktemp -d "$place.XXXXXX") || return 1
  if ! { unpack "$1" "$2" "$new" && sound "$1" "$new"; }; then
    rm -rf "$new"
    log "what $2 holds is no certificate for $1; what was there stays"
    return 1
  fi
  if [ "$(cat "$new"/*)" = "$(cat "$place"/* 2>/dev/null)" ]; then
    rm -rf "$new"
    return 0
  fi
  chown -R "root:$READERS" "$new" && chmod 640 "$new"/* && chmod 750 "$new" &&
    ln -s "${new##*/}" "$new.link" && mv -fT "$new.link" "$place" || return 1
  for each in "$place".*; do
    if [ "$each" != "$new" ]; then rm -rf "$each"; fi
  done
  log "$1 has another certificate"
}

# Each in turn; one that fails holds up none of the others.
fetch_certificates() {
  local each failed=0
  mkdir -p "$TLS" || return 1
  for each in $CERTIFICATES; do
    take_certificate "${each%%=*}" "${each#*=}" || failed=1
  done
  return "$failed"
}

# certificates_script NAME…: a program of what is here, and of these variables and functions; the
# last is what it runs.
certificates_script() {
  local name
  printf '#!/bin/bash\nset -uo pipefail\n'
  for name in TLS REGION CERTIFICATES READERS log unpack sound take_certificate fetch_certificates "$@"; do
    declare -p "$name" 2>/dev/null || declare -f "$name"
  done
  printf '%s\n' "$name"
}

# install_certificates TIMER NAME…: they are here, and are fetched again when the timer's lines say.
install_certificates() {
  local timer=$1
  shift
  retry 300 fetch_certificates || return 1
  certificates_script "$@" >"$SBIN/shoal-certificates"
  chmod 755 "$SBIN/shoal-certificates"
  cat >"$UNITS/shoal-certificates.service" <<UNIT
[Unit]
Description=Current certificates of Shoal's services
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart=$SBIN/shoal-certificates
UNIT
  cat >"$UNITS/shoal-certificates.timer" <<UNIT
[Timer]
$timer
AccuracySec=1s

[Install]
WantedBy=timers.target
UNIT
  systemctl daemon-reload
  systemctl enable --now shoal-certificates.timer
}
