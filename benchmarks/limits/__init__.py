"""What the machine and the loop can do with no framework at all."""
