#!/bin/sh
# Change what is loaded, then write down what is loaded.
sudo nft add element inet lighthouse readers '{ 10.77.2.0/24 }'
{
    printf '#!/usr/sbin/nft -f\nflush ruleset\n'
    sudo nft --stateless list ruleset
} >/tmp/rules
sudo cp /tmp/rules /etc/nftables.conf
