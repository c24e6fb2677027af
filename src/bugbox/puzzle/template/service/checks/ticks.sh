#!/bin/sh
# Two looks, a few seconds apart: a file that somebody wrote by hand does not go on.
now() { cat /run/tower/now 2>/dev/null; }
there() { [ -n "$(now)" ]; }
moved() { [ "$(now)" != "$before" ]; }

# One that was started a moment ago gets its chance.
eventually 10 there || fail "The clock writes no time into /run/tower/now."
before=$(now)
eventually 10 moved || fail "The clock stands still."
