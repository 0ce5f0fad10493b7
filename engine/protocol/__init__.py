"""Every type and rule that crosses a process boundary: specs, records, events, commands, requests.

Imports msgspec and the standard library only.
"""
