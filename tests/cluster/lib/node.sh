# A node: containerd, kubelet and kube-proxy in the node's network namespace.
# `nsenter --net`, not `ip netns exec`: that remounts /sys and hides the cgroups.

node_up() {
  local n=$1 name dir
  name=$(node_name "$n")
  dir=$STATE/nodes/$name
  mkdir -p "$dir"/{cni,containerd,run,kubelet,ipam}
  make_cgroups "$name"
  node_files "$n" "$name" "$dir"
  launch "$name-containerd" nsenter --net=/run/netns/"$name" containerd --config "$dir/containerd.toml"
  wait_for 20 "containerd of $name" ctr -a "$dir/run/containerd.sock" version || die "see $STATE/log/$name-containerd.log"
  ctr -a "$dir/run/containerd.sock" -n k8s.io images import "$STATE/pause.tar" >/dev/null
  launch "$name-kubelet" nsenter --net=/run/netns/"$name" kubelet --config "$dir/kubelet.yaml" \
    --kubeconfig "$STATE/$name.kubeconfig" --root-dir "$dir/kubelet" --hostname-override "$name" \
    --node-ip "$(node_ip "$n")" --node-labels "topology.kubernetes.io/zone=zone-$n"
  launch "$name-proxy" nsenter --net=/run/netns/"$name" kube-proxy --config "$dir/proxy.yaml" --hostname-override "$name"
}

make_cgroups() {
  local controller group
  for controller in /sys/fs/cgroup/*/; do
    group=$controller$1
    mkdir -p "$group" 2>/dev/null || continue
    if [[ -f $group/cpuset.cpus ]]; then
      cat "$controller/cpuset.cpus" >"$group/cpuset.cpus"
      cat "$controller/cpuset.mems" >"$group/cpuset.mems"
    fi
  done
}

node_files() {
  local n=$1 name=$2 dir=$3
  cat >"$dir/containerd.toml" <<TOML
version = 2
root = "$dir/containerd/root"
state = "$dir/containerd/state"
[grpc]
  address = "$dir/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # Without CAP_SYS_RESOURCE no process may lower its OOM score.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$dir/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
[plugins."io.containerd.internal.v1.opt"]
  path = "$dir/containerd/opt"
TOML
  cat >"$dir/cni/10-bridge.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$dir/ipam", "ranges": [[{"subnet": "$(node_pods "$n")"}]],
            "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  cat >"$dir/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://$dir/run/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$name
failCgroupV1: false
enforceNodeAllocatable: []
failSwapOn: false
localStorageCapacityIsolation: false
evictionHard: {"memory.available": "1Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
clusterDomain: cluster.local
clusterDNS: ["$HOST_IP"]
resolvConf: /dev/null
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$PKI/ca.crt"}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/$name.crt
tlsPrivateKeyFile: $PKI/$name.key
nodeStatusUpdateFrequency: 4s
nodeLeaseDurationSeconds: 12
syncFrequency: 10s
configMapAndSecretChangeDetectionStrategy: Watch
podLogsDir: $dir/pod-logs
maxPods: 110
serializeImagePulls: false
healthzBindAddress: 127.0.0.1
YAML
  cat >"$dir/proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: "$STATE/proxy.kubeconfig"}
mode: iptables
clusterCIDR: $POD_CIDR
conntrack: {maxPerCore: 0}
iptables: {minSyncPeriod: 0s, syncPeriod: 30s}
YAML
}
