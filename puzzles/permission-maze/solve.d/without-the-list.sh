#!/bin/sh
# Without an access control list the group's bits are the group's again.
sudo chattr -i /srv/choir/public/programme.txt
sudo setfacl --remove-all /srv/choir/public/programme.txt
sudo chmod 660 /srv/choir/public/programme.txt
sudo chmod 2770 /srv/choir
