#!/bin/sh
# Runs as root on an untouched machine: 0 = it is broken as told. Changes nothing.
[ "$(systemctl show --property ActiveState --value tower)" = failed ]
