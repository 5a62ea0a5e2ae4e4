# The bridge that pods and host share, and what the kernel must allow.
# shellcheck shell=bash

network_up() {
  if ! ip link show "$BRIDGE" &>/dev/null; then
    # Without an address of its own a bridge takes its lowest port's, which
    # changes as pods come and go, and pods keep the old one cached.
    ip link add "$BRIDGE" address 02:88:00:00:00:01 type bridge
    ip address add "$ADDRESS/${POD_SUBNET#*/}" dev "$BRIDGE"
  fi
  ip link set "$BRIDGE" up

  sysctl -qw net.ipv4.ip_forward=1
  # Nearly every distribution has these; where they are off, an agent that
  # follows a link it must not follow would go unnoticed.
  sysctl -qw fs.protected_symlinks=1 fs.protected_hardlinks=1
  # Each agent watches files, and so does kubelet; the kernel's 128 are soon gone.
  (($(sysctl -n fs.inotify.max_user_instances) >= 1024)) || sysctl -qw fs.inotify.max_user_instances=1024

  # Docker's daemon, where there is one, makes DROP the policy.
  local direction
  for direction in -i -o; do
    iptables -w -C FORWARD "$direction" "$BRIDGE" -j ACCEPT 2>/dev/null ||
      iptables -w -I FORWARD "$direction" "$BRIDGE" -j ACCEPT
  done

  mkdir -p "$STATE/cni"
  cat >"$STATE/cni/10-hushpod.conflist" <<EOF
{
  "cniVersion": "1.0.0",
  "name": "hushpod",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "$BRIDGE",
      "isGateway": false,
      "ipam": {
        "type": "host-local",
        "dataDir": "$STATE/ipam",
        "ranges": [[{"subnet": "$POD_SUBNET", "rangeStart": "${ADDRESS%.*.*}.1.1", "gateway": "$ADDRESS"}]],
        "routes": [{"dst": "0.0.0.0/0", "gw": "$ADDRESS"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
EOF
}

network_down() {
  local tables rules
  for tables in iptables ip6tables; do
    rules=$("$tables-save" 2>/dev/null) || continue
    grep -qE 'KUBE-|CNI-' <<<"$rules" || continue
    # Chains of kube-proxy, kubelet and portmap, and the jumps to them.
    grep -vE '(^:| )(KUBE-|CNI-)' <<<"$rules" | "$tables-restore" -w || say "$tables: some rules of the cluster remain"
  done
  local direction
  for direction in -i -o; do
    while iptables -w -D FORWARD "$direction" "$BRIDGE" -j ACCEPT 2>/dev/null; do :; done
  done
  if ip link show "$BRIDGE" &>/dev/null; then ip link delete "$BRIDGE"; fi
}
