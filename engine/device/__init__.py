"""The device that trains: choosing it, its free memory, its random generators, and the peak memory of a process.

Never imports data, models or tasks.
"""
