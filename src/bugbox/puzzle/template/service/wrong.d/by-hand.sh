#!/bin/sh
# refused by: unit
# It goes for as long as nobody ends it.
sudo install -d -o tower /run/tower
sudo -u tower setsid /usr/local/bin/tower >/dev/null 2>&1 </dev/null &
sleep 3
