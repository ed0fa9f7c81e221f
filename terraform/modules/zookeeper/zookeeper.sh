# One node of the ensemble. Terraform says:
#   NODE                     its number, 1 to 5
#   ENSEMBLE                 the DNS names of all nodes, in order
#   ADDRESS, INTERFACE       the fixed address and the network interface that has it
#   VOLUME                   the volume with its data
#   GROUP, REGION            its autoscaling group
#   ARCHIVE, ARCHIVE_SHA256  ZooKeeper
#   HEAP_MB                  memory of the JVM
#   CERTIFICATES             "zookeeper=" and the secret of the nodes' certificate; empty: plain text
# shellcheck shell=bash

: "${DATA:=/var/lib/zookeeper}" "${CERTIFICATES:=}" "${READERS:=zookeeper}"

# Where clients come in, and with certificates what they and the other nodes show, and are shown.
# Names of hosts are not looked at: certificates name services (docs/security.md).
doors() {
  if [ -z "$CERTIFICATES" ]; then
    printf '%s\n' clientPort=2181 "clientPortAddress=$ADDRESS"
    return
  fi
  cat <<CFG
secureClientPort=2281
secureClientPortAddress=$ADDRESS
serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory
authProvider.x509=org.apache.zookeeper.server.auth.X509AuthenticationProvider
sslQuorum=true
CFG
  local prefix
  for prefix in ssl ssl.quorum; do
    cat <<CFG
$prefix.clientAuth=need
$prefix.hostnameVerification=false
$prefix.keyStore.location=$TLS/zookeeper/zookeeper.pem
$prefix.keyStore.type=PEM
$prefix.trustStore.location=$TLS/zookeeper/ca.crt
$prefix.trustStore.type=PEM
CFG
  done
}

zoo_cfg() {
  local number=0 name
  cat <<CFG
tickTime=2000
initLimit=10
syncLimit=5
dataDir=$DATA
$(doors)
maxClientCnxns=200
admin.enableServer=false
4lw.commands.whitelist=ruok,srvr,mntr
autopurge.snapRetainCount=5
autopurge.purgeInterval=6
CFG
  for name in $ENSEMBLE; do
    number=$((number + 1))
    printf 'server.%d=%s:2888:3888\n' "$number" "$name"
  done
}

address_is_here() {
  ip -4 -o address show | grep -qF " $ADDRESS/"
}

# interface_is_here INSTANCE: like volumes, interfaces leave a dying instance late.
interface_is_here() {
  address_is_here ||
    aws ec2 attach-network-interface --network-interface-id "$INTERFACE" --instance-id "$1" \
      --device-index 1 >/dev/null || return 1
  address_is_here
}

service_unit() {
  local before='' properties=''
  if [ -n "$CERTIFICATES" ]; then
    before="
RuntimeDirectory=shoal-zookeeper
ExecStartPre=/usr/bin/cp -PT --remove-destination $TLS/zookeeper $STARTED"
    # May mend any node's ACL.
    properties=' -Dzookeeper.X509AuthenticationProvider.superUser=CN=operator.shoal.internal'
  fi
  cat <<UNIT
[Unit]
Description=ZooKeeper, node $NODE
Wants=network-online.target
After=network-online.target
RequiresMountsFor=$DATA
StartLimitIntervalSec=0

[Service]
User=zookeeper$before
ExecStart=/usr/bin/java -Xms${HEAP_MB}m -Xmx${HEAP_MB}m -XX:+ExitOnOutOfMemoryError$properties -cp /etc/zookeeper:/opt/zookeeper/lib/* org.apache.zookeeper.server.quorum.QuorumPeerMain /etc/zookeeper/zoo.cfg
Restart=always
RestartSec=2
SuccessExitStatus=143
LimitNOFILE=65536
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ReadWritePaths=$DATA

[Install]
WantedBy=multi-user.target
UNIT
}

# How the health script finds out; with certificates by functions of tls.sh.
look() {
  if [ -n "$CERTIFICATES" ]; then
    declare -p ADDRESS TLS
    declare -f log ask alive
    return
  fi
  cat <<SCRIPT
answer() {
  exec 3<>/dev/tcp/$ADDRESS/2181 && printf ruok >&3 && cat <&3
}
export -f answer
alive() {
  [ "\$(timeout 5 bash -c answer 2>/dev/null)" = imok ]
}
SCRIPT
}

# Asks for another instance when the server here has not answered for five minutes. ruok speaks of
# this server alone, and a server without a majority answers it: an ensemble that has lost its quorum
# is never replaced under its feet.
health_script() {
  cat <<SCRIPT
#!/bin/bash
failures=/run/shoal-zookeeper-failures
$(look)
if alive; then
  rm -f "\$failures"
  exit 0
fi
printf . >>"\$failures"
count=\$(stat -c %s "\$failures")
echo "ZooKeeper on $ADDRESS did not answer, \$count of 10 times"
[ "\$count" -lt 10 ] && exit 0
token=\$(curl -sSf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' $IMDS/latest/api/token) || exit 1
instance=\$(curl -sSf -H "X-aws-ec2-metadata-token: \$token" $IMDS/latest/meta-data/instance-id) || exit 1
exec aws autoscaling set-instance-health --region $REGION --instance-id "\$instance" --health-status Unhealthy
SCRIPT
}

install_health() {
  health_script >/usr/local/sbin/shoal-zookeeper-health
  chmod 755 /usr/local/sbin/shoal-zookeeper-health
  cat >/etc/systemd/system/shoal-zookeeper-health.service <<'UNIT'
[Unit]
Description=Does ZooKeeper answer?

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/shoal-zookeeper-health
UNIT
  cat >/etc/systemd/system/shoal-zookeeper-health.timer <<'UNIT'
[Timer]
OnBootSec=15min
OnUnitActiveSec=30s
AccuracySec=1s

[Install]
WantedBy=timers.target
UNIT
  systemctl daemon-reload
  systemctl enable --now shoal-zookeeper-health.timer
}

install_zookeeper() {
  local packed=/var/tmp/zookeeper.tar.gz
  dnf install -y java-17-amazon-corretto-headless ${CERTIFICATES:+openssl} &&
    fetch_checked "$ARCHIVE" "$ARCHIVE_SHA256" "$packed" &&
    mkdir -p /opt/zookeeper &&
    tar -xzf "$packed" -C /opt/zookeeper --strip-components 1 &&
    rm -f "$packed" &&
    { id zookeeper >/dev/null 2>&1 || useradd --system --no-create-home --shell /sbin/nologin zookeeper; }
}

main() {
  set -euo pipefail
  local instance
  export AWS_REGION=$REGION AWS_DEFAULT_REGION=$REGION
  # First of all, for it also has an instance replaced whose installation failed.
  install_health
  instance=$(imds instance-id)
  retry 900 install_zookeeper
  mount_volume "$VOLUME" "$instance" "$DATA"
  retry 900 interface_is_here "$instance"
  mkdir -p /etc/zookeeper
  if [ -n "$CERTIFICATES" ]; then
    # Minute N-1 of every five is node N's.
    install_certificates "OnCalendar=*:$((NODE - 1))/5" RETRY_PAUSE NODE ENSEMBLE ADDRESS STARTED \
      retry ask serves restart_in_turn renew_certificate
  fi
  cp /opt/zookeeper/conf/logback.xml /etc/zookeeper/
  zoo_cfg >/etc/zookeeper/zoo.cfg
  printf '%s\n' "$NODE" >"$DATA/myid"
  chown -R zookeeper:zookeeper "$DATA"
  service_unit >/etc/systemd/system/shoal-zookeeper.service
  systemctl daemon-reload
  systemctl enable --now shoal-zookeeper.service
  log "ZooKeeper node $NODE runs on $ADDRESS"
}
