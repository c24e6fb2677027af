#!/bin/sh
# refused by: lasts
# The kernel has been told, and no file.
sudo sysctl -q -w net.ipv4.tcp_mtu_probing=2
