#!/bin/sh
# The larder, the kitchen's folders, and a link that was made in a hurry.
set -eu

useradd --system --no-create-home --shell /usr/sbin/nologin kitchen
useradd --create-home --shell /bin/bash trainee
install -D -m 0755 files/larder /usr/local/lib/larder/larder
install -m 0644 files/larder.conf /etc/larder.conf
install -m 0644 files/larder.service /etc/systemd/system/
systemctl enable larder.service

install -d -m 0755 /srv/recipes /srv/recipes/basics
install -m 0644 files/stock.txt /srv/recipes/basics/
install -d -m 0755 -o kitchen -g kitchen /srv/kitchen /srv/kitchen/summer /srv/kitchen/autumn
install -m 0644 -o kitchen -g kitchen files/quinces.txt files/pumpkin.txt /srv/kitchen/autumn/
install -m 0644 -o kitchen -g kitchen files/cherries.txt /srv/kitchen/summer/
# The link that always worked was the kitchen's own; this one is the trainee's.
chown kitchen:kitchen /srv/recipes
ln -s /srv/kitchen/autumn /srv/recipes/season
chown --no-dereference trainee:trainee /srv/recipes/season
ln -s /srv/kitchen/summer /srv/recipes/last-season
chown --no-dereference kitchen:kitchen /srv/recipes/last-season
