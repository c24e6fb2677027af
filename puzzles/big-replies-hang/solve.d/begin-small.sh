#!/bin/sh
# Let TCP find out by itself, beginning with small packets.
echo 'net.ipv4.tcp_mtu_probing = 2' | sudo tee /etc/sysctl.d/90-radio.conf >/dev/null
sudo sysctl -q -p /etc/sysctl.d/90-radio.conf
