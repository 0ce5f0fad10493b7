"""Images in folders as rows: which files, in which format, decoded by several processes, and cached.

Pillow decodes them. Never imports torch.
"""
