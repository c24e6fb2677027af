#!/bin/sh
# refused by: readable
# Root may read everything, but the box stays as shut as before.
sudo cat /srv/post/learner/letter.txt >"$HOME/letter.txt"
