#!/bin/sh
# refused by: guarded
# The server follows every link now, whoever made it.
sudo sed -i 's/^links = .*/links = yes/' /etc/larder.conf
sudo systemctl restart larder
