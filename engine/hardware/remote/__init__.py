"""Another machine, by the messages of :mod:`epochtop.remote.machine`. Reads no sensor of this one. Never imports torch."""
