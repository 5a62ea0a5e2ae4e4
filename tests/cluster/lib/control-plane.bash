# etcd and the three programs that make an API of it.
# shellcheck shell=bash

ETCD_DATA=$STATE/etcd

control_plane_up() {
  # On loopback, where no pod comes: it asks for no certificate. Durability is
  # not what these tests are about, and fsync is most of what etcd waits for.
  start etcd etcd --name "$NODE" --data-dir "$ETCD_DATA" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster "$NODE=http://127.0.0.1:2380"
  started etcd 60 curl -fsS http://127.0.0.1:2379/health

  # No --encryption-provider-config: the scan of etcd's files must be able to
  # find an ordinary Secret, or it would prove nothing by finding none of ours.
  # Aggregator routing has webhooks called at their pods' addresses. Image
  # volumes are on by themselves only from 1.35.
  start kube-apiserver kube-apiserver \
    --etcd-servers http://127.0.0.1:2379 \
    --bind-address "$ADDRESS" --advertise-address "$ADDRESS" --secure-port 6443 \
    --service-cluster-ip-range "$SERVICE_SUBNET" \
    --tls-cert-file "$PKI/apiserver.crt" --tls-private-key-file "$PKI/apiserver.key" \
    --client-ca-file "$PKI/cluster.crt" --authorization-mode Node,RBAC \
    --enable-admission-plugins NodeRestriction --allow-privileged --enable-aggregator-routing \
    --feature-gates EnvFiles=true,ImageVolume=true \
    --kubelet-client-certificate "$PKI/apiserver-to-kubelet.crt" \
    --kubelet-client-key "$PKI/apiserver-to-kubelet.key" \
    --kubelet-certificate-authority "$PKI/cluster.crt" --kubelet-preferred-address-types InternalIP \
    --service-account-issuer "$ISSUER" \
    --service-account-key-file "$PKI/service-accounts.pub" \
    --service-account-signing-key-file "$PKI/service-accounts.key"
  started kube-apiserver 120 kubectl get --raw /readyz

  start kube-controller-manager kube-controller-manager \
    --kubeconfig "$PKI/kube-controller-manager.kubeconfig" --bind-address 127.0.0.1 --leader-elect=false \
    --use-service-account-credentials --root-ca-file "$PKI/cluster.crt" \
    --service-account-private-key-file "$PKI/service-accounts.key" \
    --cluster-signing-cert-file "$PKI/cluster.crt" --cluster-signing-key-file "$PKI/cluster.key"
  start kube-scheduler kube-scheduler \
    --kubeconfig "$PKI/kube-scheduler.kubeconfig" --bind-address 127.0.0.1 --leader-elect=false
  started kube-controller-manager 60 curl -fksS https://127.0.0.1:10257/healthz
  started kube-scheduler 60 curl -fksS https://127.0.0.1:10259/healthz
}

control_plane_down() {
  stop kube-scheduler
  stop kube-controller-manager
  # It would wait a minute for watches to end.
  stop kube-apiserver KILL
  stop etcd
}
