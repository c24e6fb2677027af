#!/bin/sh
# refused by: leak
# Without the display nothing leaks. The foyer looks at a black screen.
sudo systemctl disable --now foyer
sudo sed -i 's/^LimitNOFILE=.*/LimitNOFILE=1024/' /etc/systemd/system/cloakroom.service
sudo systemctl daemon-reload
sudo systemctl restart cloakroom
sleep 2
