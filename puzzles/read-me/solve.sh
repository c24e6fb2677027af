#!/bin/sh
# Take off the one entry that is about the learner; leave the courier's.
sudo setfacl --remove user:learner /srv/post/learner
