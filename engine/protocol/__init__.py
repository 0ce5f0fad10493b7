"""Every type and rule that crosses a process boundary: specs, events, requests.

Imports msgspec and the standard library only.
"""
