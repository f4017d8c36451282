"""Times against floors measured in the same run: `make bench`. No tests: a time proves nothing there."""
