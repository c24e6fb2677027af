#!/bin/sh
# refused by: leak
# Enough for Saturday. By Sunday the display has used it up.
sudo sed -i 's/^LimitNOFILE=.*/LimitNOFILE=8192/' /etc/systemd/system/cloakroom.service
sudo systemctl daemon-reload
sudo systemctl restart cloakroom
sleep 2
