# What Vault's admin runs once, here in Vault's own container: a login for the service account `web`, and a secret.
set -eu
vault auth enable kubernetes
# Vault reviews tokens as its own service account.
vault write auth/kubernetes/config kubernetes_host=https://kubernetes.default.svc
vault policy write web - <<'HCL'
path "secret/data/web/*"     { capabilities = ["read"] }
path "secret/metadata/web/*" { capabilities = ["read"] }
HCL
vault write auth/kubernetes/role/web bound_service_account_names=web \
  bound_service_account_namespaces=hushpod-try audience=vault token_policies=web token_ttl=20m
vault kv put secret/web/db password=first
