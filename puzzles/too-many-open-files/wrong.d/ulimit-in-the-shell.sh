#!/bin/sh
# refused by: crowd
# A limit of this shell, and of what it starts. systemd starts the cloakroom.
ulimit -n 8192
sudo systemctl restart cloakroom
sleep 2
