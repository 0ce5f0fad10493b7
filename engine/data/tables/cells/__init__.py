"""What the cells of a table hold: numbers, texts, or nothing. Never reads a file or imports torch."""
