# CoreDNS as a process on the host, and names for servers that run there.
# shellcheck shell=bash

dns_up() {
  kubectl apply -f - >/dev/null <<'EOF'
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: coredns}
rules:
- apiGroups: [""]
  resources: [namespaces, services, pods]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: coredns}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: coredns}]
EOF
  # The world ends at the cluster's edge: a test that needs a name from outside
  # should fail at once, and everywhere. No cache: tests make names and use them.
  cat >"$STATE/Corefile" <<EOF
cluster.local in-addr.arpa {
  bind $ADDRESS
  errors
  ready $ADDRESS:8181
  kubernetes {
    kubeconfig $PKI/coredns.kubeconfig hushpod
  }
}
. {
  bind $ADDRESS
  errors
  template ANY ANY {
    rcode NXDOMAIN
  }
}
EOF
  start coredns coredns -conf "$STATE/Corefile"
  started coredns 60 curl -fsS "http://$ADDRESS:8181/ready"
}

# host_service NAMESPACE NAME PORT: pods reach what listens on the bridge's
# address as NAME.NAMESPACE.svc:PORT
host_service() {
  kubectl apply -f - >/dev/null <<EOF
apiVersion: v1
kind: Namespace
metadata: {name: $1}
---
apiVersion: v1
kind: Service
metadata: {name: $2, namespace: $1}
spec:
  ports: [{name: $2, port: $3}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: $2-host
  namespace: $1
  labels: {kubernetes.io/service-name: $2}
addressType: IPv4
ports: [{name: $2, port: $3}]
endpoints: [{addresses: [$ADDRESS]}]
EOF
}
