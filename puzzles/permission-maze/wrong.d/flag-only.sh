#!/bin/sh
# refused by: editable
# Folder and flag are mended; the mask still cuts the group's rights down to reading.
sudo chmod g+x /srv/choir
sudo chattr -i /srv/choir/public/programme.txt
