"""How many calls may start, and what the end of each teaches: five ideas, a file each. Pure."""
