#!/usr/bin/env bash
# Make a virtual environment from a hash-pinned lock file:  deploy/env.sh FOLDER LOCK
# Or add packages to one, as the tests' lock pins them:     deploy/env.sh --add FOLDER NAME...
#
# Needs Python >= 3.11 and nothing else. Debian splits venv and pip into packages of their own; where they
# are missing, root installs them, and anybody else gets pip's own wheel out of Debian's package, which
# needs no rights.
set -euo pipefail
say() { printf 'hookmirror: %s\n' "$*" >&2; }

pinned() {  # NAME...: those of requirements-dev.lock, with their hashes
  awk -v names="$*" 'BEGIN {split(names, list, " "); for (i in list) wanted[list[i]]}
    /^[^ ]/ {split($1, name, "=="); keep = name[1] in wanted} keep' requirements-dev.lock
}

add() {  # NAME... -- OPTION...: install these, as they are pinned
  local names=(); while [[ $# -gt 0 && $1 != -- ]]; do names+=("$1"); shift; done; shift || true
  run_pip install -qq --require-hashes "$@" -r <(pinned "${names[@]}")
}

run_pip() { "$folder/bin/python" -m pip --disable-pip-version-check "$@"; }

if [[ $1 == --add ]]; then
  folder=$2; shift 2
  say "adding $* to $folder"
  add "$@"
  exit
fi
folder=$1 lock=$2

for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
  command -v "$python" >/dev/null && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' && break
  python=
done
[[ -n ${python:-} ]] || { say "Python 3.11 or newer is needed. Install it:  sudo apt-get install python3"; exit 1; }

without_ensurepip() {  # Debian without python3-venv
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    say "installing python3-venv"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null &&
      "$python" -m venv --clear "$folder" 2>/dev/null && return
  fi
  say "python3-venv is missing; taking pip's wheel from Debian's package"
  local tmp; tmp=$(mktemp -d); trap 'rm -rf "$tmp"' RETURN
  mkdir -p "$tmp/lists/partial" "$tmp/cache/archives/partial"
  local apt=(apt-get -qq -o "Dir::State::lists=$tmp/lists" -o "Dir::Cache=$tmp/cache")
  "${apt[@]}" update &&
    (cd "$tmp" && "${apt[@]}" -o APT::Sandbox::User=root download python3-pip-whl && dpkg-deb -x python3-pip-whl*.deb .) ||
    { say "neither python3-venv nor pip can be had. Install it:  sudo apt-get install python3-venv"; exit 1; }
  "$python" -m venv --clear --without-pip "$folder"
  local wheel; wheel=$(ls "$tmp"/usr/share/python-wheels/pip-*.whl)
  "$folder/bin/python" "$wheel/pip" install -q --no-index "$wheel"
}

say "making $folder with $("$python" --version)"
"$python" -m venv --clear "$folder" >/dev/null 2>&1 || without_ensurepip
say "installing the packages of $lock"
run_pip install -qq --require-hashes -r "$lock"
# What makes our own package is needed once, and no part of the environment.
backend=$(mktemp -d); trap 'rm -rf "$backend"' EXIT
add editables hatchling packaging pathspec pluggy trove-classifiers -- --no-deps --target "$backend"
PYTHONPATH=$backend run_pip install -qq --no-deps --no-build-isolation --no-index -e .
