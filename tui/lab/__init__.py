"""The Lab screen: experiments, results and comparisons.

Never imports app or cli.
"""
