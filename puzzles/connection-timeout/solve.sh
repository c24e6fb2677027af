#!/bin/sh
# One more network among the readers, in the file, and the file loaded.
sudo sed -i 's|elements = { 10.77.1.0/24 }|elements = { 10.77.1.0/24, 10.77.2.0/24 }|' /etc/nftables.conf
sudo systemctl reload nftables
