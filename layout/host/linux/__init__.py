"""What only Linux has: the mount API by descriptor, namespaces, capabilities."""
