#!/bin/sh
# Orders, the old computer's last copy, and a timer that waits for itself.
set -eu

install -D -m 0644 files/orders.txt /srv/bakery/orders.txt
install -D -m 0644 files/last-copy.txt /srv/bakery/copies/orders-2023-09-28.txt
touch -d '2023-09-28 11:59:58' /srv/bakery/copies/orders-2023-09-28.txt
install -m 0644 files/orders-copy.service files/orders-copy.timer /etc/systemd/system/
systemctl enable orders-copy.timer
