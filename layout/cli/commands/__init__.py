"""The commands, by what they are about: arguments to calls, results to output."""
