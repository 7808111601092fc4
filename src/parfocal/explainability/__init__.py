"""Where a network looks: maps of what speaks for an answer, and whether they lie where they should."""
