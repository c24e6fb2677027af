#!/bin/sh
# Broken as told: the old board answers and the new service has given up.
curl --silent http://127.0.0.1:8080/ | grep -q '^410 Gone' && systemctl --quiet is-failed menu
