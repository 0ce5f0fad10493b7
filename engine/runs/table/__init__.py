"""Everything about many runs at once: figures, configuration, tags and notes. Never imports torch, numpy or Textual."""
