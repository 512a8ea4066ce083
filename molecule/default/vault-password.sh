#!/bin/sh
# Password of the vault file that create.yml makes for these hosts.
echo molecule
