"""The filter of the table: its grammar, its meaning, and the entry for it. Never imports torch or numpy."""
