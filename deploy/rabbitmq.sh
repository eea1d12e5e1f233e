#!/usr/bin/env bash
# See that rabbitmq-server is installed: root gets Debian's package, anybody else one sentence.
# The tests and the benchmark start nodes of their own; nothing here starts or touches a service.
set -euo pipefail
for place in /usr/lib/rabbitmq/bin /opt/rabbitmq/sbin /usr/local/sbin; do
  [[ -x $place/rabbitmq-server ]] && exit 0
done
if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
  echo "hookmirror: installing rabbitmq-server" >&2
  apt-get update -qq
  # The package would start a service of its own; policy-rc.d says no unless there is one already.
  if [[ ! -e /usr/sbin/policy-rc.d ]]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rabbitmq-server >/dev/null
else
  echo "hookmirror: the tests need RabbitMQ. Install it:  sudo apt-get install rabbitmq-server" >&2
  exit 1
fi
