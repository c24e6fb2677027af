#!/bin/sh
# Runs as the courier. Opening for appending proves the way in and changes nothing.
log=/srv/post/learner/deliveries.log

( : >>"$log" ) 2>/dev/null || fail "The courier can no longer write to $log."
