"""The machine panel and its full page.

Never imports app, screens or lab.
"""
