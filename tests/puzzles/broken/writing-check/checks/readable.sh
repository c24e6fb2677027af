#!/bin/sh
# It leaves a note behind.
date >"$HOME/last-check"
cat /srv/report/week.txt >/dev/null 2>&1 || fail "As learner you still cannot read the report."
