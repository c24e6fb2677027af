#!/bin/sh
set -eu
install -d -o learner -g learner -m 0600 /srv/report
echo "$PUZZLE_TOKEN" >/srv/report/week.txt
