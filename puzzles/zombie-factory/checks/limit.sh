#!/bin/sh
# What the kernel holds the service to.
limit=$(cat /sys/fs/cgroup/system.slice/print-shop.service/pids.max 2>/dev/null)
[ -n "$limit" ] || fail "print-shop.service does not run where it used to."
[ "$limit" = 60 ] || fail "The shop may now fill the building: its limit is $limit, not 60."
