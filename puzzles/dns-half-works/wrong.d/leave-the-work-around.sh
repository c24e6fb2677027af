#!/bin/sh
# refused by: resolves
# New names are found, and buoy3 is where it lay yesterday.
sudo sed -i 's/^hosts:.*/hosts: files myhostname dns/' /etc/nsswitch.conf
