#!/bin/sh
# Runs once, as root, in the base image's filesystem, while no service runs. What it changes is the
# puzzle. The folder files/ of the puzzle, if there is one, lies at /puzzle/files.
set -eu

install -d -o learner -g learner -m 0700 /srv/report
printf 'All quiet.\n' >/srv/report/week.txt
chown learner:learner /srv/report/week.txt
chmod 0600 /srv/report/week.txt

# The fault: with r but without x, a folder can be listed and not entered.
chmod 0600 /srv/report
