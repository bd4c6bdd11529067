# Builds the cluster's programs once, through the Go module proxy.

build_binaries() {
  mkdir -p "$BIN"
  if [[ ! -x $BIN/kube ]]; then
    say "building Kubernetes $KUBERNETES_VERSION and etcd (4 to 6 minutes on two cores, once)"
    local package=k8s.io/component-base/version
    local flags="-s -w -X $package.gitVersion=$KUBERNETES_VERSION -X $package.gitMajor=1 -X $package.gitMinor=35"
    go_build kube . "$flags"
  fi
  if [[ ! -x $BIN/coredns ]]; then
    say "building CoreDNS (2 minutes, once)"
    go_build coredns github.com/coredns/coredns "-s -w"
  fi
  if [[ ! -x $BIN/helm ]]; then
    say "building Helm (2 minutes, once)"
    go_build helm helm.sh/helm/v4/cmd/helm "-s -w"
  fi
  if [[ ! -x $BIN/pause ]]; then
    gcc -static -O2 -o "$BIN/pause" "$HARNESS/binaries/pause.c"
  fi
  local program
  for program in etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
    ln -sf kube "$BIN/$program"
  done
}

go_build() {
  local name=$1 package=$2 flags=$3
  (cd "$HARNESS/binaries/$name" && CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -o "$BIN/$name.tmp" "$package")
  mv "$BIN/$name.tmp" "$BIN/$name"
}
