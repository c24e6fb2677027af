#!/bin/sh
set -eu
cat /srv/report/week.txt || fail "As learner you still cannot read the report."
