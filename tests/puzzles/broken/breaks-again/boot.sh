#!/bin/sh
# At every boot, so also after somebody has mended it.
chmod 0600 /srv/report
