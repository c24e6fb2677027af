#!/bin/sh
# refused by: records
# The program is fine, and a terminal is not a service.
sudo -u hive setsid sh -c '/usr/local/lib/apiary/hive-scale >/dev/null 2>&1 </dev/null &'
sleep 3
