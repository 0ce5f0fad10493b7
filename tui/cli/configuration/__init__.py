"""The commands `config` and `notify`. Never imports torch or Textual."""
