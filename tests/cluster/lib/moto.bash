# moto in a Python environment of its own.
# shellcheck shell=bash

MOTO_VERSION=5.2.5
MOTO_PORT=5443
# The environment is in the cache: it holds paths of its own place, so that it is not moved once made.
MOTO=$CACHE/moto-$MOTO_VERSION

moto_address() {
  if [[ -e $KUBECONFIG ]]; then echo "$ADDRESS"; else echo 127.0.0.1; fi
}

moto_install() {
  local missing=() package
  [[ -e $MOTO/complete ]] && return
  for package in python3 python3-venv; do
    [[ $(dpkg-query -Wf '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  if ((${#missing[@]})); then
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" >/dev/null
  fi
  say "installing moto $MOTO_VERSION"
  rm -rf "$MOTO"
  mkdir -p "$CACHE"
  python3 -m venv "$MOTO"
  "$MOTO/bin/pip" install --quiet --disable-pip-version-check --no-input "moto[server]==$MOTO_VERSION" >&2
  touch "$MOTO/complete"
}

moto_answers() {
  curl -fsS --cacert "$PKI/moto-authority.crt" "https://$1:$MOTO_PORT/moto-api/data.json"
}

moto_up() {
  local address
  address=$(moto_address)
  moto_install
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
