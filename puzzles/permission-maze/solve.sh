#!/bin/sh
# One lock after the other, each by the smallest change: folder, flag, mask.
sudo chmod g+x /srv/choir
sudo chattr -i /srv/choir/public/programme.txt
sudo setfacl --modify mask::rw /srv/choir/public/programme.txt
