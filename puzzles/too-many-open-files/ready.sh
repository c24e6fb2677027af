#!/bin/sh
# Broken as told: cloakroom and display are up, and the cloakroom may open 64 files.
pid=$(systemctl show --property MainPID --value cloakroom.service)
[ -s /run/foyer/display ] && grep -q '^Max open files *64 ' "/proc/$pid/limits"
