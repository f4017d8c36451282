"""What was asked: arguments in, results and exit status out."""
