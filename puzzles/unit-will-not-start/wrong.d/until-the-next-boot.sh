#!/bin/sh
# refused by: survives
# A drop-in under /run is as good as any, and gone tomorrow.
sudo mkdir -p /run/systemd/system/hive-scale.service.d
printf '[Service]\nReadWritePaths=/srv/apiary\n' |
    sudo tee /run/systemd/system/hive-scale.service.d/20-apiary.conf >/dev/null
sudo systemctl daemon-reload
sudo systemctl reset-failed hive-scale
sudo systemctl start hive-scale
