# A Vault server with what the tests take from it.
# shellcheck shell=bash

VAULT=$STATE/vault
export VAULT_ADDR=https://$ADDRESS:8200
export VAULT_CACERT=$PKI/vault-authority.crt
if [[ -r $VAULT/root-token ]]; then
  VAULT_TOKEN=$(cat "$VAULT/root-token")
  export VAULT_TOKEN
fi

# `vault status` says 2 for sealed.
vault_answers() { vault status || (($? == 2)); }

vault_start() {
  cat >"$VAULT/vault.hcl" <<EOF
# On disk, so a server stopped and started has lost nothing; \`file\` is
# not in this build.
storage "raft" {
  path                   = "$VAULT/data"
  node_id                = "$NODE"
  performance_multiplier = 1
}
listener "tcp" {
  address       = "$ADDRESS:8200"
  tls_cert_file = "$PKI/vault.crt"
  tls_key_file  = "$PKI/vault.key"
}
listener "tcp" {
  address       = "127.0.0.1:8200"
  tls_cert_file = "$PKI/vault.crt"
  tls_key_file  = "$PKI/vault.key"
}
api_addr         = "$VAULT_ADDR"
cluster_addr     = "https://$ADDRESS:8201"
plugin_directory = "$VAULT/plugins"
disable_mlock    = true
EOF
  start vault vault server -config "$VAULT/vault.hcl"
  started vault 60 vault_answers
}

vault_unseal() {
  vault operator unseal "$(jq -r '.unseal_keys_b64[0]' "$VAULT/init.json")" >/dev/null
  # Unsealed is not yet active, and only then is this a 200.
  wait_for 30 "Vault to be active" curl -fsS --cacert "$VAULT_CACERT" "$VAULT_ADDR/v1/sys/health"
}

vault_initialise() {
  [[ -e $VAULT/init.json ]] && return
  (umask 077 &&
    vault operator init -key-shares 1 -key-threshold 1 -format json >"$VAULT/init.json.new" &&
    jq -rj .root_token "$VAULT/init.json.new" >"$VAULT/root-token" &&
    mv "$VAULT/init.json.new" "$VAULT/init.json")
  VAULT_TOKEN=$(cat "$VAULT/root-token")
  export VAULT_TOKEN
}

# Vault runs no plugin from behind a link, and none that is not in its catalogue.
vault_plugins() {
  local plugin
  mkdir -p "$VAULT/plugins"
  for plugin in vault-plugin-auth-kubernetes postgresql-database-plugin; do
    [[ -e $VAULT/plugins/$plugin ]] || cp "$(readlink -f "$BIN/$plugin")" "$VAULT/plugins/"
  done
}

register() {
  vault plugin register -sha256 "$(sha256sum "$VAULT/plugins/$3" | cut -d' ' -f1)" -command "$3" "$1" "$2" >/dev/null
}

# enabled auth|secrets PATH
enabled() { vault "$1" list -format json | jq -e --arg path "$2/" 'has($path)' >/dev/null; }

vault_stores() {
  enabled secrets secret || vault secrets enable -path secret -version 2 kv >/dev/null
  enabled secrets kv1 || vault secrets enable -path kv1 -version 1 kv >/dev/null
}

# Vault asks the API whose a pod's token is. It needs a token of its own for
# that: one of audience `vault` is no use to the API.
vault_kubernetes() {
  kubectl apply -f - >/dev/null <<'EOF'
apiVersion: v1
kind: ServiceAccount
metadata: {name: reviewer, namespace: vault}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: vault-reviewer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{kind: ServiceAccount, name: reviewer, namespace: vault}]
EOF
  register auth kubernetes vault-plugin-auth-kubernetes
  enabled auth kubernetes || vault auth enable kubernetes >/dev/null
  vault write auth/kubernetes/config kubernetes_host="https://$ADDRESS:6443" \
    kubernetes_ca_cert=@"$PKI/cluster.crt" disable_local_ca_jwt=true \
    token_reviewer_jwt="$(kubectl -n vault create token reviewer --duration 87600h)" >/dev/null
}

# Short enough that a test of minutes sees leases renewed and, at their maximum,
# issued anew.
vault_database() {
  register database postgresql-database-plugin postgresql-database-plugin
  enabled secrets database || vault secrets enable database >/dev/null
  vault write database/config/app plugin_name=postgresql-database-plugin allowed_roles='*' \
    connection_url="postgresql://{{username}}:{{password}}@$ADDRESS:5432/app?sslmode=disable" \
    username=vault password="$(cat "$POSTGRES/vault-password")" >/dev/null
  vault write database/roles/web db_name=app \
    default_ttl="${HUSHPOD_LEASE_TTL:-20s}" max_ttl="${HUSHPOD_LEASE_MAX_TTL:-60s}" \
    creation_statements="CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';
      GRANT SELECT ON ALL TABLES IN SCHEMA public TO \"{{name}}\";" >/dev/null
}

vault_up() {
  use vault vault-plugin-auth-kubernetes
  mkdir -p "$VAULT/data"
  # Not the cluster's authority: a client that took the wrong one must fail.
  authority vault-authority
  leaf vault-authority vault /CN=vault \
    "DNS:vault.vault.svc,DNS:vault.vault.svc.cluster.local,DNS:vault.vault,DNS:localhost,IP:$ADDRESS,IP:127.0.0.1"
  host_service vault vault 8200
  vault_plugins
  vault_start
  vault_initialise
  vault_unseal
  vault_stores
  vault_kubernetes
  vault_database
}
