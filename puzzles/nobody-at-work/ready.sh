#!/bin/sh
# Broken as told: four ovens burn, the report says none.
[ "$(pgrep -c -x oven)" = 4 ] && grep -q 'ovens burning: 0$' /run/watchman/report
