#!/bin/sh
# Runs as the learner. Opening for appending proves the right to write and changes nothing.
file=/srv/choir/public/programme.txt

said=$( { : >>"$file"; } 2>&1 ) && exit 0
case $said in
*"not permitted"*) fail "As learner you are not permitted to change $file, though its mode would let you." ;;
*) fail "As learner you may not write to $file." ;;
esac
