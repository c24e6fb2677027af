#!/bin/sh
# refused by: shut
# No rules, no drop - and the lamp is anybody's.
sudo nft flush ruleset
