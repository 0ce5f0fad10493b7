"""Text on its way to a terminal: foreign text becomes plain text, and the streams that write it.

Importable without torch and Textual, because every command needs it; never imports another engine package.
"""
