"""Several processes that train one model: DDP and FSDP.

Never imports training.
"""
