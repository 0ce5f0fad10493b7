"""The folder that `epochtop run` puts first on PYTHONPATH. Its modules import nothing at their top but os and sys."""
