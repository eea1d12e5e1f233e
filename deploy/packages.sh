#!/usr/bin/env bash
# See that Debian's packages for the tests are installed: root gets them, anybody else one sentence.
#   packages.sh rabbitmq-server prometheus
# The tests and the benchmark start processes of their own; nothing here starts or touches a service.
set -euo pipefail

installed() {
  case $1 in
    rabbitmq-server)
      for place in /usr/lib/rabbitmq/bin /opt/rabbitmq/sbin /usr/local/sbin; do
        [[ -x $place/rabbitmq-server ]] && return 0
      done
      return 1
      ;;
    prometheus) command -v prometheus && command -v promtool ;;
    systemd) command -v systemd-analyze ;;
    awscli) command -v aws ;;
    nginx-light) PATH=$PATH:/usr/sbin command -v nginx ;;
    *) command -v "$1" ;;
  esac >/dev/null
}

missing=()
for name in "$@"; do
  installed "$name" || missing+=("$name")
done
[[ ${#missing[@]} == 0 ]] && exit 0

if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
  echo "hookmirror: installing ${missing[*]}" >&2
  apt-get update -qq
  # The packages would start services of their own; policy-rc.d says no unless there is one already.
  if [[ ! -e /usr/sbin/policy-rc.d ]]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "hookmirror: this needs ${missing[*]}. Install it:  sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
