"""The arithmetic of one training step. It enqueues work and never reads the device.

Never imports job, execution or training.
"""
