# Functions that hosts of both roles use. Terraform puts this file in front of a role's own boot
# script, and what the host must know (names in capitals) in front of both; the last line of user
# data calls main. Nothing runs here, so that tests can source it.
# shellcheck shell=bash

: "${IMDS:=http://169.254.169.254}" "${RETRY_PAUSE:=5}" "${DISKS:=/dev/disk/by-id}"

log() {
  printf 'shoal: %s\n' "$*" >&2
}

# retry SECONDS COMMAND…: until the command succeeds, or the time is over.
retry() {
  local seconds=$1
  local deadline=$((SECONDS + seconds))
  shift
  until "$@"; do
    if ((SECONDS >= deadline)); then
      log "gave up after $seconds s: $*"
      return 1
    fi
    sleep "$RETRY_PAUSE"
  done
}

# imds PATH: what the instance's metadata says, by a session's token (IMDSv2).
imds() {
  local token
  token=$(curl -sSf --max-time 5 --retry 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
    "$IMDS/latest/api/token") || return 1
  curl -sSf --max-time 5 --retry 5 -H "X-aws-ec2-metadata-token: $token" "$IMDS/latest/meta-data/$1"
}

# fetch URL FILE: from S3 by the instance's role, else by HTTPS.
fetch() {
  case "$1" in
    s3://*) aws s3 cp --only-show-errors "$1" "$2" ;;
    https://*) curl -sSfL --proto '=https' --retry 5 --output "$2" "$1" ;;
    *)
      log "neither s3:// nor https://: $1"
      return 1
      ;;
  esac
}

# fetch_checked URL SHA256 FILE
fetch_checked() {
  fetch "$1" "$3" || return 1
  sha256sum --check --status <<<"$2  $3" || {
    log "$1 is not what its SHA-256 says"
    rm -f "$3"
    return 1
  }
}

device_of() {
  printf '%s/nvme-Amazon_Elastic_Block_Store_%s' "$DISKS" "${1/-/}"
}

# attached VOLUME INSTANCE: true once the device is here. A volume stays with a dying instance until
# that is gone, and AWS refuses meanwhile: whoever waits asks again.
attached() {
  [ -e "$(device_of "$1")" ] ||
    aws ec2 attach-volume --volume-id "$1" --instance-id "$2" --device /dev/sdf >/dev/null || return 1
  [ -e "$(device_of "$1")" ]
}

# format_if_blank DEVICE: never touches what holds anything. blkid says the same of a blank disk, of
# one that can't be read and of what it does not know; only what begins with a MiB of zeros is blank.
format_if_blank() {
  local bytes
  if blkid -p "$1" >/dev/null; then return 0; fi
  bytes=$(set -o pipefail && head -c 1048576 "$1" | tr -d '\0' | wc -c) || bytes=unread
  if [ "$bytes" != 0 ]; then
    log "$1 can't be read, or holds something unknown: left alone"
    return 1
  fi
  mkfs.ext4 -q -F "$1"
}

# mount_volume VOLUME INSTANCE DIRECTORY: attached, formatted when blank, mounted now and at reboots.
mount_volume() {
  local device
  retry 900 attached "$1" "$2" || return 1
  device=$(device_of "$1")
  format_if_blank "$device" || return 1
  mkdir -p "$3"
  grep -qsF "$device " /etc/fstab ||
    printf '%s %s ext4 defaults,nofail,x-systemd.device-timeout=30s 0 2\n' "$device" "$3" >>/etc/fstab
  systemctl daemon-reload
  mountpoint -q "$3" || mount "$3"
}
