"""The built-in networks, one module per kind of rows.

Never imports data readers: a network knows the shape of its rows and nothing else.
"""
