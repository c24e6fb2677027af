#!/bin/sh
# Let the C library ask the name server after the files, and take the work-around out.
sudo sed -i 's/^hosts:.*/hosts:          files myhostname dns/' /etc/nsswitch.conf
sudo sed -i '/bay\.example/d; /work-around/d' /etc/hosts
