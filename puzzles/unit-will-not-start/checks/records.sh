#!/bin/sh
# New lines, and from a process of the service: one started by hand is gone after the next boot.
weights=/srv/apiary/weights.log

lines() { grep -c 'hive 3: [0-9.]* kg$' "$weights" 2>/dev/null; }
grew() { [ "$(lines)" -gt "${before:-0}" ]; }
of_the_service() { grep -qs '/hive-scale\.service$' /proc/[0-9]*/cgroup; }

[ -f "$weights" ] && [ ! -L "$weights" ] || fail "There is no file $weights any more."
before=$(lines)
eventually 8 grew || fail "No new weight has arrived in $weights for eight seconds."
of_the_service || fail "Weights are written down, but not by hive-scale.service."
