#!/bin/sh
# refused by: answers
# Now the service runs, where no tablet asks for it.
sudo sed -i 's/^PORT=.*/PORT=8081/' /etc/default/menu
sudo systemctl reset-failed menu
sudo systemctl start menu
