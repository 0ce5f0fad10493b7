"""Groups of runs, such as eight seeds, drawn as one curve: their mean, with a band.

Never imports a widget.
"""
