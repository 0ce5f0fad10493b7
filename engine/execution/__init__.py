"""How steps are executed: one after the other, as a recorded graph, or compiled; and the choice between these.

Every executor takes the steps that :func:`epochtop.engine.step.step.make_step` describes; none of them reads the device.

Never imports training.
"""
