#!/bin/sh
# Hidden is what one may not trace. The capability lets this one service, and nobody else.
sudo mkdir -p /etc/systemd/system/watchman.service.d
printf '[Service]\nAmbientCapabilities=CAP_SYS_PTRACE\n' |
    sudo tee /etc/systemd/system/watchman.service.d/look.conf >/dev/null
sudo systemctl daemon-reload
sudo systemctl restart watchman
sleep 3
