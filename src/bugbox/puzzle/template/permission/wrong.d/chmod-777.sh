#!/bin/sh
# refused by: private
# It opens the folder, to everybody.
chmod 777 /srv/report
