#!/bin/sh
# refused by: ownership
# The owner's entry comes first, so this opens the box: by taking it from the postmaster.
sudo chown learner /srv/post/learner
