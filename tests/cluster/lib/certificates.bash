# Certificate authorities, leaf certificates and the kubeconfigs that carry them.
# shellcheck shell=bash

# openssl.cnf of the machine would make every certificate an authority.
openssl_request() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
    -config <(printf '[req]\ndistinguished_name=dn\n[dn]\n') "$@" 2>/dev/null
}

# authority NAME
authority() {
  mkdir -p "$PKI"
  [[ -e $PKI/$1.crt ]] && return
  (umask 077 && openssl_request -subj "/CN=hushpod test $1" -keyout "$PKI/$1.key" -out "$PKI/$1.crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign)
}

# leaf AUTHORITY NAME SUBJECT [SUBJECT-ALT-NAMES]
leaf() {
  local authority=$1 name=$2 subject=$3 extra=()
  [[ -e $PKI/$name.crt ]] && return
  if (($# > 3)); then extra=(-addext "subjectAltName=$4"); fi
  (umask 077 && openssl_request -CA "$PKI/$authority.crt" -CAkey "$PKI/$authority.key" -subj "$subject" \
    -keyout "$PKI/$name.key" -out "$PKI/$name.crt" -addext basicConstraints=critical,CA:FALSE \
    -addext keyUsage=critical,digitalSignature -addext extendedKeyUsage=serverAuth,clientAuth "${extra[@]}")
}

# kubeconfig CERTIFICATE FILE
kubeconfig() {
  [[ -e $2 ]] && return
  (umask 077 && cat >"$2") <<EOF
apiVersion: v1
kind: Config
clusters:
- name: hushpod
  cluster:
    server: https://$ADDRESS:6443
    certificate-authority-data: $(base64 -w0 "$PKI/cluster.crt")
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 "$PKI/$1.crt")
    client-key-data: $(base64 -w0 "$PKI/$1.key")
contexts:
- name: hushpod
  context: {cluster: hushpod, user: $1}
current-context: hushpod
EOF
}

cluster_certificates() {
  authority cluster
  leaf cluster apiserver /CN=kube-apiserver \
    "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:$KUBERNETES_SERVICE,IP:$ADDRESS"
  leaf cluster kubelet-server /CN=kubelet "DNS:$NODE,IP:$ADDRESS"
  leaf cluster apiserver-to-kubelet /O=system:masters/CN=kube-apiserver

  leaf cluster admin /O=system:masters/CN=admin
  leaf cluster kube-controller-manager /CN=system:kube-controller-manager
  leaf cluster kube-scheduler /CN=system:kube-scheduler
  leaf cluster kubelet "/O=system:nodes/CN=system:node:$NODE"
  leaf cluster kube-proxy /CN=system:kube-proxy
  leaf cluster coredns /CN=coredns

  kubeconfig admin "$KUBECONFIG"
  for user in kube-controller-manager kube-scheduler kubelet kube-proxy coredns; do
    kubeconfig "$user" "$PKI/$user.kubeconfig"
  done

  if [[ ! -e $PKI/service-accounts.key ]]; then
    (umask 077 && openssl ecparam -genkey -name prime256v1 -noout -out "$PKI/service-accounts.key")
    openssl ec -in "$PKI/service-accounts.key" -pubout -out "$PKI/service-accounts.pub" 2>/dev/null
  fi
}
