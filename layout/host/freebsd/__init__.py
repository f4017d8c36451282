"""What only FreeBSD has: nullfs, jails, devfs rulesets, distribution sets."""
