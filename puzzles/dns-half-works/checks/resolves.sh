#!/bin/sh
# A name that nobody can have written down, asked for as programs do: by the C library.
name=check-$(od -An -N 6 -t x1 /dev/urandom | tr -d ' \n').bay.example

# answered: the address in nslookup's answer, which begins after the server's own.
answered() { nslookup -type=a "$1" 127.0.0.1 2>/dev/null | awk '/^Name:/ { n = 1 } n && /^Address/ { print $NF; exit }'; }

wanted=$(answered "$name")
[ -n "$wanted" ] || fail "The bay's name server at 127.0.0.1 no longer answers."
found=$(/usr/bin/getent hosts "$name" | awk '{ print $1; exit }')
[ -n "$found" ] || fail "Programs still do not find a buoy that has just got its name."
[ "$found" = "$wanted" ] || fail "Programs get $found for a buoy that is at $wanted."
[ "$(/usr/bin/getent hosts buoy3.bay.example | awk '{ print $1; exit }')" = 127.77.0.3 ] ||
    fail "For buoy3 programs still get an address where it lay long ago."
