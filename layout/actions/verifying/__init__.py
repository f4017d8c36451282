"""What verify looks at, one module for each kind of thing; the registry says what there is."""
