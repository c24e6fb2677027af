#!/bin/sh
# Broken as told: the learner is refused, a colleague's box is open to the same learner.
! runuser -u learner -- cat /srv/post/learner/letter.txt >/dev/null 2>&1 &&
    runuser -u learner -- cat /srv/post/maria/letter.txt >/dev/null
