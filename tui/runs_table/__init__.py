"""The table of all runs: columns, filter, groups, and the page that shows it. Never imports torch or numpy."""
