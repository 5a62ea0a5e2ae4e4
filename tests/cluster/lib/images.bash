# Images made from what this machine has, for want of a registry.
# shellcheck shell=bash

image_loaded() { ctr images ls -q | grep -xF "$1" >/dev/null; }

# load_image NAME CONTEXT [DOCKERFILE [TARGET]]
load_image() {
  local name=$1 context=$2 dockerfile=${3:-$2/Dockerfile} target=${4:-} work
  # One directory per call: two calls may overlap, and nothing is worth keeping.
  work=$(mktemp -d "$STATE/image.XXXXXX")
  local buildah=(buildah --root "$work/root" --runroot "$work/run" --storage-driver vfs)
  if ! { "${buildah[@]}" bud --isolation chroot --tag "$name" ${target:+--target "$target"} --file "$dockerfile" \
    "$context" &&
    "${buildah[@]}" push "$name" "docker-archive:$work/image.tar:$name"; } >"$work/log" 2>&1; then
    cat "$work/log" >&2
    rm -rf "$work"
    die "building the image $name failed"
  fi
  ctr images import "$work/image.tar" >/dev/null
  rm -rf "$work"
}

# test_image NAME COMMAND...: COMMAND fills a directory that becomes the image's root
test_image() {
  local name=$1 work
  shift
  image_loaded "localhost/hushpod-test/$name:latest" && return
  work=$(mktemp -d "$STATE/context.XXXXXX")
  mkdir "$work/root"
  "$@" "$work/root"
  load_image "localhost/hushpod-test/$name:latest" "$work" "$HERE/images/$name/Dockerfile"
  rm -rf "$work"
}

pause_root() { gcc -Os -static -o "$1/pause" "$HERE/images/pause/pause.c"; }

busybox_root() {
  local applet
  mkdir -p "$1"/{bin,etc,root,tmp}
  chmod 1777 "$1/tmp"
  cp "$(command -v busybox)" "$1/bin/"
  for applet in $(busybox --list); do
    [[ $applet == busybox ]] || ln -s busybox "$1/bin/$applet"
  done
  printf 'root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/tmp:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$1/etc/passwd"
  printf 'root:x:0:\napp:x:1000:\nnogroup:x:65534:\n' >"$1/etc/group"
  printf 'hosts: files dns\n' >"$1/etc/nsswitch.conf"
}

# The first of psql on the PATH is a wrapper in Perl.
psql_root() {
  local program library
  busybox_root "$1"
  for program in /usr/lib/postgresql/*/bin/psql "$(command -v curl)"; do
    cp "$program" "$1/bin/"
    ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
      mkdir -p "$1$(dirname "$library")"
      cp -L "$library" "$1$library"
    done
  done
}

# Not among `test_images`: half a gigabyte that one test wants.
vault_root() {
  use vault vault-plugin-auth-kubernetes
  busybox_root "$1"
  mkdir "$1"/{libexec,plugins}
  cp "$HERE/images/vault/vault" "$1/bin/"
  cp "$(readlink -f "$BIN/vault")" "$1/libexec/"
  # Vault registers a plugin under its file's name.
  cp "$(readlink -f "$BIN/vault-plugin-auth-kubernetes")" "$1/plugins/kubernetes"
}

test_images() {
  test_image pause pause_root
  test_image busybox busybox_root
  test_image psql psql_root
}
