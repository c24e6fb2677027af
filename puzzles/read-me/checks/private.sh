#!/bin/sh
# The last octal digit is what people outside the group may do.
box=/srv/post/learner

case $(stat -c %a "$box") in
*0) ;;
*) fail "Now everybody on the machine may get into $box, not only the group post." ;;
esac
