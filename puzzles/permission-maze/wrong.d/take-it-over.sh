#!/bin/sh
# refused by: tight
# The file is mine now. It was the choirmaster's.
sudo chattr -i /srv/choir/public/programme.txt
sudo chown learner /srv/choir/public/programme.txt
sudo chmod g+x /srv/choir
