"""Tables in delimited text: CSV files in the dialects that programs write.

A file becomes plain text in UTF-8 (`plain_text`), its first part tells the dialect (`dialect`), and one parser reads it in
blocks (`blocks`), a large file in several processes (`parallel`). Never imports torch.
"""
