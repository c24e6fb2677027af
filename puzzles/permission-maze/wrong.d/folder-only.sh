#!/bin/sh
# refused by: editable
# The visitors are content, and the programme cannot be changed any more.
sudo chmod g+x /srv/choir
