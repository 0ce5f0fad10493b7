"""Values that a script hands over: numbers, tensors on a device, configuration.

Imports the standard library only; torch and other libraries are looked up in `sys.modules` and never imported.
"""


class UnusableError(Exception):
    """A value is not a number. The message completes the sentence `NAME is …`."""
