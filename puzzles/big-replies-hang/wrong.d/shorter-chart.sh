#!/bin/sh
# refused by: chart
# What fits into one packet arrives. They wanted the whole day.
sudo sed -i '21,$d' /srv/valley/chart
