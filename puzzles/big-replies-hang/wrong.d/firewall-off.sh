#!/bin/sh
# refused by: siren
# The chart arrives, and anybody on the mountain can sound the siren.
sudo systemctl disable --now nftables
