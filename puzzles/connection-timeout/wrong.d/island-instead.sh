#!/bin/sh
# refused by: village
# The island reads, the village does not.
sudo sed -i 's|elements = { 10.77.1.0/24 }|elements = { 10.77.2.0/24 }|' /etc/nftables.conf
sudo nft -f /etc/nftables.conf
