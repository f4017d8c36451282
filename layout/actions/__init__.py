"""What to do: each command's work, made of core decisions and host effects."""
