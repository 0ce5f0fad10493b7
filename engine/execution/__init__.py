"""How steps are executed: eagerly, as a recorded graph, or compiled; and the choice between these.

Every executor takes the steps of :func:`epochtop.engine.step.step.make_step`. Never imports training; never reads the device.
"""
