#!/bin/sh
# refused by: private
# The right entry is removed, and a chmod from an earlier try is left behind.
sudo setfacl --remove user:learner /srv/post/learner
sudo chmod o+rx /srv/post/learner
