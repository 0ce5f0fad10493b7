"""What a trained run can do: predict, export, describe itself.

Never imports lab or process.
"""
