#!/bin/sh
# The third lock: a flag of the inode, which neither a mode nor an owner shows.
/usr/bin/chattr +i /srv/choir/public/programme.txt
