"""What should be: pure data and pure functions. Nothing here looks at or changes the host."""
