# containerd, kubelet and kube-proxy: what makes this machine a node.
# shellcheck shell=bash

KUBELET=$STATE/kubelet
PAUSE_IMAGE=localhost/hushpod-test/pause:latest

# Where the machine has cgroup v1, every call would warn of its end.
ctr() { CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1 command ctr --address "$CONTAINERD" --namespace k8s.io "$@"; }

containerd_up() {
  # restrict_oom_score_adj: without CAP_SYS_RESOURCE runc cannot give the pause
  # container the score that kubelet asks for, and dies. NRI would take its
  # socket and plugins from outside the state directory.
  cat >"$STATE/containerd.toml" <<EOF
version = 3
root = "$STATE/containerd"
state = "$STATE/run/containerd"
[grpc]
  address = "$CONTAINERD"
[plugins."io.containerd.internal.v1.opt"]
  path = "$STATE/containerd/opt"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "$PAUSE_IMAGE"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "$STATE/cni"
EOF
  mkdir -p "$STATE/run"
  start containerd containerd --config "$STATE/containerd.toml" --log-level warn
  started containerd 60 ctr version
}

kubelet_up() {
  # Images come from no registry: once collected, one would be gone for good.
  mkdir -p "$KUBELET"
  cat >"$STATE/kubelet.yaml" <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $ADDRESS
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $PKI/cluster.crt}
authorization: {mode: Webhook}
tlsCertFile: $PKI/kubelet-server.crt
tlsPrivateKeyFile: $PKI/kubelet-server.key
cgroupDriver: cgroupfs
featureGates: {EnvFiles: true, ImageVolume: true}
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix://$CONTAINERD
clusterDomain: cluster.local
clusterDNS: [$ADDRESS]
resolvConf: ""
podLogsDir: $LOG/pods
maxPods: 150
imageGCHighThresholdPercent: 100
evictionHard:
  memory.available: 50Mi
  nodefs.available: 1%
  imagefs.available: 1%
EOF
  # What a CSI driver mounts in its pod must be seen by kubelet.
  mount --make-rshared /
  start kubelet kubelet --config "$STATE/kubelet.yaml" --kubeconfig "$PKI/kubelet.kubeconfig" \
    --hostname-override "$NODE" --node-ip "$ADDRESS" --root-dir "$KUBELET" --cert-dir "$KUBELET/pki"
  started kubelet 60 curl -fsS http://127.0.0.1:10248/healthz
}

kube_proxy_up() {
  # Masquerade everything: pods on one bridge would otherwise answer each other
  # directly, past the address translation that their requests went through.
  start kube-proxy kube-proxy --kubeconfig "$PKI/kube-proxy.kubeconfig" --hostname-override "$NODE" \
    --proxy-mode iptables --masquerade-all --cluster-cidr "$POD_SUBNET" --conntrack-max-per-core 0 \
    --healthz-bind-address 127.0.0.1:10256 --metrics-bind-address 127.0.0.1:10249
  started kube-proxy 60 curl -fsS http://127.0.0.1:10256/healthz
}

# Prints the network namespace of every pod in containerd.
pod_namespaces() {
  local container
  for container in $(ctr containers ls -q 2>/dev/null); do
    ctr containers info "$container" 2>/dev/null |
      jq -r '.Spec.linux.namespaces[]? | select(.type == "network" and .path) | .path'
  done | sort -u
}

# Shims outlive containerd by design; they name its socket in their command line.
shims() {
  local process
  for process in /proc/[0-9]*; do
    [[ $(tr '\0' ' ' 2>/dev/null <"$process/cmdline") != *"containerd-shim-runc-v2 "*" -address $CONTAINERD "* ]] ||
      echo "${process#/proc/}"
  done
}

node_down() {
  local task container namespace shim hierarchy
  stop kubelet KILL
  stop kube-proxy
  if [[ -e $STATE/containerd.toml ]]; then
    # Only it can tell which processes are its containers'.
    containerd_up
    for task in $(ctr tasks ls -q); do
      ctr tasks kill --signal KILL --all "$task" &>/dev/null || true
    done
    for namespace in $(pod_namespaces); do
      ip netns delete "$(basename "$namespace")" 2>/dev/null || true
    done
    for container in $(ctr containers ls -q); do
      ctr tasks delete --force "$container" &>/dev/null || true
      ctr containers delete "$container" &>/dev/null || true
    done
  fi
  stop containerd
  for shim in $(shims); do kill -KILL "$shim" 2>/dev/null || true; done

  for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [[ ! -d $hierarchy/kubepods ]] || find "$hierarchy/kubepods" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}
