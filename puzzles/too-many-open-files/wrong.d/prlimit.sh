#!/bin/sh
# refused by: survives
# The process that runs gets more, the next one does not.
sudo sed -i '/^    syswrite \$guest, .guests/{n;s/.*/    leave($guest);/}' /usr/local/lib/theatre/cloakroom
sudo systemctl restart cloakroom
sudo prlimit --pid "$(systemctl show --property MainPID --value cloakroom)" --nofile=8192:8192
sleep 2
