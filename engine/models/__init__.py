"""The built-in networks, and summaries of any model: layers, parameters, memory.

Imports from data only the types of a prepared dataset; never imports tasks.
"""
