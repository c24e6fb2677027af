#!/bin/sh
# refused by: size
# It moves the end away; the cache grows on.
sudo mount -o remount,size=64m /srv/inbox
