#!/bin/sh
# Runs as the learner: the only proof that counts is the reading itself.
letter=/srv/post/learner/letter.txt

if ! said=$(cat "$letter" 2>&1 >/dev/null); then
    case $said in
    *ermission*) fail "As learner you still may not open $letter." ;;
    *) fail "There is no letter at $letter any more." ;;
    esac
fi

# shellcheck disable=SC2046  # two words are wanted
set -- $(sha256sum "$letter")
[ "$1" = 6c66b13acb1623db69fcaa32536fe0d43bac01d653a749de3b1d31daed8ada17 ] ||
    fail "What lies at $letter is not the letter that was delivered."
