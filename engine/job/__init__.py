"""A spec made trainable: data, model, optimizer and plan, checked before a run exists.

Never imports execution, distributed or training.
"""
