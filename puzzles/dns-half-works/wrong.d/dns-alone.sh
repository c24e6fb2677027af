#!/bin/sh
# refused by: local
# The bay is found, and the machine has forgotten who it is.
sudo sed -i 's/^hosts:.*/hosts: dns/' /etc/nsswitch.conf
sudo sed -i '/bay\.example/d' /etc/hosts
