#!/bin/sh
# The cloakroom, and a limit raised where a service never looks.
set -eu

useradd --system --no-create-home --shell /usr/sbin/nologin cloakroom
install -D -m 0755 files/cloakroom /usr/local/lib/theatre/cloakroom
install -m 0755 files/foyer /usr/local/lib/theatre/foyer
install -m 0644 files/cloakroom.service files/foyer.service /etc/systemd/system/
systemctl enable cloakroom.service foyer.service
printf '# For Saturday.\n* soft nofile 8192\n* hard nofile 8192\n' >/etc/security/limits.d/90-cloakroom.conf
