"""`epochtop lab`: experiments, their results and comparisons. Never imports torch, numpy or Textual."""
