"""What is: the only code that looks at or changes the host, one module for each thing it touches."""
