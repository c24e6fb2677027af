#!/bin/sh
# Two tenants for one port: a notice board that moved out without handing in its key, and the
# menu page that moved in.
set -eu

# The old tenant, as its package left it.
install -D -m 0755 files/farewell /usr/lib/hallboard/farewell
install -m 0644 files/hallboard.socket files/hallboard@.service /usr/lib/systemd/system/

# The new one.
install -D -m 0755 files/menu /usr/local/bin/menu
install -D -m 0644 files/today.txt /srv/menu/today.txt
install -m 0644 files/menu.default /etc/default/menu
install -m 0644 files/menu.service /etc/systemd/system/

systemctl enable hallboard.socket menu.service
