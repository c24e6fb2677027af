#!/bin/sh
# refused by: island
# A clear no at last. The island would have liked the wind.
sudo sed -i 's|tcp dport 8080 counter drop|tcp dport 8080 counter reject|' /etc/nftables.conf
sudo nft -f /etc/nftables.conf
