"""From a spec to a job: data, model, optimizer and plan, checked before a run exists.

Never imports execution, distributed or training.
"""
