"""What Apache does beyond the behaviour that all proxies share."""
