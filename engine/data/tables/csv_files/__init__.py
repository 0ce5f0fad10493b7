"""The CSV reader: tables in delimited text, in the dialects that programs write.

A file becomes plain text in UTF-8 (`plain_text`), its first part shows the dialect (`dialect`), and one parser reads it in
blocks (`blocks`), a large file in several processes (`parallel`). Never imports torch.
"""
