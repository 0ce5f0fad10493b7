"""Values of whole runs, for programs that list, export or load them. Never imports torch, numpy or Textual."""
