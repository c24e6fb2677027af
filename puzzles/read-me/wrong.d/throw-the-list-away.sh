#!/bin/sh
# refused by: courier
# The lock is gone, and so is the courier's entry.
sudo setfacl --remove-all /srv/post/learner
