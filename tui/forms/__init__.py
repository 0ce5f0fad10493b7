"""Forms and dialogs: the run form, its fields, questions.

Never imports app, screens or lab.
"""
