#!/bin/sh
# Broken as told: systemd has tried, and given up.
[ "$(systemctl show --property ActiveState --value hive-scale.service)" = failed ] &&
    [ "$(wc -l </srv/apiary/weights.log)" = 1 ]
