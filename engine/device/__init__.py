"""Which device trains, how much memory it has, and what a process used.

Never imports data, models or tasks.
"""
