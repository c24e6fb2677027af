#!/bin/sh
# refused by: ashore
# Cutting the nameless file to nothing frees the space, but the gauge goes on writing to it.
pid=$(systemctl show --property MainPID --value tide-gauge)
fd=$(sudo find "/proc/$pid/fd" -lname '/run/tide/*(deleted)' | head -n 1)
for _ in 1 2 3 4 5 6 7 8; do
    sudo truncate --size 0 "$fd"
    sleep 1
done
