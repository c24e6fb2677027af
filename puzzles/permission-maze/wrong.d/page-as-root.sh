#!/bin/sh
# refused by: tight
# Root walks through any folder.
sudo sed -i '/^User=/d' /etc/systemd/system/choir-page.service
sudo systemctl daemon-reload
sudo systemctl restart choir-page
sudo chattr -i /srv/choir/public/programme.txt
sudo setfacl --modify user:learner:x /srv/choir
sudo setfacl --modify mask::rw /srv/choir/public/programme.txt
