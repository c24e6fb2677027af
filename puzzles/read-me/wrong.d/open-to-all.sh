#!/bin/sh
# refused by: readable
# The bits for "others" are never asked: a named entry has decided before.
sudo chmod -R 777 /srv/post/learner
