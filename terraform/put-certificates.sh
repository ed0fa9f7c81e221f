#!/usr/bin/env bash
# Puts what `shoal certs` made into Secrets Manager, where a fleet's hosts take it from.
#
#   put-certificates.sh FLEET CERTS     CERTS/registry/{tls.crt,tls.key,ca.crt}, CERTS/api/…, …
#
# Secrets that are missing are made, FLEET/tls/SERVICE; in the others the new value takes the place of
# the old. Prints the lines for terraform.tfvars. Region and credentials are aws's own (AWS_REGION,
# AWS_PROFILE); KMS_KEY_ID=… makes secrets with a key of your own. Needs aws and jq.
set -euo pipefail

if [ $# -ne 2 ]; then
  sed -n '2,8p' "$0" | cut -c 3- >&2
  exit 2
fi
fleet=$1 certificates=$2
services=(registry api scheduler appmanager zookeeper)

# All or none: what is missing is said before anything is put.
for service in "${services[@]}"; do
  for file in tls.crt tls.key ca.crt; do
    [ -r "$certificates/$service/$file" ] || {
      echo "$certificates/$service/$file can't be read. Make it: shoal certs issue $certificates $service" >&2
      exit 1
    }
  done
done

# put SERVICE: its ARN. The key comes by a pipe, for others may see command lines.
put() {
  local name=$fleet/tls/$1 place=$certificates/$1 said
  local how=(create-secret --name "$name" --tags "Key=shoal:fleet,Value=$fleet"
    --description "Certificate of $1 of fleet $fleet" ${KMS_KEY_ID:+--kms-key-id "$KMS_KEY_ID"})
  if said=$(aws secretsmanager describe-secret --secret-id "$name" 2>&1); then
    how=(put-secret-value --secret-id "$name")
  elif [[ "$said" != *ResourceNotFoundException* ]]; then
    printf '%s\n' "$said" >&2
    return 1
  fi
  jq -n --rawfile certificate "$place/tls.crt" --rawfile key "$place/tls.key" \
    --rawfile authorities "$place/ca.crt" \
    '{"tls.crt": $certificate, "tls.key": $key, "ca.crt": $authorities}' |
    aws secretsmanager "${how[@]}" --secret-string file:///dev/stdin --query ARN --output text
}

lines=()
for service in "${services[@]}"; do
  arn=$(put "$service")
  lines+=("$(printf '  %-10s = "%s"' "$service" "$arn")")
done
printf 'certificates = {\n'
printf '%s\n' "${lines[@]}"
printf '}\n'
