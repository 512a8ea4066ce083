#!/bin/sh
# Password of group_vars/flask/secrets.vault beside this file. It protects nothing but these hosts.
echo molecule
