# moto.
# shellcheck shell=bash

MOTO_VERSION=5.2.5
MOTO_PORT=5443
# The environment is in the cache: it holds paths of its own place, so it is never moved.
MOTO=$CACHE/moto-$MOTO_VERSION

moto_address() {
  if [[ -e $KUBECONFIG ]]; then echo "$ADDRESS"; else echo 127.0.0.1; fi
}


moto_answers() {
  curl -fsS --cacert "$PKI/moto-authority.crt" "https://$1:$MOTO_PORT/moto-api/data.json"
}

moto_up() {
  local address
  address=$(moto_address)
  python_environment "$MOTO" "moto[server]==$MOTO_VERSION"
  # Not the cluster's authority, nor Vault's: a client that took the wrong one must fail.
  authority moto-authority
  leaf moto-authority moto /CN=moto \
    "DNS:aws.moto.svc,DNS:aws.moto.svc.cluster.local,DNS:aws.moto,DNS:localhost,IP:$ADDRESS,IP:127.0.0.1"
  local server=("$MOTO/bin/moto_server")
  if [[ $address == "$ADDRESS" ]]; then
    host_service moto aws "$MOTO_PORT"
    kubectl get --raw /openid/v1/jwks >"$PKI/jwks.json"
    server=("$MOTO/bin/python" "$HERE/lib/web_identity.py" "$PKI/jwks.json" "$ISSUER")
  fi
  start moto "${server[@]}" -H "$address" -p "$MOTO_PORT" -c "$PKI/moto.crt" -k "$PKI/moto.key"
  started moto 60 moto_answers "$address"
}

# The credentials are anyone's: moto looks at none but the tokens that the cluster signed (web_identity.py).
moto_env() {
  cat <<EOF
export MOTO_ENDPOINT=https://$(moto_address):$MOTO_PORT
export MOTO_CACERT=$PKI/moto-authority.crt
EOF
}
