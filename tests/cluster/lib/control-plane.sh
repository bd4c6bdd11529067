# etcd, API server, controller manager, scheduler and DNS, on the host.

control_plane_up() {
  launch etcd etcd --data-dir "$STATE/etcd" --unsafe-no-fsync --log-level error \
    --listen-client-urls "http://127.0.0.1:23790" --advertise-client-urls "http://127.0.0.1:23790" \
    --listen-peer-urls "http://127.0.0.1:23800" --initial-advertise-peer-urls "http://127.0.0.1:23800" \
    --initial-cluster "default=http://127.0.0.1:23800"
  apiserver_up
  wait_for 60 "API server" kubectl --request-timeout=2s get --raw /readyz || die "see $STATE/log/apiserver.log"
  launch controller-manager kube-controller-manager --kubeconfig "$STATE/controller-manager.kubeconfig" \
    --leader-elect=false --cluster-cidr "$POD_CIDR" --service-cluster-ip-range "$SERVICE_CIDR" \
    --service-account-private-key-file "$PKI/sa.key" --root-ca-file "$PKI/ca.crt" \
    --use-service-account-credentials --node-monitor-period=2s --node-monitor-grace-period=16s \
    --cluster-signing-cert-file "$PKI/ca.crt" --cluster-signing-key-file "$PKI/ca.key" --bind-address 127.0.0.1
  launch scheduler kube-scheduler --kubeconfig "$STATE/scheduler.kubeconfig" --leader-elect=false --bind-address 127.0.0.1
  cat >"$STATE/Corefile" <<CORE
.:53 {
  bind $HOST_IP
  errors
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $STATE/admin.kubeconfig local
    pods insecure
    ttl 5
  }
}
CORE
  launch coredns coredns -conf "$STATE/Corefile"
}

# On its own, so that a test can restart it.
apiserver_up() {
  launch apiserver kube-apiserver --etcd-servers http://127.0.0.1:23790 --secure-port 6443 \
    --advertise-address "$HOST_IP" --service-cluster-ip-range "$SERVICE_CIDR" \
    --tls-cert-file "$PKI/apiserver.crt" --tls-private-key-file "$PKI/apiserver.key" --client-ca-file "$PKI/ca.crt" \
    --service-account-key-file "$PKI/sa.pub" --service-account-signing-key-file "$PKI/sa.key" \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --kubelet-client-certificate "$PKI/kubelet-client.crt" --kubelet-client-key "$PKI/kubelet-client.key" \
    --kubelet-certificate-authority "$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --requestheader-client-ca-file "$PKI/front-proxy-ca.crt" --requestheader-allowed-names front-proxy-client \
    --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
    --requestheader-extra-headers-prefix X-Remote-Extra- --proxy-client-cert-file "$PKI/front-proxy.crt" \
    --proxy-client-key-file "$PKI/front-proxy.key" --enable-aggregator-routing=true \
    --authorization-mode Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true
}
