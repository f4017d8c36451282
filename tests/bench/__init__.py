"""Times against floors measured in the same run: `make bench`. Never part of the tests: a time proves nothing there."""
