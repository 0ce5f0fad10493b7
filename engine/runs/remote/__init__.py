"""Runs on another machine, over ssh: mirrored into a private folder, where everything reads them like local runs.

`registry` knows the mirrors of this process; `mirror` keeps one up to date; `pull` copies a run. Nothing of a mirrored run is
ever executed. Never imports torch, numpy or Textual.
"""
