"""The device that trains: choosing it, its free memory, and the peak memory of a process.

Never imports data, models or tasks.
"""
