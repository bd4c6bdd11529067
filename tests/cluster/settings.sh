# Settings of the local cluster; sourced by `cluster` and its parts.
# Every address lies in 198.18.0.0/15, the range reserved for benchmarks.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
HARNESS=$ROOT/tests/cluster
CACHE=${CLUSTER_CACHE:-$ROOT/.cache}
STATE=${CLUSTER_STATE:-$CACHE/cluster}
# Tells the next run, maybe of another checkout, whose cluster is up.
MARKER=/run/realtime-cluster
NODES=${CLUSTER_NODES:-3}
KUBERNETES_VERSION=v1.35.4

BRIDGE=rt-bridge
HOST_IP=198.18.0.1
NODE_PREFIX=rt-node
CLIENTS=rt-clients
SERVICE_CIDR=198.19.0.0/16
POD_CIDR=198.18.8.0/21
API=https://$HOST_IP:6443

# Binaries live in a folder named by what they are built from.
BIN=$CACHE/cluster-bin-$(cat "$HARNESS"/binaries/*/go.sum "$HARNESS"/binaries/*/*.go 2>/dev/null | sha256sum | cut -c1-12)

export KUBECONFIG=$STATE/admin.kubeconfig
export PATH=$BIN:$PATH

node_name() { echo "$NODE_PREFIX$1"; }
node_ip() { echo "198.18.0.1$1"; }
node_pods() { echo "198.18.$((8 + $1)).0/24"; }

say() { printf '\033[2m%s\033[0m %s\n' "$(date +%T)" "$*" >&2; }
die() { printf '\033[31merror:\033[0m %s\n' "$*" >&2; exit 1; }

# Waits until a command succeeds: wait_for SECONDS WHAT COMMAND...
wait_for() {
  local seconds=$1 what=$2 start=$SECONDS
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS - start < seconds)) || { say "not within $seconds s: $what"; return 1; }
    sleep 0.2
  done
}

# Starts a program in the background and records its process id: launch NAME COMMAND...
launch() {
  local name=$1
  shift
  setsid "$@" >"$STATE/log/$name.log" 2>&1 </dev/null &
  echo $! >"$STATE/pid/$name"
}
