# One node of the ensemble. Terraform says:
#   NODE                     its number, 1 to 5
#   ENSEMBLE                 the DNS names of all nodes, in order
#   ADDRESS, INTERFACE       the fixed address and the network interface that has it
#   VOLUME                   the volume with its data
#   GROUP, REGION            its autoscaling group
#   ARCHIVE, ARCHIVE_SHA256  ZooKeeper
#   HEAP_MB                  memory of the JVM
# shellcheck shell=bash

: "${DATA:=/var/lib/zookeeper}"

zoo_cfg() {
  local number=0 name
  cat <<CFG
tickTime=2000
initLimit=10
syncLimit=5
dataDir=$DATA
clientPort=2181
clientPortAddress=$ADDRESS
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
  cat <<UNIT
[Unit]
Description=ZooKeeper, node $NODE
Wants=network-online.target
After=network-online.target
RequiresMountsFor=$DATA
StartLimitIntervalSec=0

[Service]
User=zookeeper
ExecStart=/usr/bin/java -Xms${HEAP_MB}m -Xmx${HEAP_MB}m -XX:+ExitOnOutOfMemoryError -cp /etc/zookeeper:/opt/zookeeper/lib/* org.apache.zookeeper.server.quorum.QuorumPeerMain /etc/zookeeper/zoo.cfg
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

# Asks for another instance when the server here has not answered for five minutes. ruok speaks of
# this server alone, and a server without a majority answers it: an ensemble that has lost its quorum
# is never replaced under its feet.
health_script() {
  cat <<SCRIPT
#!/bin/bash
failures=/run/shoal-zookeeper-failures
answer() {
  exec 3<>/dev/tcp/$ADDRESS/2181 && printf ruok >&3 && cat <&3
}
export -f answer
if [ "\$(timeout 5 bash -c answer 2>/dev/null)" = imok ]; then
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
  dnf install -y java-17-amazon-corretto-headless &&
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
  cp /opt/zookeeper/conf/logback.xml /etc/zookeeper/
  zoo_cfg >/etc/zookeeper/zoo.cfg
  printf '%s\n' "$NODE" >"$DATA/myid"
  chown -R zookeeper:zookeeper "$DATA"
  service_unit >/etc/systemd/system/shoal-zookeeper.service
  systemctl daemon-reload
  systemctl enable --now shoal-zookeeper.service
  log "ZooKeeper node $NODE runs on $ADDRESS"
}
