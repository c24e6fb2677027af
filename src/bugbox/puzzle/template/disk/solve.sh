#!/bin/sh
# The reference solution, run as the learner. Further ways go to solve.d/*.sh.
set -eu
sudo rm -r /srv/inbox/.thumbnails
