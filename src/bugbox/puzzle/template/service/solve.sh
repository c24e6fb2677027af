#!/bin/sh
# The reference solution, run as the learner. Further ways go to solve.d/*.sh.
set -eu
sudo sed -i 's/towr/tower/' /etc/systemd/system/tower.service.d/user.conf
sudo systemctl daemon-reload
sudo systemctl restart tower
