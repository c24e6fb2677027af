#!/bin/sh
# refused by: crowd
# A limit of this shell, and of what it starts. systemd starts the cloakroom.
# shellcheck disable=SC3045  # dash and busybox both know -n
ulimit -n 8192
sudo systemctl restart cloakroom
sleep 2
