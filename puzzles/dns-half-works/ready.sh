#!/bin/sh
# Broken as told: the name server answers, and the resolver does not ask it.
nslookup buoy7.bay.example 127.0.0.1 2>/dev/null | grep -q '127\.77\.0\.7' &&
    ! /usr/bin/getent hosts buoy7.bay.example >/dev/null
