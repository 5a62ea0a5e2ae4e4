# Sourced by every command here: where things are, and how processes are kept.
# shellcheck shell=bash disable=SC2034

set -euo pipefail
umask 022

HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/hushpod/cluster
STATE=${HUSHPOD_CLUSTER_DIR:-/var/lib/hushpod-cluster}
BIN=$STATE/bin
LOG=$STATE/log
PKI=$STATE/pki

# The newest, unless an older one of go/kubernetes-VERSION is asked for.
KUBERNETES=kubernetes${HUSHPOD_KUBERNETES:+-$HUSHPOD_KUBERNETES}

NODE=hushpod
BRIDGE=hushpod0
# Everything on the host that pods must reach listens here: they have no other
# way out, and Endpoints refuse loopback addresses.
ADDRESS=10.88.0.1
POD_SUBNET=10.88.0.0/16
SERVICE_SUBNET=10.96.0.0/16
KUBERNETES_SERVICE=10.96.0.1
# Of service accounts' tokens.
ISSUER=https://kubernetes.default.svc.cluster.local
CONTAINERD=$STATE/containerd.sock

export PATH=$BIN:$PATH:/usr/sbin:/sbin
export KUBECONFIG=$STATE/kubeconfig

say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }

die() {
  say "$*"
  exit 1
}

need_root() {
  [[ $EUID == 0 ]] || die "$(basename "$0") must run as root"
  # The kernel's limit on a socket's path, less kubelet's longest: plugins/<driver>/csi.sock.
  ((${#STATE} <= 50)) || die "HUSHPOD_CLUSTER_DIR is too long for the sockets in it: $STATE"
}

# Two commands at once would each see half of the other's work. The lock is on
# the directory above: our own comes and goes.
one_at_a_time() {
  mkdir -p "$(dirname "$STATE")"
  exec 9<"$(dirname "$STATE")"
  flock -w 1800 9 || die "another command has worked on the cluster for half an hour"
}

# wait_for SECONDS WHAT COMMAND...
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || die "gave up waiting for $what"
    sleep 0.1
  done
}

# --- processes ---------------------------------------------------------------
# A pid alone may by now be someone else's: with the start time it is one process.

started_at() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # The name before ")" may hold spaces.
  read -ra stat <<<"${stat##*) }"
  [[ ${stat[0]} != Z ]] && printf '%s\n' "${stat[19]}"
}

# process NAME: its pid, if it is still the one that we started
process() {
  local pid start
  read -r pid start 2>/dev/null <"$STATE/run/$1.pid" || return 1
  [[ $(started_at "$pid") == "$start" ]] && printf '%s\n' "$pid"
}

running() { process "$1" >/dev/null; }

# start NAME COMMAND...
start() {
  local name=$1
  shift
  running "$name" && return
  mkdir -p "$STATE/run" "$LOG"
  # Containers start with what is ignored here (SIGHUP, where this runs under nohup), and a shell cannot trap that.
  setsid env --default-signal "$@" </dev/null >>"$LOG/$name.log" 2>&1 9<&- &
  printf '%s %s\n' $! "$(started_at $!)" >"$STATE/run/$name.pid"
}

# stop NAME [SIGNAL]
stop() {
  local pid
  if pid=$(process "$1"); then
    kill "-${2:-TERM}" "$pid" 2>/dev/null || true
    for _ in {1..100}; do
      running "$1" || break
      sleep 0.1
    done
    if running "$1"; then kill -KILL "$pid"; fi
  fi
  rm -f "$STATE/run/$1.pid"
}

# started NAME SECONDS COMMAND...: waits until COMMAND says that NAME serves
started() {
  local name=$1 deadline=$((SECONDS + $2))
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ! running "$name" || ((SECONDS >= deadline)); then
      tail -n 20 "$LOG/$name.log" >&2
      die "$name did not start: see $LOG/$name.log"
    fi
    sleep 0.1
  done
}

# --- binaries ----------------------------------------------------------------

# version NAME: go/NAME/go.mod is the one place that says it
version() { awk '$1 == "require" { print $3; exit }' "$HERE/go/$1/go.mod"; }

# key NAME: the directory in the cache; it changes with anything that the build reads
key() {
  local sum
  sum=$(find "$HERE/go/$1/" -type f -print0 | LC_ALL=C sort -z | xargs -0 cat | sha256sum)
  printf '%s-%s-%s\n' "$1" "$(version "$1")" "${sum:0:8}"
}

# use NAME...: builds what the cache lacks, and puts the programs on the PATH
use() {
  local directory built
  built=$("$HERE/build" "$@")
  mkdir -p "$BIN"
  for directory in $built; do
    ln -sfn "$directory"/* "$BIN/"
  done
}
