"""Training runs that are directories. Importing this package costs nothing; see engine.protocol."""
