#!/bin/sh
# refused by: prints
# They are dead already: no signal reaches them.
for pid in $(ps -eo pid=,stat= | awk '$2 ~ /^Z/ { print $1 }'); do
    sudo kill -9 "$pid"
done
sleep 1
