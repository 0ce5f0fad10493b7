"""The part of epochtop that runs on another machine, where nothing but Python 3.9 or later is installed.

Its source is sent over an ssh connection and executed there; see :mod:`epochtop.engine.runs.remote`. It reads run
directories, appends commands to them, and changes what `changing` allows. Imports the standard library and the modules
that are sent with it only.
"""
