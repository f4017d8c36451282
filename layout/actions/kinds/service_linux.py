"""Kind service on Linux: a drop-in for a unit that systemd has already."""
