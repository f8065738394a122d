"""How much may run at a time, or in a second: one limit per file. No I/O, no clock."""
