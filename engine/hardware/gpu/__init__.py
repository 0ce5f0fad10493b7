"""Which GPUs there are, how busy they are and who uses them, as NVML reports it.

Never imports torch or numpy.
"""
