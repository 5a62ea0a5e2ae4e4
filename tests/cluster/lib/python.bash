# Python packages in environments of their own.
# shellcheck shell=bash

# python_environment DIRECTORY REQUIREMENT: once, into the cache
python_environment() {
  local missing=() package
  [[ -e $1/complete ]] && return
  for package in python3 python3-venv; do
    [[ $(dpkg-query -Wf '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  if ((${#missing[@]})); then
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" >/dev/null
  fi
  say "installing $2"
  rm -rf "$1"
  mkdir -p "$CACHE"
  python3 -m venv "$1"
  "$1/bin/pip" install --quiet --disable-pip-version-check --no-input "$2" >&2
  touch "$1/complete"
}
