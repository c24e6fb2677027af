#!/bin/sh
# The last two octal digits are what the group and everybody else may do.
for path in /srv/report /srv/report/week.txt; do
    case $(stat -c %a "$path") in
    *00) ;;
    *) fail "Others than you may now get at $path." ;;
    esac
done
