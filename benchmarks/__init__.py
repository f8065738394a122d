"""Speed, measured as ratios to the machine's own limits in the same run."""
