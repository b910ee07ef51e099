# shellcheck shell=bash
# Certificates and kubeconfigs, in STATE/pki and STATE/kubeconfigs.

# certificate NAME SUBJECT [SUBJECT_ALT_NAMES]: a key and a certificate signed by the CA.
certificate() {
  local name=$1 subject=$2 sans=${3:-} extensions='extendedKeyUsage=clientAuth'
  [[ -n $sans ]] && extensions=$'extendedKeyUsage=serverAuth\n'"subjectAltName=$sans"
  openssl ecparam -name prime256v1 -genkey -noout -out "$STATE/pki/$name.key"
  openssl req -new -key "$STATE/pki/$name.key" -subj "$subject" |
    openssl x509 -req -CA "$STATE/pki/ca.crt" -CAkey "$STATE/pki/ca.key" -CAcreateserial -days 3650 \
      -extfile <(echo "$extensions") -out "$STATE/pki/$name.crt" 2>/dev/null
}

# kubeconfig_file FILE CERTIFICATE SERVER: everything inline, so that the file can be copied. To YAML the names y and 5
# are no text without quotes.
kubeconfig_file() {
  cat >"$1" <<EOF
apiVersion: v1
kind: Config
current-context: "$NAME"
clusters:
- name: "$NAME"
  cluster:
    server: $3
    certificate-authority-data: $(base64 -w0 "$STATE/pki/ca.crt")
contexts:
- name: "$NAME"
  context: {cluster: "$NAME", user: $2}
users:
- name: $2
  user:
    client-certificate-data: $(base64 -w0 "$STATE/pki/$2.crt")
    client-key-data: $(base64 -w0 "$STATE/pki/$2.key")
EOF
  chmod 600 "$1"
}

write_pki() {
  local user index NODE NODE_ADDRESS KUBELET CONTAINERD FAKE_GPU GPU_CONTROL
  mkdir -p "$STATE/pki" "$STATE/kubeconfigs"
  openssl ecparam -name prime256v1 -genkey -noout -out "$STATE/pki/ca.key"
  openssl req -x509 -new -key "$STATE/pki/ca.key" -subj "/CN=$NAME" -days 3650 -out "$STATE/pki/ca.crt" \
    -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,digitalSignature,keyCertSign'
  openssl genrsa -out "$STATE/pki/service-accounts.key" 2048 2>/dev/null
  openssl rsa -in "$STATE/pki/service-accounts.key" -pubout -out "$STATE/pki/service-accounts.pub" 2>/dev/null

  certificate kube-apiserver /CN=kube-apiserver "$(printf %s \
    "IP:127.0.0.1,IP:$NODE_IP,IP:$SERVICE_API_IP,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default," \
    "DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local")"
  certificate admin /O=system:masters/CN=admin
  certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
  certificate kube-controller-manager /CN=system:kube-controller-manager
  certificate kube-scheduler /CN=system:kube-scheduler
  certificate kube-proxy /CN=system:kube-proxy
  certificate coredns /O=system:masters/CN=coredns
  certificate kwok /O=system:masters/CN=kwok
  certificate front-proxy /CN=front-proxy
  for user in kube-controller-manager kube-scheduler kube-proxy coredns kwok; do
    kubeconfig_file "$STATE/kubeconfigs/$user" "$user" https://127.0.0.1:6443
  done
  for ((index = 1; index <= NODES; index++)); do
    node_names "$index"
    certificate "$KUBELET" "/O=system:nodes/CN=system:node:$NODE"
    kubeconfig_file "$STATE/kubeconfigs/$KUBELET" "$KUBELET" https://127.0.0.1:6443
  done
  kubeconfig_file "$STATE/kubeconfig" admin "https://$NODE_IP:6443"
}
