#!/bin/sh
# Broken as told: the timer is active, the service has never been started.
[ "$(systemctl show --property ActiveState --value orders-copy.timer)" = active ] &&
    [ -z "$(systemctl show --property LastTriggerUSec --value orders-copy.timer)" ] &&
    [ "$(ls /srv/bakery/copies)" = orders-2023-09-28.txt ]
