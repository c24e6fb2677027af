#!/bin/sh
# Runs as the learner (user: learner in puzzle.yaml).
report=/srv/report/week.txt

if ! said=$(cat "$report" 2>&1 >/dev/null); then
    case $said in
    *ermission*) fail "As learner you still cannot read $report." ;;
    *) fail "There is no $report any more." ;;
    esac
fi
[ "$(cat "$report")" = "All quiet." ] || fail "What $report says is not what you wrote."
