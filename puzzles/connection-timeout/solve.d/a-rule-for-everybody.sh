#!/bin/sh
# The page is for whoever asks: the cables are the only ways in.
sudo sed -i 's|tcp dport 8080 counter drop|tcp dport 8080 counter accept|' /etc/nftables.conf
sudo nft -f /etc/nftables.conf
