"""Values of a script other than plain numbers: tensors on a device, the configuration, objects of the wandb package.

Imported when a script hands one over. Imports the standard library only; torch and other libraries are looked up in
`sys.modules` and never imported.
"""
