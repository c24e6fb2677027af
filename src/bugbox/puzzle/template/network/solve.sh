#!/bin/sh
# The reference solution, run as the learner. Further ways go to solve.d/*.sh.
set -eu
sudo sed -i 's/^127\.0\.0\.9 ledger/127.0.0.2 ledger/' /etc/hosts
