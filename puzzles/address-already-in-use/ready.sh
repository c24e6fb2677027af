#!/bin/sh
# Broken as told: the new service has given up and the old board answers. In this order, because
# asking the board starts a process of its own, and the service needs the processor to give up.
systemctl --quiet is-failed menu && curl --silent http://127.0.0.1:8080/ | grep -q '^410 Gone'
