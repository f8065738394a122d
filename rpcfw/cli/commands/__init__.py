"""What each command takes: arguments, options and help. What it does is in the modules above, imported when it runs."""
