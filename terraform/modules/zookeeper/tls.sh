# A node whose ZooKeeper speaks TLS: how it is asked, and how it comes by another certificate. Only
# nodes with certificates get this file, before zookeeper.sh.
# shellcheck shell=bash
# shellcheck disable=SC2153 # names in capitals come from Terraform

# What the server that runs was started with: a copy of the link to its certificate.
: "${STARTED:=/run/shoal-zookeeper/certificate}"

# ask HOST WORD: what the server there says of itself, when this node's certificate asks. Who answers
# is not verified: this is about life, and an ensemble whose certificates have expired must be able
# to take new ones.
ask() {
  local files=$TLS/zookeeper
  printf '%s' "$2" | timeout 5 openssl s_client -quiet -connect "$1:2281" -cert "$files/tls.crt" \
    -cert_chain "$files/tls.crt" -key "$files/tls.key" -CAfile "$files/ca.crt" 2>&1
}

# A server that turns this node's certificate away lives: another instance would do no better.
alive() {
  local said
  said=$(ask "$ADDRESS" ruok)
  case $said in
    *imok*) return 0 ;;
    *"SSL alert number"*) log "ZooKeeper on $ADDRESS lives, and refuses this node's certificate" ;;
    *) return 1 ;;
  esac
}

# serves HOST: whether it belongs to a majority.
serves() {
  [[ "$(ask "$1" srvr)" == *"Mode: "* ]]
}

# A server reads its certificate at its start only. The timer gives each node minutes of its own, and
# there it restarts only while a majority serves without it: one after the other, and none once one
# did not come back. Where there is no majority anyway, nothing can be lost.
restart_in_turn() {
  local peer others=0 size=0
  systemctl is-active --quiet shoal-zookeeper.service || return 0
  [ "$(readlink "$TLS/zookeeper")" != "$(readlink "$STARTED")" ] || return 0
  for peer in $ENSEMBLE; do
    size=$((size + 1))
    if [ "$size" != "$NODE" ] && serves "$peer"; then others=$((others + 1)); fi
  done
  if serves "$ADDRESS" && ((others < size / 2 + 1)); then
    log "node $NODE keeps its old certificate for now: without it $others of $size nodes would serve"
    return 1
  fi
  log "node $NODE restarts with another certificate"
  systemctl restart shoal-zookeeper.service
  retry 40 serves "$ADDRESS"
}

# What the timer runs.
renew_certificate() {
  local failed=0
  fetch_certificates || failed=1
  restart_in_turn || failed=1
  return "$failed"
}
