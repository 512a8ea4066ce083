"""What the collection costs and what it serves, measured on real systemd hosts; `make bench` runs it."""
