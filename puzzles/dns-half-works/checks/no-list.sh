#!/bin/sh
# Lines that count, in the list that is asked before the name server.
! sed 's/#.*//' /etc/hosts | grep -qi 'bay\.example\|buoy' ||
    fail "/etc/hosts still has an address of a buoy, which will drift away from it."
