#!/bin/sh
for month in april may june; do
    [ "$(cat "/srv/inbox/$month.txt" 2>/dev/null)" = "The report of $month: all quiet." ] ||
        fail "The letter $month.txt is not in the inbox as it was."
done
