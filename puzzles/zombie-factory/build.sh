#!/bin/sh
# The shop and its service.
set -eu

install -D -m 0755 files/print-shop /usr/local/lib/print-shop/print-shop
install -m 0644 files/print-shop.service /etc/systemd/system/
systemctl enable print-shop.service
