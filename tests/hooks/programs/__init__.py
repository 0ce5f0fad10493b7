"""Programs that tests run with and without hooks."""
