#!/bin/sh
# refused by: crowd
# Nothing is left behind, and sixty-four are still no hundred.
sudo sed -i '/^    syswrite \$guest, .guests/{n;s/.*/    leave($guest);/}' /usr/local/lib/theatre/cloakroom
sudo systemctl restart cloakroom
sleep 2
