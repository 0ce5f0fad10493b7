"""Records a training run from inside any Python program: creates a run directory and appends to it.

This code runs in other people's processes. It imports the standard library only, works with Python 3.9 or later, and looks
for torch and other libraries in `sys.modules` instead of importing them. It never imports the engine, the screen or msgspec.
A script waits for every import. The modules of this package are imported when a run starts; those of `earlier`, `later` and
`values`, and slow ones (json, typing, subprocess), are imported in functions, when they are needed.
"""
