#!/bin/sh
# The bay: a name server, a buoy that answers, a resolver that never asks, and somebody's work-around.
set -eu

install -D -m 0755 files/bay-dns /usr/local/lib/bay/bay-dns
install -m 0755 files/buoy /usr/local/lib/bay/buoy
install -m 0644 files/bay-dns.service files/buoy.service /etc/systemd/system/
systemctl enable bay-dns.service buoy.service

printf 'nameserver 127.0.0.1\noptions timeout:2 attempts:1\n' >/etc/resolv.conf
sed -i 's/^hosts:.*/hosts:          files myhostname/' /etc/nsswitch.conf
printf '\n# work-around, remove when DNS is back!\n127.77.0.99\tbuoy3.bay.example buoy3\n' >>/etc/hosts
