# The cluster's certificates, made anew for each cluster.

make_certificates() {
  PKI=$STATE/pki
  mkdir -p "$PKI"
  authority ca cluster
  authority front-proxy-ca front-proxy
  openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/sa.key" 2>/dev/null
  openssl ec -in "$PKI/sa.key" -pubout -out "$PKI/sa.pub" 2>/dev/null
  certificate apiserver ca "/CN=kube-apiserver" \
    "IP:$HOST_IP,IP:127.0.0.1,IP:198.19.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost"
  certificate front-proxy front-proxy-ca "/CN=front-proxy-client"
  certificate admin ca "/O=system:masters/CN=admin"
  certificate controller-manager ca "/CN=system:kube-controller-manager"
  certificate scheduler ca "/CN=system:kube-scheduler"
  certificate proxy ca "/CN=system:kube-proxy"
  certificate kubelet-client ca "/O=system:masters/CN=apiserver-kubelet-client"
  local n
  for n in $(seq "$NODES"); do
    certificate "$(node_name "$n")" ca "/O=system:nodes/CN=system:node:$(node_name "$n")" "IP:$(node_ip "$n"),DNS:$(node_name "$n")"
  done
  kubeconfig admin admin
  kubeconfig controller-manager controller-manager
  kubeconfig scheduler scheduler
  kubeconfig proxy proxy
  for n in $(seq "$NODES"); do kubeconfig "$(node_name "$n")" "$(node_name "$n")"; done
}

authority() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
    -keyout "$PKI/$1.key" -out "$PKI/$1.crt" -subj "/CN=$2" 2>/dev/null
}

certificate() {
  local name=$1 authority=$2 subject=$3 names=${4:-}
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
    -keyout "$PKI/$name.key" -out "$PKI/$name.csr" -subj "$subject" 2>/dev/null
  {
    echo "keyUsage=digitalSignature"
    echo "extendedKeyUsage=clientAuth,serverAuth"
    [[ -z $names ]] || echo "subjectAltName=$names"
  } >"$PKI/$name.ext"
  openssl x509 -req -in "$PKI/$name.csr" -CA "$PKI/$authority.crt" -CAkey "$PKI/$authority.key" \
    -CAcreateserial -days 30 -out "$PKI/$name.crt" -extfile "$PKI/$name.ext" 2>/dev/null
}

kubeconfig() {
  cat >"$STATE/$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: local, cluster: {server: "$API", certificate-authority: "$PKI/ca.crt"}}]
users: [{name: user, user: {client-certificate: "$PKI/$2.crt", client-key: "$PKI/$2.key"}}]
contexts: [{name: local, context: {cluster: local, user: user}}]
current-context: local
YAML
}
